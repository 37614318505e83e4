"""The git checkout that a file lies in."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path


def checkout_of(file: Path) -> tuple[str, str]:
    """The commit of the checkout that has ``file``, and ``clean`` or a hash of what differs from it; both empty where
    git does not know the file, or is not there."""
    folder = file.resolve().parent
    if _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return "", ""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return _state(Path(top.strip())) if top else ("", "")


@cache
def _state(top: Path) -> tuple[str, str]:
    commit = _git(top, "rev-parse", "HEAD")
    if commit is None:
        return "", ""
    # What Python writes beside a module that it loads changes nothing.
    where = ("--", ":/", ":(top,exclude,glob)**/__pycache__/**")
    changed = (_git(top, "status", "--porcelain", *where) or "") + (_git(top, "diff", "HEAD", *where) or "")
    return commit.strip(), hashlib.sha256(changed.encode()).hexdigest()[:16] if changed else "clean"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
