"""The launcher of the core keeps the contract."""

from anywire.testing.launcher_kit import LauncherConformance


class TestLocal(LauncherConformance):
    launcher = "local"
