"""Finding a model file, and seeing before a start that it is one."""

from __future__ import annotations

import glob
import hashlib
import re
from pathlib import Path

from anywire.errors import ConfigError
from anywire_engine_models.registry.document import read_document
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.file import DEFAULT
from anywire_engine_models.registry.model_paths import expanded, model_file

_MAGIC = b"GGUF"
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_BLOCK = 64 * 1024
_BLOCKS = 128
"""Of each file so many blocks of that size, evenly spread, go into the digest, and its first and last bytes: a large
model is read in milliseconds, and two trainings of one model differ in all of them."""
_QUANTIZATION = re.compile(r"[.-](I?Q\d\w*|B?F16|FP16|F32)$", re.IGNORECASE)


def find(model: str) -> Path:
    """The file that ``model`` names: a path, or the name or identifier of a model in the registry that comes along.
    Raises `ConfigError` when it is missing or no GGUF file."""
    path = _registered(model) or expanded(Path(model))
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give the path of a .gguf file, or one of {_known()}"
        ) from error
    if head[:4] != _MAGIC:
        raise ConfigError(f"{path} is no GGUF file (it begins with {head!r}); was it downloaded whole?")
    return path


def public_name(path: Path) -> str:
    """A model's name made of its file's: without shard number and quantization."""
    return _QUANTIZATION.sub("", _SHARD.sub("", path.stem)) or path.stem


def digest(path: Path) -> str:
    """What names the weights: a hash of the size and of blocks of the file, and of every further shard. Raises
    `OSError`. It reads up to 8 MiB of each file; call it on a thread."""
    hashed = hashlib.blake2b(digest_size=16)
    for shard in files(path):
        size = shard.stat().st_size
        hashed.update(size.to_bytes(8, "big"))
        # A file of no more than all blocks is read whole.
        step = max((size - _BLOCK) // (_BLOCKS - 1), _BLOCK)
        with shard.open("rb") as file:
            for start in (*range(0, size, step), max(0, size - _BLOCK)):
                file.seek(start)
                hashed.update(file.read(_BLOCK))
    return f"blake2b-blocks:{hashed.hexdigest()}"


def files(path: Path) -> list[Path]:
    """The files that the digest of ``path`` is of. Blocks."""
    shards = sorted(path.parent.glob(f"{glob.escape(_SHARD.sub('', path.stem))}-*-of-*.gguf"))
    return shards if path in shards else [path]


def _registered(model: str) -> Path | None:
    for entry in _packaged():
        if model in (entry.name, entry.full_identifier):
            return model_file(entry)
    return None


def _known() -> str:
    return ", ".join(repr(entry.name) for entry in _packaged())


def _packaged() -> tuple[Entry, ...]:
    return read_document(DEFAULT.read_bytes(), DEFAULT.parent).entries
