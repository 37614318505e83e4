"""The header of a GGUF file, read without trusting it.

What a file claims costs nothing: no number in it makes this read further than the file is long or than `MAX_HEADER`,
or keep more than a few hundred values. The tensors themselves are not read.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire_engine_models.model_files.gguf_header import Broken, Header, Value, read_header

MAX_COUNT = 2**31
_REMEMBERED = 2048
"""Files: more than a registry has models."""
_LFS = b"version https://git-lfs"


class GgufFile(msgspec.Struct, frozen=True):
    """One GGUF file.

    ``size`` is its bytes, ``needed`` those that its header tells of: a smaller file is cut off. ``kind`` is ``model``,
    ``adapter`` …; ``name`` the model's own. Numbers are 0 where the file says nothing usable: ``context_length`` in
    tokens of its training, ``embedding_length``, ``vocabulary`` in tokens, ``layers``, ``key_length`` and
    ``value_length`` of a head, ``state_size`` values of recurrent state of a layer. ``kv_heads`` are the heads with
    keys and values of each layer. ``shard`` of ``shards`` counts from 1.
    """

    path: str
    size: int
    needed: int
    architecture: str = ""
    kind: str = "model"
    name: str = ""
    context_length: int = 0
    embedding_length: int = 0
    vocabulary: int = 0
    layers: int = 0
    kv_heads: tuple[int, ...] = ()
    key_length: int = 0
    value_length: int = 0
    state_size: int = 0
    tensors: int = 0
    shard: int = 1
    shards: int = 1


def read(path: Path) -> GgufFile:
    """What the header of the file says. Raises `ConfigError` with a sentence when it cannot be read or is no GGUF file,
    or its header is cut off or wrong. Blocks, some 0.1 s for a large vocabulary; what was read is remembered until the
    file changes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"the model file {path} is no file")
        return _read(str(path), (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    except OSError as error:
        raise ConfigError(f"the model file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is no path of a model file: {error}") from error


@functools.lru_cache(maxsize=_REMEMBERED)
def _read(path: str, mark: tuple[int, ...]) -> GgufFile:
    with Path(path).open("rb") as file:
        begin = file.read(len(_LFS))
        if begin[:4] != b"GGUF":
            raise ConfigError(f"the model file {path} is no GGUF file: {_instead(begin)}")
        file.seek(0)
        size = mark[-1]
        try:
            header = read_header(file, size)
        except Broken as error:
            raise ConfigError(f"the model file {path} is no whole GGUF file: {error}") from error
    return _described(path, size, header)


def _instead(begin: bytes) -> str:
    if not begin:
        return "it is empty"
    if begin == _LFS:
        return "it is a pointer of Git LFS; run `git lfs pull`"
    if begin.lstrip()[:1] == b"<":
        return "it is a web page; was its download refused?"
    return f"it begins with {begin[:8]!r}; was it downloaded whole?"


def _described(path: str, size: int, header: Header) -> GgufFile:
    values = header.values
    architecture = _text(values, "general.architecture")

    def number(name: str) -> int:
        return _number(values.get(f"{architecture}.{name}"))

    layers, embedding = number("block_count"), number("embedding_length")
    heads = _each_layer(values.get(f"{architecture}.attention.head_count"), layers)
    kv_heads = _each_layer(values.get(f"{architecture}.attention.head_count_kv"), layers) or heads
    most_heads = max(heads) if heads else 0
    head = embedding // most_heads if most_heads else 0
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    return GgufFile(
        path=path,
        size=size,
        needed=header.needed,
        architecture=architecture,
        kind=_text(values, "general.type") or "model",
        name=_text(values, "general.name"),
        context_length=number("context_length"),
        embedding_length=embedding,
        vocabulary=header.vocabulary or number("vocab_size"),
        layers=layers,
        kv_heads=kv_heads,
        key_length=number("attention.key_length") or head,
        value_length=number("attention.value_length") or head,
        state_size=inner * (state + max(number("ssm.conv_kernel") - 1, 0)),
        tensors=header.tensors,
        shard=_number(values.get("split.no")) + 1,
        shards=max(_number(values.get("split.count")), 1),
    )


def _text(values: Mapping[str, Value], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Value | None) -> int:
    return value if isinstance(value, int) and 0 <= value < MAX_COUNT else 0


def _each_layer(value: Value | None, layers: int) -> tuple[int, ...]:
    """One number for all layers, or one for each."""
    if isinstance(value, tuple):
        return tuple(_number(each) for each in value)
    return (_number(value),) * min(layers, 4096) if value is not None else ()
