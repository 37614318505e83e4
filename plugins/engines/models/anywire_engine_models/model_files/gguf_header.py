"""Key-value pairs and tensors of a GGUF header."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from anywire_engine_models.model_files.ggml_types import tensor_bytes

Value = str | int | float | bool | tuple[int, ...]

MAX_HEADER = 64 * 1024 * 1024
"""Bytes of a header that are read; the largest vocabularies need some 20 MiB."""
MAX_PAIRS = 10_000
MAX_TENSORS = 100_000
MAX_KEY = 1024
"""Bytes of a key, or of a tensor's name."""
MAX_TEXT = 4096
"""Bytes of a text that is kept; a longer one is passed over."""
MAX_ARRAY = 4096
"""Numbers of an array that is kept: one for each layer."""
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20

_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_INTEGERS = frozenset((0, 1, 2, 3, 4, 5, 7, 10, 11))
_TOKENS = "tokenizer.ggml.tokens"
_KEPT = re.compile(
    r"general\.(architecture|type|name|alignment)|split\.(no|count)"
    r"|[\w.-]+\.(context_length|embedding_length|block_count|vocab_size"
    r"|attention\.(head_count|head_count_kv|key_length|value_length)|ssm\.(inner_size|state_size|conv_kernel))"
)
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


class Broken(Exception):
    """A header is cut off or wrong; says how."""


class Header(NamedTuple):
    """``values`` are the pairs that `GgufFile` is made of. ``needed`` are the bytes of a file with all its tensors."""

    values: Mapping[str, Value]
    vocabulary: int
    tensors: int
    needed: int


def read_header(file: BinaryIO, size: int) -> Header:
    """The header at the beginning of a file of ``size`` bytes, which begins with the magic number. Raises `Broken`, and
    `OSError`."""
    reader = _Reader(file, size)
    reader.take(4)
    version = reader.number(_U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0:
            raise Broken("it is for machines with the other order of bytes")
        raise Broken(f"version {version} of the format is not known: convert it anew")
    tensors = reader.count(_U64, MAX_TENSORS, "tensors")
    pairs = reader.count(_U64, MAX_PAIRS, "key-value pairs")
    values: dict[str, Value] = {}
    keys: set[str] = set()
    vocabulary = 0
    for _ in range(pairs):
        key = reader.name("a key")
        if key in keys:
            raise Broken(f"the key {key[:100]!r} is there twice")
        keys.add(key)
        kind = reader.number(_U32)
        if key == _TOKENS and kind == _ARRAY:
            vocabulary = reader.array_length(keep=False)[1]
            continue
        value = reader.value(kind, keep=_KEPT.fullmatch(key) is not None)
        if value is not None:
            values[key] = value
    end = _tensors_end(reader, tensors)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise Broken(f"its alignment is {alignment!r}")
    data = -(-reader.position // alignment) * alignment
    return Header(values, vocabulary, tensors, data + end if tensors else reader.position)


def _tensors_end(reader: _Reader, count: int) -> int:
    """Bytes from the beginning of the data to the end of the last tensor."""
    end = 0
    names: set[str] = set()
    for _ in range(count):
        name = reader.name("a tensor's name")
        if name in names:
            raise Broken(f"the tensor {name[:100]!r} is there twice")
        names.add(name)
        dimensions = reader.count(_U32, _MAX_DIMENSIONS, "dimensions of a tensor")
        elements = 1
        for _ in range(dimensions):
            elements *= reader.number(_U64)
        kind = reader.number(_U32)
        end = max(end, reader.number(_U64) + tensor_bytes(kind, elements))
    return end


class _Reader:
    """Reads on in a file and never behind its end, nor behind `MAX_HEADER`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.position = 0

    def take(self, count: int) -> bytes:
        self._need(count)
        data = self._file.read(count)
        if len(data) < count:
            raise Broken("it became shorter while it was read")
        self.position += count
        return data

    def skip(self, count: int) -> None:
        self._need(count)
        self._file.seek(count, 1)
        self.position += count

    def number(self, form: struct.Struct) -> int:
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def count(self, form: struct.Struct, most: int, what: str) -> int:
        count = self.number(form)
        if count > most:
            raise Broken(f"it claims {count} {what}, at most {most} are read")
        return count

    def name(self, what: str) -> str:
        length = self.number(_U64)
        if length > MAX_KEY:
            raise Broken(f"{what} has {length} bytes")
        return self.take(length).decode(errors="replace")

    def value(self, kind: int, *, keep: bool) -> Value | None:
        """The next value, passed over unless ``keep``."""
        if kind == _STRING:
            length = self.number(_U64)
            if keep and length <= MAX_TEXT:
                return self.take(length).decode(errors="replace")
            self.skip(length)
            return None
        if kind == _ARRAY:
            return self.array_length(keep=keep)[0]
        form = _NUMBERS.get(kind)
        if form is None:
            raise Broken(f"a value has the unknown type {kind}")
        found: Value = form.unpack(self.take(form.size))[0]
        return found if keep else None

    def array_length(self, *, keep: bool) -> tuple[tuple[int, ...] | None, int]:
        """The numbers of the next array, where they are kept, and how many elements it has."""
        kind, count = self.number(_U32), self.number(_U64)
        if kind == _STRING:
            self._skip_strings(count)
            return None, count
        form = _NUMBERS.get(kind)
        if form is None:
            raise Broken(f"the elements of an array have the type {kind}")
        if not keep or count > MAX_ARRAY or kind not in _INTEGERS:
            self.skip(count * form.size)
            return None, count
        data = self.take(count * form.size)
        return tuple(int(value) for (value,) in form.iter_unpack(data)), count

    def _skip_strings(self, count: int) -> None:
        read, seek, unpack = self._file.read, self._file.seek, _U64.unpack
        for _ in range(count):
            self._need(_U64.size)
            (length,) = unpack(read(_U64.size))
            self.position += _U64.size
            self._need(length)
            seek(length, 1)
            self.position += length

    def _need(self, count: int) -> None:
        end = self.position + count
        if end > self._size:
            raise Broken(f"it is cut off: it has {self._size} bytes, and its header goes on")
        if end > MAX_HEADER:
            raise Broken(f"its header is longer than {MAX_HEADER // 2**20} MiB")
