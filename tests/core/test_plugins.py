"""Finding plugins: one name from two distributions, and names of packages that are not installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pydantic
import pytest

from anywire.builtin.local import LocalLauncher
from anywire.builtin.memory import MemoryTransport
from anywire.builtin.round_robin import RoundRobin
from anywire.builtin.synthetic import SyntheticEngine
from anywire.cli import app
from anywire.errors import ConfigError, PluginError
from anywire.gateway import Gateway
from anywire.hookspecs import hookimpl
from anywire.plugins import KINDS, PACKAGES, PluginKind, Plugins, describe_validation
from anywire.selector import Selector
from anywire.service import Service, ServiceConfig

ROOT = Path(__file__).parents[2]


def distribution(folder: Path, name: str) -> None:
    """A distribution ``name`` with an engine ``twin``."""
    package = folder / f"{name}-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[anywire.engines]\ntwin = anywire.builtin.synthetic:SyntheticEngine\n")


def test_one_name_from_two_distributions_is_an_error_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "first")
    monkeypatch.syspath_prepend(tmp_path)
    assert Plugins().load("engines", "twin").__name__ == "SyntheticEngine"
    distribution(tmp_path, "second")
    plugins = Plugins()
    assert plugins.names("engines").count("twin") == 1
    with pytest.raises(PluginError) as caught:
        plugins.load("engines", "twin")
    assert "first 1.0" in str(caught.value)
    assert "second 1.0" in str(caught.value)
    assert plugins.load("engines", "synthetic"), "the others are as they were"


class Inner(pydantic.BaseModel):
    replicas: int = 1
    agents: list[str] = []


class Outer(pydantic.BaseModel):
    models: dict[str, Inner] = {}


def test_a_value_in_the_place_of_a_section_is_told_with_the_keys_of_that() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Outer.model_validate({"models": {"local:a:1": 2}})
    assert describe_validation(caught.value, Outer, "services.x") == (
        "services.x.models.local:a:1: expected a mapping with the keys replicas, agents (got 2)"
    )


def test_commands_of_plugins_stand_in_the_order_of_their_names() -> None:
    of_plugins = {point.name for point in entry_points(group="anywire.commands")}
    found = [each.name for each in app.registered_groups if each.name in of_plugins]
    assert found == sorted(of_plugins), "wherever their distributions lie"


def test_a_plugin_of_a_package_that_is_not_installed_is_named_with_it() -> None:
    plugins = Plugins()
    for (kind, name), package in PACKAGES.items():
        plugins._entry_points[kind].pop(name, None)
        with pytest.raises(PluginError, match=f"no {kind[:-1]} named '{name}' is installed: pip install {package}$"):
            plugins.load(kind, name)


def test_every_plugin_of_this_project_beside_the_core_has_its_package_named() -> None:
    found = {}
    for path in (ROOT / "plugins").rglob("pyproject.toml"):
        project = tomllib.loads(path.read_text())["project"]
        for kind in KINDS:
            for name in project.get("entry-points", {}).get(f"anywire.{kind}", {}):
                found[kind, name] = project["name"]
    assert found == PACKAGES


# What a class says of itself


def registered(kind: PluginKind, **classes: type) -> Plugins:
    class Registers:
        @hookimpl
        def anywire_register(self, kind: str) -> dict[str, type] | None:
            return classes if kind == wanted else None

    wanted, plugins = kind, Plugins()
    plugins.manager.register(Registers())
    return plugins


class Nameless(Service):
    async def start(self, context: Any) -> None: ...
    async def close(self) -> None: ...


class NamelessGateway(Gateway):
    Config = ServiceConfig


@pytest.mark.parametrize(("kind", "made"), [("services", Nameless), ("gateways", NamelessGateway)])
def test_a_class_without_a_name_is_refused_with_its_full_name(kind: PluginKind, made: type) -> None:
    with pytest.raises(PluginError) as caught:
        registered(kind, odd=made).create(kind, "odd", {})
    assert f"{kind[:-1]} 'odd': the class {__name__}.{made.__name__} has no name" in str(caught.value)
    assert "add name = 'odd'" in str(caught.value)


def test_a_class_without_a_name_is_refused_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nameless.py").write_text(
        "from anywire.service import Service\n"
        "class Odd(Service):\n"
        "    async def start(self, context): ...\n"
        "    async def close(self): ...\n"
    )
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[anywire.services]\nodd = nameless:Odd\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"the class nameless\.Odd \(theirs 1\.0\) has no name"):
        Plugins().create("services", "odd", {})


def test_a_selector_needs_no_name() -> None:
    class Short(Selector):
        def select(self, task: Any, candidates: Any) -> Any: ...

    assert registered("selectors", short=Short).create("selectors", "short", {}).name == "short"


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("transports", MemoryTransport),
        ("engines", SyntheticEngine),
        ("launchers", LocalLauncher),
        ("selectors", RoundRobin),
    ],
)
def test_a_plugin_has_the_name_by_which_it_was_asked_for(kind: PluginKind, made: Any) -> None:
    plugins, own = registered(kind, one=made, two=made), made.name
    assert [plugins.create(kind, name, {}).name for name in ("one", "two", own)] == ["one", "two", own]
    assert made.name == own


def test_an_unknown_key_of_a_class_without_its_own_config_is_told_so() -> None:
    class Mine(Service):
        name = "mine"

        async def start(self, context: Any) -> None: ...
        async def close(self) -> None: ...

    class Configured(Mine):
        Config = ServiceConfig

    plugins = registered("services", mine=Mine, configured=Configured)
    with pytest.raises(
        ConfigError, match=r"known keys: none \(the class .*Mine has no Config of its own: .* of Service"
    ):
        plugins.create("services", "mine", {"size": 1})
    with pytest.raises(ConfigError, match=r"known keys: none$"):
        plugins.create("services", "configured", {"size": 1})


def test_a_kit_for_a_plugin_in_a_file_says_how_to_name_the_file(tmp_path: Path) -> None:
    """A selector in one .py file, as the how-to has it, and its kit run by pytest: first without ``plugins``."""
    (tmp_path / "mine.py").write_text(
        "from anywire.builtin.round_robin import RoundRobin\n"
        "from anywire.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef anywire_register(kind):\n"
        "    return {'mine': type('Mine', (RoundRobin,), {'name': 'mine'})} if kind == 'selectors' else None\n"
    )
    test = tmp_path / "test_mine.py"
    text = (
        "from anywire.testing.selector_kit import SelectorConformance\n\n"
        "class TestMine(SelectorConformance):\n    selector = 'mine'\n"
    )
    test.write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'in a test kit with plugins = ("FILE",)' in done.stdout
    test.write_text(text + f"    plugins = ({str(tmp_path / 'mine.py')!r},)\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("options", [{"token": "geheim-ö"}, {"secret_key": "geheim"}, {"token": ["geheim"]}])
def test_a_secret_that_does_not_fit_is_not_repeated(options: dict[str, Any]) -> None:
    transport = "zeromq" if "secret_key" in options else "grpc"
    with pytest.raises(ConfigError) as caught:
        Plugins().create("transports", transport, options)
    assert next(iter(options)) in str(caught.value)
    assert "geheim" not in str(caught.value)
