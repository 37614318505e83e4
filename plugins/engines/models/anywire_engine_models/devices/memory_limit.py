"""How much memory this process may use."""

from __future__ import annotations

from pathlib import Path

import psutil

ROOT = Path("/")
_V2, _V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
_CONTROLLER = "memory"


def usable_memory(root: Path = ROOT) -> int:
    """Bytes of this machine's memory, or fewer where a control group of this process (a container, a unit of systemd)
    has a limit. ``root`` is where Linux shows it."""
    limits = [limit for file in _limit_files(root) if (limit := _number(file))]
    return min([int(psutil.virtual_memory().total), *limits])


def _limit_files(root: Path) -> list[Path]:
    """Of the process's groups and of those above them, also of those that a namespace hides."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    files = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, name = root / _V2, "memory.max"
        elif _CONTROLLER in controllers.split(","):
            base, name = root / _V1, "memory.limit_in_bytes"
        else:
            continue
        folder = base / group.strip("/")
        if ".." in folder.parts:
            continue  # it is outside of what is shown here
        files += [each / name for each in (folder, *folder.parents) if each.is_relative_to(base)]
    return files


def _number(file: Path) -> int:
    """0 where there is none (``max``)."""
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
