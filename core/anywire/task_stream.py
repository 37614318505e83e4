"""The reader's end of a task: what the pipeline hands to a gateway or client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec

from anywire.errors import AnywireError, another
from anywire.messages import Chunk, Progress
from anywire.stages import Stages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NO_NOTES: Mapping[str, str] = MappingProxyType({})
MAX_NOTES = 8
MAX_NOTE_CHARS = 256
_NOTE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_OF_GATEWAYS = frozenset(
    ("agent", "attempts", "decision", "ignored", "model", "origin", "replayed", "stages", "task", "transport")
)
"""What gateways say themselves of every task."""


def with_note(notes: Mapping[str, str], name: str, value: str) -> Mapping[str, str]:
    """``notes`` and one more; see `anywire.context.Context.note`."""
    if not _NOTE_NAME.fullmatch(name) or name in _OF_GATEWAYS:
        raise ValueError(
            f"{name[:40]!r} is no name of a note: small letters, digits and hyphens, and none that gateways use"
        )
    if len(value) > MAX_NOTE_CHARS or not value.isprintable():
        raise ValueError(f"the note {name} must be at most {MAX_NOTE_CHARS} printable characters")
    if len(notes) >= MAX_NOTES and name not in notes:
        raise ValueError(f"a task has at most {MAX_NOTES} notes")
    return {**notes, name: value}


class StreamFollower(Protocol):
    """Who gets a task's chunks beside its reader."""

    def put(self, chunk: Chunk) -> None: ...
    def fail(self, error: AnywireError) -> None: ...


class TaskStream:
    """The chunks of one task, in order, each once; the last has ``final`` set. One reader.

    Iterating it, `take` or `result` raise the `AnywireError` the task ended with, after what came before it. What is
    read is credited to the agent, so a reader that pauses pauses its engine. A reader that goes away must `cancel`.
    """

    __slots__ = (
        "_buffer",
        "_cancel",
        "_ended",
        "_error",
        "_is_news",
        "_on_progress",
        "_pass_on",
        "_read",
        "_waiter",
        "agent_id",
        "attempts",
        "followers",
        "ignored",
        "model",
        "notes",
        "progress",
        "spent",
        "stages",
        "task_id",
        "transport",
        "weights",
    )

    def __init__(self, task_id: str, received_ns: int, cancel: Callable[[str, str], object]) -> None:
        self.task_id = task_id
        self.agent_id = ""
        self.transport = ""
        self.model = ""
        """The one of the task's models that answers; empty before the first chunk."""
        self.weights: str | None = None
        """Digest of the weights that answer (empty: nobody knows it) while another agent with the same ones could go on
        from the text; None where none could."""
        self.attempts = 0
        """The number of the attempt that is shown; at the end, those below child orchestrators are added."""
        self.spent = 0
        """Attempts that counted, at the end: refused ones have done nothing."""
        self.ignored: tuple[str, ...] = ()
        """What of the submission has no effect here: ``priority`` when the scheduler in use has no use for one. Set
        before `submit` returns; a gateway names it in its response (``x-anywire-ignored``)."""
        self.notes: Mapping[str, str] = NO_NOTES
        """What services have said of it (`anywire.context.Context.note`); a gateway tells it with the answer."""
        self.stages = Stages(received=received_ns)
        self.progress: Progress | None = None
        """What the agent says that it does, where the submission asked for it; the newest."""
        self._is_news = False
        self.followers: tuple[StreamFollower, ...] = ()
        """Who gets the chunks too; see `anywire.pipeline.tasks.following`."""
        self._on_progress: Callable[[Progress], None] | None = None
        self._cancel = cancel
        self._buffer: list[Chunk] = []
        self._ended = False
        self._error: AnywireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._read: Callable[[TaskStream, int], None] | None = None
        self._pass_on: Callable[[list[Chunk]], bool] | None = None

    # The reader's side

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if not self._buffer and not await self._wait():
            raise StopAsyncIteration
        chunk = self._buffer.pop(0)
        if self._read is not None:
            self._read(self, 1)
        return chunk

    async def take(self) -> list[Chunk]:
        """Every chunk that waits now, at least one; an empty list after the final one."""
        if not self._buffer and not await self._wait():
            return []
        chunks, self._buffer = self._buffer, []
        if self._read is not None:
            self._read(self, len(chunks))
        return chunks

    async def take_passing(self, pass_on: Callable[[list[Chunk]], bool]) -> list[Chunk]:
        """As `take`. While it waits, each chunk that comes, but for the final one, is given to ``pass_on`` at once,
        which says whether it took it: what it did not take is returned. What it raises is raised here. It is called
        within the work of the transport that brought the chunk, and must be short."""
        self._pass_on = pass_on
        try:
            return await self.take()
        finally:
            self._pass_on = None

    async def result(self) -> Chunk:
        """The whole answer as one final chunk with at most one delta."""
        chunk = await self.__anext__()
        if chunk.final and len(chunk.deltas) < 2:
            return chunk
        texts = list(chunk.deltas)
        while not chunk.final:
            chunk = await self.__anext__()
            texts.extend(chunk.deltas)
        return msgspec.structs.replace(chunk, seq=0, deltas=("".join(texts),))

    def cancel(self, reason: str) -> None:
        """Stop the task, through to its engine; nothing happens when it has ended."""
        self._cancel(self.task_id, reason)

    def on_progress(self, callback: Callable[[Progress], None]) -> None:
        """Call ``callback(progress)`` whenever there is a newer one, while it is read."""
        self._on_progress = callback

    async def step(self) -> Chunk | Progress | None:
        """The next chunk, or before it what the agent does, once it does something else; None after the final chunk."""
        if not self._buffer and not await self._wait(or_progress=True):
            return None
        if not self._buffer:
            self._is_news = False
            return self.progress
        return await self.__anext__()

    async def _wait(self, or_progress: bool = False) -> bool:
        """Until something can be read; False at the end."""
        while not self._buffer and not (or_progress and self._is_news):
            if self._error is not None:
                error, self._error = self._error, another(self._error)
                try:
                    raise error
                finally:
                    del error  # it refers to this frame
            if self._ended:
                return False
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return True

    # The pipeline's side

    @property
    def waiting(self) -> int:
        """How many chunks have come and were not read yet."""
        return len(self._buffer)

    def on_read(self, callback: Callable[[TaskStream, int], None]) -> None:
        """Call ``callback(stream, chunks)`` whenever chunks were read."""
        self._read = callback

    def progressed(self, progress: Progress) -> None:
        self.progress, self._is_news = progress, True
        self._wake()
        if self._on_progress is not None:
            self._on_progress(progress)

    def push(self, chunk: Chunk) -> None:
        if self._pass_on is None or chunk.final or not self._passed_on(self._pass_on, chunk):
            self._buffer.append(chunk)
            if chunk.final:
                self._ended = True
            self._wake()
        for follower in self.followers:
            follower.put(chunk)

    def _passed_on(self, pass_on: Callable[[list[Chunk]], bool], chunk: Chunk) -> bool:
        """Whether the reader, which waits, took it at once."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        try:
            if not pass_on([chunk]):
                return False
        except Exception as error:
            waiter.set_exception(error)
            del waiter  # the error refers to this frame
            return False
        if self._read is not None:
            self._read(self, 1)
        return True

    def fail(self, error: AnywireError) -> None:
        self._error = error
        self._wake()
        for follower in self.followers:
            follower.fail(another(error))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
