"""Reading the whole of an answer's body."""

from __future__ import annotations

import msgspec

from anywire.errors import EngineFailed
from anywire_engine_openai.http.answer import Answer
from anywire_engine_openai.http.faults import Fault

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


async def read_body(answer: Answer, most: int = MAX_ANSWER_BYTES, *, first: float = 0.0, later: float = 0.0) -> bytes:
    """The body; of one that says why a request was refused as much as ``most``. One that breaks off after it was whole,
    or that says why a request was refused, is none the worse for it.

    Raises `Fault`; `Silence` after ``first`` seconds without a byte of it, or ``later`` seconds without another one (0:
    no limit); `EngineFailed` for more than ``most`` bytes of an answer."""
    pieces: list[bytes] = []
    size, limit = 0, first
    try:
        while piece := await answer.read(limit):
            limit = later
            pieces.append(piece)
            size += len(piece)
            if size > most:
                if not answer.is_success:
                    break
                raise EngineFailed(f"the server answered with more than {most} bytes", phase="streaming")
    except Fault:
        if answer.is_success and not is_whole(b"".join(pieces)):
            raise
    return b"".join(pieces)


async def read_and_leave(answer: Answer) -> bytes:
    """The body, after which the connection may serve others; closed when that raises."""
    try:
        body = await read_body(answer)
    except BaseException:
        answer.close()
        raise
    answer.leave()
    return body


def is_whole(body: bytes) -> bool:
    """Whether a body that broke off is JSON to its end."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
