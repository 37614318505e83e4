"""Whether an answer has the form its request asked for: members that engines take and do not follow."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import sys
from array import array

import msgspec
from msgspec import Raw

from anywire.errors import InvalidRequest
from anywire.messages import Chunk
from anywire_gateway_openai.answers import split
from anywire_gateway_openai.text_schema import EmbeddingRequest
from anywire_gateway_openai.validation import Checked

_IS_BASE64 = re.compile(r'"embedding"\s*:\s*"')
_entries = msgspec.json.Decoder(list[dict[str, Raw]])
_EMPTY = (b"null", b"{}", b"[]", b"false")


class _Shown(msgspec.Struct):
    logprobs: Raw = Raw(b"null")


_shown = msgspec.json.Decoder(list[_Shown])
_floats = msgspec.json.Decoder(list[float])
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


async def embeddings_as_asked(chunk: Chunk, fields: EmbeddingRequest) -> Chunk:
    """``chunk`` with its embeddings as base64 of float32, little endian, where that was asked for, else as lists.

    OpenAI's clients ask for base64 by themselves, and servers that do not know it answer with lists. Raises
    `InvalidRequest` when the dimensions are not those that were asked for."""
    wanted, dimensions = fields.encoding_format == "base64", fields.dimensions
    is_same = bool(_IS_BASE64.search(chunk.extra)) == wanted
    if is_same and not dimensions:
        return chunk
    try:
        entries = _entries.decode(chunk.extra)
        for entry in entries:
            vector = entry["embedding"]
            if dimensions:
                _check_dimensions(vector, dimensions)
                dimensions = 0  # all have the same
            if not is_same:
                entry["embedding"] = _as_base64(vector) if wanted else _as_list(vector)
                await asyncio.sleep(0)
    except (msgspec.MsgspecError, UnicodeError, KeyError, binascii.Error, ValueError):
        return chunk  # of another form altogether: one vector for each token, say
    return chunk if is_same else msgspec.structs.replace(chunk, extra=_encode(entries).decode())


def not_followed(fields: Checked, chunk: Chunk) -> tuple[str, ...]:
    """The members of a chat or completion request that a whole answer shows no sign of."""
    if isinstance(fields, EmbeddingRequest):
        return ()
    n, logprobs = fields.n, fields.logprobs
    if not ((n is not None and n > 1) or logprobs):
        return ()
    try:
        choices = _shown.decode(split(chunk.extra)[0]) if chunk.extra else [_Shown()]
    except msgspec.DecodeError:
        return ()
    missing = []
    if n is not None and len(choices) < n:
        missing.append("n")
    if logprobs and all(bytes(each.logprobs) in _EMPTY for each in choices):
        missing.append("logprobs")
    return tuple(missing)


def _check_dimensions(vector: Raw, wanted: float) -> None:
    text = bytes(vector)
    found = len(_bytes_of(vector)) // 4 if text[:1] == b'"' else len(_floats.decode(text))
    if found != wanted:
        raise InvalidRequest(
            f"dimensions: this model gives {found}, and cannot give {wanted:g}", param="dimensions", origin="engine"
        )


def _as_base64(vector: Raw) -> Raw:
    numbers = array("f", _floats.decode(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return Raw(_encode(base64.b64encode(numbers.tobytes()).decode()))


def _as_list(vector: Raw) -> Raw:
    numbers = array("f", _bytes_of(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return Raw(_encode(numbers.tolist()))


def _bytes_of(vector: Raw) -> bytes:
    return base64.b64decode(_text.decode(vector), validate=True)
