"""Whether a model's files are whole, seen before a server is started with them."""

from __future__ import annotations

from pathlib import Path

from anywire.errors import ConfigError
from anywire_engine_models.model_files.gguf import read
from anywire_engine_models.model_files.shards import shards_of


def check_whole(path: Path) -> None:
    """Raise `ConfigError` with a sentence unless ``path`` and the further files of its model are GGUF files with all
    their tensors. It reads headers alone: bytes that are wrong are not found. Blocks."""
    for each in shards_of(path):
        file = read(each)
        if file.size < file.needed:
            raise ConfigError(
                f"the model file {each} is cut off: it has {file.size} of {file.needed} bytes; download it again"
            )
