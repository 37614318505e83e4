"""The git checkout that a file lies in."""

from __future__ import annotations

import hashlib
import os
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


def changes_of(file: Path) -> str:
    """How the Python files of the checkout that has ``file`` differ from its commit, as a patch; new ones are in it
    too. Empty without a checkout, and where they do not."""
    top = _git(file.resolve().parent, "rev-parse", "--show-toplevel")
    if top is None:
        return ""
    folder, python = Path(top.strip()), ("--", ":(top,glob)**/*.py")
    parts = [_git(folder, "diff", "HEAD", *python) or ""]
    for name in (_git(folder, "ls-files", "--others", "--exclude-standard", "-z", *python) or "").split("\0"):
        if name and (new := _git(folder, "diff", "--no-index", "--", os.devnull, name, status=1)):
            parts.append(new)
    return "".join(parts)


@cache
def _state(top: Path) -> tuple[str, str]:
    commit = _git(top, "rev-parse", "HEAD")
    if commit is None:
        return "", ""
    # What Python writes beside a module that it loads changes nothing.
    where = ("--", ":/", ":(top,exclude,glob)**/__pycache__/**")
    changed = (_git(top, "status", "--porcelain", *where) or "") + (_git(top, "diff", "HEAD", *where) or "")
    return commit.strip(), hashlib.sha256(changed.encode()).hexdigest()[:16] if changed else "clean"


def _git(folder: Path, *arguments: str, status: int = 0) -> str | None:
    """What git says, None where it ends with another status."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == status else None
