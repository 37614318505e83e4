"""How much memory a model needs, estimated by its file."""

from __future__ import annotations

from pathlib import Path

from anywire_engine_models.model_files.gguf import GgufFile, read
from anywire_engine_models.model_files.shards import shards_of

FLOOR = 100_000_000
"""Bytes of a server without a model: the process itself and its libraries."""
CACHE_BYTES = 2
"""Of a value in the key-value cache (f16)."""
STATE_BYTES = 4
BATCH = 512
"""Tokens that a server computes at once (its physical batch)."""
MOST = 2**62
"""What an estimate is never more than, so that every JSON has room for it."""


def needed(path: Path, context: int, slots: int, prompt_cache: int = 0) -> int:
    """Bytes that a llama.cpp server needs for the model at ``path`` with ``slots`` slots of ``context`` tokens each; 0
    is the context of its training.

    They are the weights, the key-value cache, the buffers of one batch, ``prompt_cache`` bytes for prompts that no
    slot holds any more, and `FLOOR`. Models with windows or compressed caches need less than this. Raises `ConfigError`
    when the file cannot be read. Blocks.
    """
    weights = sum(read(each).size for each in shards_of(path))
    file = read(path)
    tokens = (context or file.context_length) * slots
    caches = cache_bytes(file, tokens, slots) + prompt_cache
    return min(weights + caches + _buffer_bytes(file, tokens) + FLOOR, MOST)


def cache_bytes(file: GgufFile, tokens: int, slots: int) -> int:
    """Bytes of the key-value cache for ``tokens`` tokens of all slots together, and of recurrent states."""
    values = sum(file.kv_heads) * (file.key_length + file.value_length)
    return tokens * values * CACHE_BYTES + slots * file.layers * file.state_size * STATE_BYTES


def _buffer_bytes(file: GgufFile, tokens: int) -> int:
    """Of the tensors of one batch, those that are largest: the scores of all tokens, hidden states, the mask."""
    return BATCH * 4 * (file.vocabulary + file.embedding_length + tokens)
