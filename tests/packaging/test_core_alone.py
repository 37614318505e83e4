"""The core in an environment of its own: built, installed, and without any plugin."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.packaging.own_environment import build_wheels, core_sources, install, lend, make_environment

PROBE = """
import importlib, pkgutil, sys, anywire
for module in pkgutil.walk_packages(anywire.__path__, "anywire."):
    if not module.name.startswith("anywire.testing") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(sorted({"cyclonedds", "aiohttp", "zmq"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the core's wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("alone")
    build_wheels(folder / "wheels", core_sources(folder / "source"))
    python = make_environment(folder / "env")
    (wheel,) = (folder / "wheels").iterdir()
    lend(python, wheel)
    install(python, "--no-index", wheel)
    return python.parent


def test_it_imports_no_transport_library(alone: Path) -> None:
    out = subprocess.run([alone / "python", "-c", PROBE], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_it_lists_only_its_own_plugins(alone: Path) -> None:
    out = subprocess.run([alone / "anywire", "plugins", "--json"], check=True, capture_output=True, text=True)
    assert sorted(plugin["name"] for plugin in json.loads(out.stdout)) == [
        "fifo",
        "least_loaded",
        "local",
        "memory",
        "recorded",
        "recording",
        "round_robin",
        "synthetic",
        "tcp",
    ]


MEMORY = ("--transport", "memory", "--engine", "synthetic")


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("serve",), "anywire-dds"),
        (("up", *MEMORY, "--set", "gateways=openai"), "anywire-gateway-openai"),
        (("up", *MEMORY, "--scheduler", "priority"), "anywire-schedulers"),
        (("up", *MEMORY, "--selector", "random"), "anywire-selectors"),
        (("up", "--transport", "memory"), "anywire-engine-llama"),
        (("demo", *MEMORY), "anywire-gateway-openai"),
    ],
)
def test_what_is_missing_is_named_with_its_package(alone: Path, arguments: tuple[str, ...], package: str) -> None:
    out = subprocess.run([alone / "anywire", *arguments], check=False, capture_output=True, text=True)
    assert out.returncode == 1
    assert f"pip install {package}" in out.stderr
    assert "Traceback" not in out.stderr
