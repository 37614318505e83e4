"""Puts the routers from the registry below `peers.routers.home`, each into an environment of its own.

What is there at its version stays. One that cannot be installed is left out of the run, with a word.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from peers.routers import home, version_of


class Router(NamedTuple):
    """What is installed for a router: first without, then with what each of them requires. The first one named, with
    its version, says what is there."""

    alone: Sequence[str] = ()
    packages: Sequence[str] = ()

    @property
    def pinned(self) -> tuple[str, str]:
        name, _, version = [*self.alone, *self.packages][0].partition("==")
        return name.partition("[")[0], version


ROUTERS = {
    "vllm-router": Router(packages=["vllm-router==0.1.17"]),
    "smg": Router(packages=["smg==1.13.0"]),
    "sglang-router": Router(packages=["sglang-router==0.3.2"]),
    "litellm": Router(packages=["litellm[proxy]==1.108.7", "httptools"]),
    # Much of what it requires is for engines and for planning: named is what its frontend and a worker need.
    "dynamo": Router(
        alone=["ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"],
        packages=[
            "aiohttp", "certifi", "kubernetes>=32.0.1,<33", "msgspec", "orjson", "prometheus-client",
            "pydantic<=2.13.5", "pyzmq", "redis", "tqdm", "transformers>=4.56,<5", "typing-extensions", "uvloop",
            "zstandard",
        ],
    ),
}  # fmt: skip


def install(names: Iterable[str]) -> None:
    """Install these routers, as far as they are known here and not there yet, and say what fails."""
    for name in names:
        if (router := ROUTERS.get(name)) is None:
            continue
        package, version = router.pinned
        if version_of(name, package) == version:
            continue
        print(f"installing {name} {version} into {home() / name}", file=sys.stderr, flush=True)
        try:
            _install(home() / name, router)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"not installed: {name}: {error}", file=sys.stderr)


def _install(folder: Path, router: Router) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    uv = shutil.which("uv")
    command = (
        [uv, "pip", "install", "--quiet", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "-qq"]
    )
    for options, packages in ((["--no-deps"], router.alone), ([], router.packages)):
        if packages:
            subprocess.run([*command, *options, *packages], check=True)
