"""``anywire up`` serves the page where it can, unless it is told not to."""

from __future__ import annotations

from typing import Any

import pytest

from anywire.config import Config
from anywire.plugins import Plugins
from anywire.roles.assembly import with_page


@pytest.mark.parametrize(
    ("settings", "services"),
    [
        ({}, ["ui"]),
        ({"services": {"alerts": {}}}, ["alerts", "ui"]),
        ({"services": {"ui": {"page": False}, "alerts": {}}}, ["ui", "alerts"]),
        ({"gateways": {"openai": {}}}, ["ui"]),
        ({"gateways": {"grpc": {}}}, []),
        ({"gateways": []}, []),
    ],
)
def test_the_page_is_added_where_a_gateway_serves_it(settings: dict[str, Any], services: list[str]) -> None:
    before = Config.model_validate(settings)
    config = with_page(before, Plugins())
    assert [each.name for each in config.services] == services
    kept = {each.name: each.options for each in before.services}
    assert {each.name: each.options for each in config.services} == kept | (
        {"ui": {}} if "ui" in services and "ui" not in kept else {}
    )


def test_not_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugins, "names", lambda self, kind: ["openai"])
    assert with_page(Config(), Plugins()).services == []
