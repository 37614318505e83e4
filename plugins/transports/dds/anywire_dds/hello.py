"""What keeps a link, as packed samples: the HELLO of each writer, and the WINDOW."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import msgspec
from cyclonedds.idl.types import sequence

from anywire.messages import MAX_PROOF_CHARS, AgentStatus
from anywire_dds import types
from anywire_dds.config import PRIORITIES_MAX
from anywire_dds.endpoints import CODECS
from anywire_dds.presence import MAX_STATUS_BYTES, in_bounds
from anywire_dds.types import FRAME_HELLO, FRAME_WINDOW

MAX_HELLO_BYTES = 8 * MAX_STATUS_BYTES
"""Of what a HELLO says: the texts of a report become six times as long at most when they are written as JSON."""

MAX_REFUSAL = 1024
"""Characters."""

_Level = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a HELLO says: who speaks, the number of its session, and the version of its messages. ``status`` is the
    agent's newest report; ``deadline_ms`` and ``priorities`` are what the hub asks the agent's writers for; ``proof``
    is its sender's (`anywire.messages`), and ``key``, where both ends have an identity, what the link's own is derived
    from. With a ``refusal``, which says why, its reader is not let in, and the two are not linked."""

    name: str
    incarnation: int
    session: int
    protocol: str = ""
    status: AgentStatus | None = None
    revision: int = 0
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    priorities: Annotated[tuple[_Level, ...], msgspec.Meta(max_length=PRIORITIES_MAX)] = ()
    proof: Annotated[str, msgspec.Meta(max_length=MAX_PROOF_CHARS)] = ""
    key: str = ""
    refusal: Annotated[str, msgspec.Meta(max_length=MAX_REFUSAL)] = ""


_text = msgspec.json.Encoder()
_hello = msgspec.json.Decoder(Hello)


def read_hello(text: str) -> Hello | None:
    """None when it is not one: then it is as if it had not come."""
    if len(text) > MAX_HELLO_BYTES:
        return None
    try:
        hello = _hello.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    status = hello.status
    if status is not None and not in_bounds(status):
        return None
    return hello


def _nothing(cls: type) -> dict[str, Any]:
    """A sample that says nothing, by member."""
    hints = get_type_hints(cls, include_extras=True)
    empty: dict[Any, Any] = {str: "", sequence[str]: ()}
    return {field.name: empty.get(hints[field.name], 0) for field in dataclasses.fields(cls)}


_REQUEST, _CONTROL, _RESPONSE = _nothing(types.TaskRequest), _nothing(types.Control), _nothing(types.TaskResponse)


Sign = Callable[[bytes], str]
"""Gives what stands in ``more`` of a HELLO that says this text, and carries the number that its reader has now."""


def request_hello(hello: Hello, link: int, sign: Sign | None = None) -> bytes:
    return CODECS["request"].pack(**_REQUEST | _says("body", hello, link, sign))


def control_hello(hello: Hello, link: int, sign: Sign | None = None) -> bytes:
    return CODECS["control"].pack(**_CONTROL | _says("reason", hello, link, sign))


def response_hello(hello: Hello, link: int, sign: Sign | None = None) -> bytes:
    return CODECS["response"].pack(**_RESPONSE | _says("extra", hello, link, sign))


def _says(member: str, hello: Hello, link: int, sign: Sign | None) -> dict[str, Any]:
    text = _text.encode(hello)
    more = sign(text) if sign is not None else ""
    return {"link": link, "frame": FRAME_HELLO, member: text.decode(), "more": more}


def request_window(link: int, sent: int) -> bytes:
    return CODECS["request"].pack(**_REQUEST | {"link": link, "frame": FRAME_WINDOW, "body": str(sent)})


def control_window(link: int, consumed: int) -> bytes:
    return CODECS["control"].pack(**_CONTROL | {"link": link, "frame": FRAME_WINDOW, "reason": str(consumed)})


def response_window(link: int, consumed: int, task_id: str = "", attempt: int = 0) -> bytes:
    says = {"link": link, "frame": FRAME_WINDOW, "extra": str(consumed), "task_id": task_id, "attempt": attempt}
    return CODECS["response"].pack(**_RESPONSE | says)


def window(text: str) -> int:
    return int(text) if len(text) <= 20 and text.isascii() and text.isdigit() else 0
