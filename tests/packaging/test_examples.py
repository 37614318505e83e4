"""The examples as a third party's: built, installed in an environment of their own, and put through the shipped kit."""

import json
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.packaging.own_environment import ROOT, WITHOUT, build_wheels, core_sources, install, lend, make_environment

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the core, its testing extra and the examples, nothing else of ours."""
    folder = tmp_path_factory.mktemp("elsewhere")
    sources = (shutil.copytree(each, folder / each.name, ignore=WITHOUT) for each in EXAMPLES)
    wheels = folder / "wheels"
    build_wheels(wheels, core_sources(folder / "core"), *sources)
    python = make_environment(folder / "env")
    (built,) = wheels.glob("anywire-*.whl")
    lend(python, built, "testing")
    install(python, "--no-index", *wheels.iterdir())
    return python.parent


def test_they_are_listed_beside_the_core_alone(elsewhere: Path) -> None:
    out = subprocess.run([elsewhere / "anywire", "plugins", "--json"], check=True, capture_output=True, text=True)
    listed = {plugin["name"]: plugin for plugin in json.loads(out.stdout)}
    assert sorted(listed) == [
        "deadline_first",
        "fifo",
        "least_loaded",
        "local",
        "memo",
        "memory",
        "nice",
        "recorded",
        "recording",
        "round_robin",
        "shares",
        "synthetic",
        "tcp",
        "unix",
    ]
    assert listed["unix"]["distribution"] == f"anywire-unix {VERSION}"
    assert not [plugin["error"] for plugin in listed.values() if plugin["error"]]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_passes_the_conformance_kit(elsewhere: Path, tmp_path: Path, example: Path) -> None:
    shutil.copytree(example / "tests", tmp_path / "tests")
    shutil.copy(example / "pyproject.toml", tmp_path)
    command = [str(elsewhere / "python"), "-m", "pytest", "-q", "-W", "error", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose name is short: a socket's path may have about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        yield Path(folder)


def test_the_core_with_one_transport_serves_its_client_plane(elsewhere: Path, sockets: Path) -> None:
    over = ["--transport", "unix", "--set", f"transports.unix.directory={sockets}"]
    beside = ["--set", "services=memo", "--set", "launcher=nice"]
    up = [str(elsewhere / "anywire"), "up", "--agents", "2", "--engine", "synthetic", *over, *beside]
    with subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            ready = server.stdout.readline()
            assert ready == "ready: the client plane, no gateway (2 agents, unix)\n", server.communicate()[1]
            ask = [str(elsewhere / "anywire"), "chat", "hello", *over]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.split()) == 20
        finally:
            server.send_signal(signal.SIGINT)
            _, said = server.communicate()
    assert server.returncode == 0, said
    assert said.count("no HTTP gateway is installed (anywire-gateway-openai has one)") == 1
    assert "no gateway serves them" in said
