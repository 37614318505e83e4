"""What the name of a model's file says: ``Qwen3-8B-Q4_K_M-00001-of-00003.gguf``."""

from __future__ import annotations

import re
from typing import NamedTuple

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_QUANTIZATION = re.compile(
    r"[.\-_]((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4\w*|B?F16|FP16|F32|FP32))$", re.IGNORECASE
)
_SUFFIX = re.compile(r"\.gguf$", re.IGNORECASE)


class NameParts(NamedTuple):
    """``name`` without folder, suffix, quantization and shard; ``quantization`` as it is written, empty where the name
    has none. ``shard`` of ``shards`` counts from 1; both are 1 for a model in one file."""

    name: str
    quantization: str = ""
    shard: int = 1
    shards: int = 1


def name_parts(file_name: str) -> NameParts:
    """The parts of a file's name."""
    stem = _SUFFIX.sub("", file_name)
    shard, shards = 1, 1
    if found := _SHARD.search(stem):
        stem = stem[: found.start()]
        shard, shards = int(found[1]), int(found[2])
    name, quantization = stem, ""
    if (found := _QUANTIZATION.search(stem)) and stem[: found.start()].strip():
        name, quantization = stem[: found.start()], found[1]
    return NameParts(name.strip() or file_name.strip() or "model", quantization, shard, shards)


def shard_name(file_name: str, shard: int) -> str:
    """The name of another shard of the same model."""
    stem = _SUFFIX.sub("", file_name)
    suffix = file_name[len(stem) :]
    return _SHARD.sub(lambda found: f"-{shard:05}-of-{found[2]}", stem) + suffix
