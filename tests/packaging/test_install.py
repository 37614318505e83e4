"""Installing without a clone, as its page says: from a repository, and from wheels."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.long_form import SOAK

from anywire.plugins import PACKAGES
from reserved import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "install.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.timeout(300)


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_") and key != "PYTHONPATH"}
    plane = {f"ANYWIRE_TRANSPORTS__ZEROMQ__{each}_ADDRESSES": f"tcp://127.0.0.1:{free_port()}"
             for each in ("AGENT", "CLIENT")}  # fmt: skip
    # Without environments of their own for builds, by which pip means 0: each would install setuptools anew.
    quick = {} if SOAK else {"PIP_NO_BUILD_ISOLATION": "0"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | plane | quick | {"PATH": path, "PIP_QUIET": "1", "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What is here, without what was built."""
    without = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", ".*")
    copied = tmp_path / "sources"
    copied.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copied)
    for name in ("core", "plugins"):
        shutil.copytree(ROOT / name, copied / name, ignore=without)
    return copied


@pytest.mark.skipif(not SOAK, reason="the long form: it fetches and builds everything")
def test_from_a_repository(sources: Path, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@localhost", "-C", str(sources)]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *arguments], check=True)
    install, start, *_ = COMMANDS
    given = environment() | {"REPO": f"file://localhost{sources}"}
    subprocess.run(["bash", "-ec", install], cwd=tmp_path, env=given, check=True)
    command = [*start.split(), "--port", str(port := free_port())]
    with subprocess.Popen(command, cwd=tmp_path, env=given, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        try:
            assert up.stdout.readline() == f"ready: http://127.0.0.1:{port} (1 agents, zeromq)\n"
        finally:
            up.send_signal(signal.SIGINT)
    assert up.returncode == 0


def test_wheels_are_built_and_fit_each_other(sources: Path) -> None:
    build, install = COMMANDS[2:]
    given = environment()
    subprocess.run(["bash", "-ec", build], cwd=sources, env=given, check=True)
    wanted = install.split("wheels", 1)[1].split()
    built = {path.name.split("-")[0].replace("_", "-") for path in (sources / "wheels").iterdir()}
    assert built == set(wanted)
    # Nothing is installed, but that they fit and where they come from is found out.
    dry = install.replace("pip install", "pip install --dry-run --ignore-installed --no-deps --no-index")
    subprocess.run(["bash", "-ec", dry], cwd=sources, env=given, check=True)


def test_the_page_names_every_distribution_and_its_folder() -> None:
    for path in (ROOT / "pyproject.toml", *(ROOT / "plugins").rglob("pyproject.toml")):
        name = tomllib.loads(path.read_text())["project"]["name"]
        assert f"`{name}`" in PAGE
    assert all(f"`{package}`" in PAGE for package in PACKAGES.values())
    for folder in re.findall(r"`(plugins/[\w/]+)`", PAGE):
        assert (ROOT / folder / "pyproject.toml").is_file()
