"""The launcher ``ray`` keeps the contract in a real cluster, which the tests share. Ray listens on all interfaces, so
where that is allowed they have a network of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

from tests.system.own_network import own_network
from tests.system.ray_nodes import Nodes, nothing_left

from anywire.testing.launcher_kit import LauncherConformance


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    with own_network(), nothing_left() as folder:
        nodes = Nodes(folder, cpus=2)
        TestRay.options["address"] = nodes.address
        try:
            yield
        finally:
            nodes.close()


class TestRay(LauncherConformance):
    launcher = "ray"
    options: ClassVar[dict[str, Any]] = {}
