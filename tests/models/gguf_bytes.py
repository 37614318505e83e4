"""Small GGUF files, made by hand: right ones, and those that lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10
ALIGNMENT = 32


class Tensor(NamedTuple):
    name: str = "token_embd.weight"
    dimensions: tuple[int, ...] = (32, 4)
    kind: int = 0
    size: int = 512


LLAMA: Mapping[str, object] = {
    "general.architecture": "llama",
    "general.name": "Small",
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.block_count": 3,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "<unk>"],
    "tokenizer.chat_template": "x" * 5000,
    "some.flag": True,
}


def gguf_bytes(
    values: Mapping[str, object] = LLAMA,
    tensors: Sequence[Tensor] = (Tensor(),),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file; ``counts`` are the numbers of tensors and values that it claims."""
    claimed = (len(tensors), len(values)) if counts is None else counts
    data = b"GGUF" + struct.pack("<IQQ", version, *claimed)
    for key, value in values.items():
        data += text(key) + typed(value)
    offset = 0
    for tensor in tensors:
        data += text(tensor.name) + struct.pack("<I", len(tensor.dimensions))
        data += struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions) + struct.pack("<IQ", tensor.kind, offset)
        offset += -(-tensor.size // ALIGNMENT) * ALIGNMENT
    data += b"\0" * (-len(data) % ALIGNMENT)
    return data + b"".join(b"\1" * tensor.size + b"\0" * (-tensor.size % ALIGNMENT) for tensor in tensors)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def typed(value: object) -> bytes:
    """A value with its type before it."""
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value) if 0 <= value < 2**32 else struct.pack("<IQ", U64, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text(value)
    assert isinstance(value, list)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text, value))
    return struct.pack(f"<IIQ{len(value)}I", ARRAY, U32, len(value), *value)
