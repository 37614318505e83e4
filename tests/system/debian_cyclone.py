"""The Python package of Cyclone DDS, built against the Cyclone DDS of Debian, which has DDS Security."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "0.10.5"
HEADERS = Path("/usr/include")
PARTS = ("dds", "ddsc", "idl", "idlc")
PACKAGES = "cyclonedds-dev cyclonedds-tools"


def why_not() -> str:
    """Why it cannot be built here; empty when it can."""
    if not all((HEADERS / part).is_dir() for part in PARTS) or shutil.which("idlc") is None or not _libraries():
        return f"the Cyclone DDS of Debian is not installed: apt-get install {PACKAGES}"
    return ""


def build(folder: Path) -> Path:
    """Build it in ``folder``, unless that was done, and return where it can be imported from. Takes half a minute."""
    target = folder / f"cyclonedds-{VERSION}"
    if target.is_dir():
        return target
    home, unfinished = folder / "home", folder / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lib", "include", "bin"):
        (home / part).mkdir(parents=True)
    for library in _libraries():
        (home / "lib" / library.name).symlink_to(library)
    for part in PARTS:
        (home / "include" / part).symlink_to(HEADERS / part)
    (home / "bin" / "idlc").symlink_to(str(shutil.which("idlc")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-binary", "cyclonedds"]
    environment = {**os.environ, "CYCLONEDDS_HOME": str(home)}
    subprocess.run([*pip, "--target", str(unfinished), f"cyclonedds=={VERSION}"], env=environment, check=True)
    return unfinished.rename(target)


def _libraries() -> list[Path]:
    folder = Path("/usr/lib") / str(sysconfig.get_config_var("MULTIARCH"))
    return [each for name in ("libddsc.so*", "libcycloneddsidl.so*") for each in sorted(folder.glob(name))]
