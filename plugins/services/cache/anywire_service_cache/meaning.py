"""Questions that mean the same: their embeddings, and how like two of them are."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from array import array
from collections.abc import Sequence

import msgspec
import numpy as np

from anywire.caller import NO_LIMITS, Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.submission import Submission

MAX_NUMBERS = 16_384
"""Numbers of one embedding."""

_encode = msgspec.json.Encoder().encode


class _Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


_decode = msgspec.json.Decoder(list[_Embedding]).decode


async def embeddings(
    context: Context,
    model: str,
    texts: Sequence[str],
    *,
    caller: Caller,
    timeout: float,
    parent: str = "",
) -> list[array[float]] | None:
    """The embeddings of ``texts`` by an agent with ``model``, each of length 1; None where they cannot be had within
    ``timeout`` seconds. With ``parent`` they are made for that task, whose caller pays for them."""
    body = _encode({"model": model, "input": list(texts), "encoding_format": "float"}).decode()
    # What the caller may ask for itself is another matter.
    unlimited = msgspec.structs.replace(caller, limits=NO_LIMITS)
    try:
        stream = context.submit(
            Submission("embedding", model, body, caller=unlimited, parent=parent, deadline_s=timeout)
        )
    except AnywireError:
        return None
    try:
        async with asyncio.timeout(timeout):
            found = _read((await stream.result()).extra)
    except (AnywireError, TimeoutError):
        return None
    finally:
        stream.cancel("nobody waits for the embedding any more")
    return found if found is not None and len(found) == len(texts) else None


def ranked(question: array[float], others: Sequence[array[float]], most: int) -> list[tuple[int, float]]:
    """The numbers of those of ``others`` whose cosine with ``question`` is the greatest, and that: at most ``most``,
    the greatest first. Vectors of another length are passed over."""
    same = [at for at, each in enumerate(others) if len(each) == len(question)]
    if not same:
        return []
    matrix = np.stack([np.frombuffer(others[at], dtype=np.float32) for at in same])
    cosines = matrix @ np.frombuffer(question, dtype=np.float32)
    best = np.argsort(-cosines, kind="stable")[:most]
    return [(same[at], min(1.0, float(cosines[at]))) for at in best]


def _read(extra: str) -> list[array[float]] | None:
    try:
        entries = sorted(_decode(extra), key=lambda each: each.index)
        found = [_normal(each.embedding) for each in entries]
    except (msgspec.MsgspecError, UnicodeError, ValueError, binascii.Error):
        return None
    return [each for each in found if each is not None] if None not in found else None


def _normal(embedding: list[float] | str) -> array[float] | None:
    """None for one without direction."""
    if isinstance(embedding, str):
        numbers = np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float64)
    else:
        numbers = np.asarray(embedding, dtype=np.float64)
    if not 0 < numbers.size <= MAX_NUMBERS:
        return None
    length = float(np.sqrt(numbers @ numbers))
    if not math.isfinite(length) or length == 0:
        return None
    return array("f", (numbers / length).astype(np.float32).tobytes())
