"""What a client wants done, as whoever speaks with it hands it to the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from anywire.caller import ANYBODY, Caller
from anywire.errors import InvalidRequest
from anywire.messages import Kind

Hints = Mapping[str, str | float]
NO_HINTS: Hints = MappingProxyType({})

MAX_HINTS = 16
MAX_HINT_CHARS = 128
"""Characters of a hint's name, and of its value."""
MAX_NAMES = 64
"""Agents that a task may prefer, and avoid."""
MAX_NAME_CHARS = 256


class Submission(msgspec.Struct, frozen=True, gc=False):
    """A client's task as a gateway hands it over. ``body`` is OpenAI JSON text, validated by the gateway as far
    as its protocol goes. It may be any text where the task came another way: whoever reads it must expect that.
    ``deadline_s`` 0 means the pipeline's default. ``hops`` counts the orchestrators it came through.

    ``session`` names a conversation, ``parent`` the task that made this one, ``prefer`` and ``avoid`` agents,
    ``policy`` a policy; ``hints`` (see `checked_hints`) are what a strategy may use (``urgency``, ``complexity``,
    ``task_type`` …). ``attempts_left`` bounds the attempts, 0 leaves that to ``pipeline.max_attempts``. With
    ``progress`` the stream tells what its agent does (`anywire.task_stream.TaskStream.progress`). With ``explain`` its
    decisions name more agents, and those that were no candidates (`anywire.decision`). What the body says
    itself is read from it (`anywire.demand`), or from its ``outline`` where the body is large
    (`anywire.large_body`).

    ``resume`` is text of this answer that its reader has already: the answer goes on where it ends, at an agent whose
    weights of ``model`` are ``digest``, and as no other model. It counts as one chunk.

    ``cache_control`` is what the client says of kept answers (`no-store` …), in the words of that HTTP header; it does
    not travel to other orchestrators.

    ``named_tenant`` is the tenant that the orchestrator above names for the task, or a client over a transport. Nobody
    vouches for it: with keys, ``caller`` is whoever has that one's key, for all of its tenants.
    """

    kind: Kind
    model: str
    body: str
    stream: bool = False
    priority: int = 0
    deadline_s: float = 0.0
    trace: str = ""
    hops: int = 0
    caller: Caller = ANYBODY
    session: str = ""
    parent: str = ""
    policy: str = ""
    hints: Hints = NO_HINTS
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    attempts_left: int = 0
    progress: bool = False
    outline: str = ""
    explain: bool = False
    resume: str = ""
    digest: str = ""
    cache_control: str = ""
    named_tenant: str = ""


def checked_hints(hints: Mapping[str, object], param: str = "hints") -> Hints:
    """The hints, if they are at most 16 short strings or finite numbers. Raises `InvalidRequest` naming ``param``."""
    if len(hints) > MAX_HINTS:
        raise InvalidRequest(f"{param} has {len(hints)} members, at most {MAX_HINTS} are possible", param=param)
    checked: dict[str, str | float] = {}
    for name, value in hints.items():
        if not 0 < len(name) <= MAX_HINT_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"{param}: {name[:40]!r} is no name of at most {MAX_HINT_CHARS} characters", param=param
            )
        if isinstance(value, str):
            fits = len(value) <= MAX_HINT_CHARS and (not value or value.isprintable())
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if not fits:
            raise InvalidRequest(
                f"{param}.{name} must be a finite number or a printable text of at most {MAX_HINT_CHARS} characters",
                param=param,
            )
        checked[name] = value  # type: ignore[assignment]
    return checked
