"""What several files of tests share: a sealed record, and figures that are computed once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.fabricated import SMALL, fabricate, finished

from anywire_experiment import report
from anywire_experiment.outcome import conclusion, verification
from anywire_experiment.record.manifest import DERIVED, MANIFEST, SIGNATURE, TIMESTAMP

_OF_OTHERS = {*DERIVED, MANIFEST, SIGNATURE, TIMESTAMP}
"""Files of a record of which nothing is computed."""


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `SMALL`, for tests that change nothing in it."""
    return finished(fabricate(tmp_path_factory.mktemp("made") / "record", SMALL), drawn=True)


@pytest.fixture
def record(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it, for the test alone."""
    return shutil.copytree(sealed, tmp_path / "record")


@pytest.fixture(scope="module")
def computed_once() -> Iterator[None]:
    """Figures and report of the same files are computed once in a module of tests that verify them again and again.
    That they are the same each time is what test_report.py and test_exports.py look at."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("texts", "results_text"):
            once = _once(getattr(report, name))
            for module in (report, conclusion, verification):
                if hasattr(module, name):
                    patch.setattr(module, name, once)
        yield


def _once(compute: Callable[[Path], Any]) -> Callable[[Path], Any]:
    kept: dict[str, Any] = {}

    def computed(folder: Path) -> Any:
        key = _content(folder)
        if key not in kept:
            kept[key] = compute(folder)
        return kept[key]

    return computed


def _content(folder: Path) -> str:
    """A hash of what figures are computed from: which files, links and folders there are, and their bytes."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in _OF_OTHERS:
            has = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing to read"
            whole.update(f"{name} {has} {path.is_symlink()}\n".encode(errors="surrogatepass"))
    return whole.hexdigest()
