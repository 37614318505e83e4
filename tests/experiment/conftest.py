"""A sealed record that several files of tests take."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.experiment.fabricated import SMALL, fabricate

from anywire_experiment import report
from anywire_experiment.record.manifest import seal


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `SMALL`, for tests that change nothing in it."""
    folder = fabricate(tmp_path_factory.mktemp("made") / "record", SMALL)
    report.write(folder)
    seal(folder)
    return folder


@pytest.fixture
def record(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it, for the test alone."""
    return shutil.copytree(sealed, tmp_path / "record")
