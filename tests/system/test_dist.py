"""All distributions built and installed in an environment that has nothing of this repository but their wheels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.packaging.own_environment import install, make_environment

from built_files import faults
from make_dist import make_dist
from own_distributions import distributions

FOUND = distributions()
OWN = {each.name for each in FOUND}

pytestmark = pytest.mark.timeout(900)

IMPORT_ALL = """
import importlib, json, pkgutil, sys
failed = {}
for package in json.loads(sys.argv[1]):
    module = importlib.import_module(package)
    assert "site-packages" in module.__file__, module.__file__
    for each in pkgutil.walk_packages(module.__path__, package + "."):
        if each.name.endswith("__main__") or ".testing" in each.name:
            continue
        try:
            importlib.import_module(each.name)
        except Exception as error:
            failed[each.name] = repr(error)
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    make_dist(folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``bin`` folder of an environment with `anywire[all]` of those wheels; what they need of others first."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    python = make_environment(folder)
    alone = environment(folder.parent) | {"HOME": os.environ.get("HOME", "")}  # without paths to this repository
    install(python, *others(), env=alone)
    # Of ours, nothing but these wheels can be found.
    install(python, "--no-index", "--find-links", dist, "anywire[all]", env=alone)
    yield python.parent
    shutil.rmtree(folder)


def others() -> list[str]:
    """What the distributions of `anywire[all]` need of others."""
    core, *plugins = FOUND
    whole = {Requirement(line).name for line in core.project["optional-dependencies"]["all"]}
    needed = [*core.required, *(line for each in plugins if each.name in whole for line in each.required)]
    return sorted({line for line in needed if Requirement(line).name not in OWN})


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANYWIRE_", "PYTHON"))}
    return kept | {"HOME": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}


def test_wheels_and_source_distributions_have_all_and_nothing_else(dist: Path) -> None:
    wrong = [each for distribution in FOUND for each in faults(distribution, dist)]
    assert not wrong, "\n".join(wrong)
    assert len(list(dist.iterdir())) == 2 * len(FOUND)


def test_every_module_of_every_wheel_imports(installed: Path, tmp_path: Path) -> None:
    whole = FOUND[0].project["optional-dependencies"]["all"]
    names = {Requirement(line).name for line in whole} | {"anywire"}
    packages = [each.package.name for each in FOUND if each.name in names]
    done = subprocess.run(
        [installed / "python", "-c", IMPORT_ALL, json.dumps(packages)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_ray_is_not_in_it(installed: Path) -> None:
    folders = {path.name.partition("-")[0] for path in installed.parent.glob("lib/python*/site-packages/*.dist-info")}
    assert "anywire_experiment" in folders
    assert not folders & {"ray", "anywire_launcher_ray"}


@pytest.mark.parametrize("transport", ["zeromq", "dds"])
def test_the_demo_runs(installed: Path, tmp_path: Path, transport: str) -> None:
    command = [str(installed / "anywire"), "demo", "--engine", "synthetic", "--transport", transport]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert transport in done.stdout
    assert "time to first token" in done.stdout


def test_commands_say_what_is_installed_and_complete_it(installed: Path, tmp_path: Path) -> None:
    def anywire(*arguments: str) -> str:
        done = subprocess.run(
            [installed / "anywire", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(anywire("plugins", "--json"))
    assert not [each for each in listed if each["error"]]
    assert {each["distribution"] for each in listed} >= {f"anywire-dds {FOUND[0].project['version']}"}
    assert anywire("--version") == f"anywire {FOUND[0].project['version']}\n"
    anywire("init", "--engine", "synthetic")
    assert "synthetic" in anywire("config", "--config", "anywire.yaml")
    assert ".TH ANYWIRE" in anywire("man")
