"""The body of a task that a gateway has made of a request in another form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.errors import InvalidRequest, PayloadTooLarge
from anywire.large_body import LARGE_BYTES, LargeBody, read_large_body
from anywire_gateway_openai.body import BodyShare

_encode = msgspec.json.Encoder().encode


async def translated(body: Mapping[str, Any], most: int, share: BodyShare, why: str, hint: str = "") -> LargeBody:
    """The text of ``body``, of at most ``most`` bytes, and its outline where it is large. Its bytes are counted in
    ``share``. ``why`` and ``hint`` say in an error why the text is longer than the request, and what to do. Raises
    `InvalidRequest`, and `PayloadTooLarge` for what is too long."""
    try:
        written = _encode(body)
    except RecursionError as error:
        raise InvalidRequest("the request is nested too deeply") from error
    if len(written) > most:
        raise PayloadTooLarge(
            f"the request has {len(written)} bytes {why}, at most {most} are possible (max_body_bytes){hint}"
        )
    share.take(len(written))
    return await read_large_body(written, most) if len(written) > LARGE_BYTES else LargeBody(written.decode(), "")
