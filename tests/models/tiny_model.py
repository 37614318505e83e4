"""Fixtures: a tiny model that real llama.cpp loads in a blink."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

GGUF_WRITER = Path(__file__).parents[1] / "tiny_gguf.py"


@pytest.fixture(scope="session")
def written_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("tiny_gguf", GGUF_WRITER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    return written


@pytest.fixture
def tiny(written_tiny: Path, tmp_path: Path) -> Path:
    """The model, in a folder of the test's own."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(written_tiny.read_bytes())
    return path
