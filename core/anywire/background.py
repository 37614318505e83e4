"""Background tasks: what a service named ``background`` offers to gateways (`anywire.context.Services.get`).

A client gets the id of its task at once, goes away, and comes for the answer later. What was taken in is run, and kept,
over the end of the process.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from anywire.caller import Caller
from anywire.errors import AnywireError, InvalidRequest
from anywire.messages import Chunk
from anywire.submission import Submission

SERVICE = "background"


class BackgroundTask(msgspec.Struct, frozen=True):
    """One background task as it is now. Once it has ended there is a ``chunk``, the whole answer as
    `anywire.task_stream.TaskStream.result` gives it, or an ``error``. ``model`` is the one that answered, ``agent_id``
    and ``transport`` who did and over what, in attempt number ``attempts``; ``ignored`` is that of its
    `anywire.task_stream.TaskStream`. ``ended`` is the Unix time of the end in
    seconds, 0 before."""

    task_id: str
    submission: Submission
    chunk: Chunk | None = None
    error: AnywireError | None = None
    model: str = ""
    agent_id: str = ""
    transport: str = ""
    attempts: int = 0
    ignored: tuple[str, ...] = ()
    ended: float = 0.0


class BackgroundTasks(Protocol):
    """All calls are made on the event loop."""

    async def submit(self, submission: Submission, key: str = "", digest: bytes = b"") -> tuple[str, bool]:
        """Take a task in: its id, once it is kept, and whether it is new.

        With ``key`` a task that was taken in with the same key, has not failed, and is still kept, is that one;
        ``digest`` tells whether it asked for the same. A caller that is cancelled before it has the id takes its task
        back, unless it gave a ``key`` with which it may come again. Raises what `anywire.context.Context.submit`
        raises, `QueueFull` when there is no room for one that has not ended, `PayloadTooLarge` for one that is larger
        than all that may be kept, `InvalidRequest` for a stream, a task with a parent, and another ``digest``,
        `PluginFailed` when it cannot be written, and `ShuttingDown` while an earlier process still has the tasks."""
        ...

    async def get(self, task_id: str, caller: Caller, wait: float = 0.0) -> BackgroundTask | None:
        """One task, once it has ended, or as it is after ``wait`` seconds (at most 60) and at the orchestrator's end.
        None when it is not kept (any more), and when ``caller`` may not see it (`anywire.caller.Caller.may_end`).
        Raises `PluginFailed` when it cannot be read, and `ShuttingDown` as `submit`."""
        ...

    async def forget(self, task_id: str, caller: Caller) -> bool:
        """End a task that has not ended, and keep nothing of it; False when there is none that ``caller`` may end.
        Raises as `get`."""
        ...


def key_reused() -> InvalidRequest:
    """The error for a request with the key of an earlier one that asked for something else: of background tasks, and of
    those whose client waits."""
    return InvalidRequest(
        "an earlier request with this Idempotency-Key asked for something else: use a new key for each request",
        param="idempotency-key",
        status=422,
        detail_code="idempotency_key_reused",
    )
