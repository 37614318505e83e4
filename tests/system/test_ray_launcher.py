"""The launcher ``ray`` keeps the contract, with a real cluster. Ray listens on all interfaces, so where that is allowed
the tests run in a network of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("ray", reason="Ray is not installed: tests/system/install.sh")

from tests.system.own_network import own_network

from anywire.testing.launcher_kit import LauncherConformance


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


class TestRay(LauncherConformance):
    launcher = "ray"
