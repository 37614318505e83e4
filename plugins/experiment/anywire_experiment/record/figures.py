"""What figures are compared by, when they are computed again elsewhere: what they come to, and by which libraries."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anywire_experiment

_LIBRARIES = ("numpy", "scipy", "pyarrow", "matplotlib", "jinja2", "markupsafe", "msgspec")
_NUDGE = 1 + 3e-9
"""Takes numbers like 2 ** -9, which lie between two of six digits, away from there."""
_WRITTEN = ("*.py", "*.j2", "*.css")
"""Files by which results and report are computed."""


def hash_of_figures(results: bytes) -> str:
    """Of the content of ``results.json``, its numbers to six digits: other machines add in another order, which shows
    in the fifteenth. Empty for what is no JSON."""
    try:
        tree = json.loads(results)
    except (ValueError, RecursionError):
        return ""
    return hashlib.sha256(json.dumps(_rounded(tree), sort_keys=True).encode()).hexdigest()


@cache
def libraries() -> dict[str, str]:
    """What computes results and report here: Python, libraries, and the version of this package with a hash of its
    files."""
    found = {name: _version(name) for name in _LIBRARIES}
    own = f"{_version('anywire-experiment')} {_hash_of_package()[:12]}"
    return {"anywire-experiment": own, "python": platform.python_version(), **found, "machine": platform.machine()}


def _rounded(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_rounded(value) for value in tree]
    return f"{tree * _NUDGE:.6g}" if isinstance(tree, float) else tree


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _hash_of_package() -> str:
    top = Path(anywire_experiment.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(path for pattern in _WRITTEN for path in top.rglob(pattern)):
        whole.update(f"{path.relative_to(top).as_posix()} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
