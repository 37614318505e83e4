"""The launcher ``ray`` keeps the contract, its driver and actors with a stand-in for Ray."""

import pytest

from anywire.testing.launcher_kit import LauncherConformance


@pytest.mark.usefixtures("stand_in")
class TestRay(LauncherConformance):
    launcher = "ray"
