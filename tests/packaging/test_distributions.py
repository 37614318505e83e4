"""What each distribution declares, and that its code keeps to it."""

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").rglob("pyproject.toml"))
CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORT_NAMES = {
    "pyzmq": "zmq",
    "pyyaml": "yaml",
    "pydantic-settings": "pydantic_settings",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "protobuf": "google",
    "pyjwt": "jwt",
    "nats-py": "nats",
    "opentelemetry-proto": "opentelemetry",
}


def project(plugin: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    return found


def required(dependencies: list[str]) -> set[str]:
    """The import names of the distributions required."""
    names = set()
    for each in dependencies:
        name = each.split(";")[0].strip()
        for mark in "<>=!~[ ":
            name = name.split(mark)[0]
        names.add(IMPORT_NAMES.get(name.lower(), name.lower().replace("-", "_")))
    return names


def imported(folder: Path) -> dict[str, set[str]]:
    """The top-level packages every file of ``folder`` imports, standard library apart."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
        found[str(path.relative_to(ROOT))] = {name for name in names if name not in sys.stdlib_module_names}
    return found


def test_core_imports_no_plugin_and_only_what_it_declares() -> None:
    allowed = required(CORE["dependencies"]) | {"anywire"}
    kit = allowed | required(CORE["optional-dependencies"]["testing"])
    optional = {"uvloop"}  # used where it is installed
    for path, names in imported(ROOT / "core").items():
        assert names <= (kit if "/testing/" in path else allowed | optional), path


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugin_imports_only_what_it_declares(plugin: Path) -> None:
    (package,) = (path.parent for path in plugin.glob("anywire_*/__init__.py"))
    described = project(plugin)
    optional = [each for extra in described.get("optional-dependencies", {}).values() for each in extra]
    allowed = required([*described["dependencies"], *optional]) | {package.name}
    for path, names in imported(package).items():
        assert names <= allowed, path


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_one_version_with_exact_pins(plugin: Path) -> None:
    described = project(plugin)
    assert described["version"] == CORE["version"]
    ours = [each for each in described["dependencies"] if each.startswith("anywire")]
    assert f"anywire=={CORE['version']}" in ours
    assert all(each.endswith(f"=={CORE['version']}") for each in ours)


def test_the_workspace_installs_every_plugin() -> None:
    files = [ROOT / "requirements-demo.txt", ROOT / "requirements-dev.txt"]
    assert "-r requirements-demo.txt" in files[1].read_text().splitlines()
    lines = [line for file in files for line in file.read_text().splitlines()]
    listed = {line.removeprefix("-e ") for line in lines if line.startswith("-e plugins/")}
    assert listed == {str(path.relative_to(ROOT)) for path in PLUGINS}


def test_constraints_name_no_address() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugin_says_what_it_is(plugin: Path) -> None:
    assert len((plugin / "README.md").read_text().splitlines()) > 5
    assert project(plugin)["entry-points"]
