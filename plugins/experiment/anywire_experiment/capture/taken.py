"""What was taken in: requests made of events, with times, sizes and who belongs together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from anywire.errors import TaskCancelled
from anywire.events import Event, TaskAdmitted, TaskEnded, TaskPrefix
from anywire.stages import Stages

REPLAYED = ("chat", "completion")
"""Kinds of tasks that the load generator can ask: the others are counted and left out."""
MOST_BLOCKS = 1_000_000
"""Different blocks that are told apart; of a prompt that has a further one the rest is its own."""
MAX_MODEL_CHARS = 256


class Request(NamedTuple):
    """One request. Times are seconds of the orchestrator's clock. ``blocks`` has a number for each block of the prompt,
    in the order in which blocks were first seen. ``input_tokens`` and ``output_tokens`` are the engine's count, or
    estimated where it gave none; ``output_tokens`` is 0 where the answer never ended."""

    at: float
    ended_at: float
    model: str
    stream: bool
    session: str
    tenant: str
    priority: int
    deadline_s: float
    blocks: tuple[int, ...]
    prompt_chars: int
    input_tokens: int
    output_tokens: int
    cancel_s: float = 0.0
    cancel_tokens: int = 0
    failed: bool = False
    first_s: float = 0.0
    per_token_s: float = 0.0
    """How the engine was: seconds to the first token and between tokens, 0 where that is not known."""


class Taken:
    """Events in, requests out. ``most`` bounds how many are taken in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: dict[str, tuple[TaskAdmitted, tuple[int, ...]]] = {}
        self._prefixes: dict[str, int] = {}
        self._requests: list[Request] = []
        self._tenants: dict[str, str] = {}
        self._sessions: dict[tuple[str, str], str] = {}
        self._transports: dict[str, int] = {}
        self._begun = 0
        self.is_closed = self.server_ended = False
        self.agents, self.slots = 1, 1
        self.missed = self.children = self.other_kinds = 0

    @property
    def is_full(self) -> bool:
        return self._begun >= self._most

    @property
    def requests(self) -> list[Request]:
        """Those that have ended, in order of their times."""
        return sorted(self._requests, key=lambda each: each.at)

    @property
    def transport(self) -> str:
        """The one over which most were answered."""
        return max(self._transports, key=lambda name: self._transports[name], default="")

    def close(self) -> None:
        """Take in no new request; those under way may still end."""
        self.is_closed = True

    def add(self, event: Event) -> None:
        match event:
            case TaskAdmitted():
                self._admitted(event)
            case TaskPrefix() if event.task_id in self._under_way:
                admitted, _ = self._under_way[event.task_id]
                self._under_way[event.task_id] = admitted, self._blocks(event.prefix)
            case TaskEnded() if event.task_id in self._under_way:
                self._requests.append(self._ended(event, *self._under_way.pop(event.task_id)))
            case _:
                pass

    @property
    def unfinished(self) -> int:
        """Requests that were taken in and have not ended."""
        return len(self._under_way)

    def told(self) -> Iterator[str]:
        """What a user has to know of it, a sentence each."""
        failed = sum(each.failed for each in self._requests)
        cancelled = sum(bool(each.cancel_s or each.cancel_tokens) for each in self._requests)
        yield f"{len(self._requests)} requests taken in, {cancelled} of them given up by their clients"
        if failed:
            yield (
                f"{failed} requests failed: how long their answers would have been is not known, so the plan's "
                "max_tokens stands for it"
            )
        if self.unfinished:
            yield f"{self.unfinished} requests had not ended and are left out: wait for them with --wait SECONDS"
        if self.server_ended:
            yield "the server ended before the time was over"
        if self.children:
            yield f"{self.children} tasks were made by other tasks and are left out: the service makes them again"
        if self.other_kinds:
            yield f"{self.other_kinds} requests are left out: only {' and '.join(REPLAYED)} can be asked again"
        if self.missed:
            yield f"{self.missed} events were missed, for this command was too slow: there were more requests"

    def _admitted(self, event: TaskAdmitted) -> None:
        if self.is_closed or self.is_full:
            return
        if event.parent:
            self.children += 1
        elif event.kind not in REPLAYED:
            self.other_kinds += 1
        else:
            self._begun += 1
            self._under_way[event.task_id] = event, ()

    def _ended(self, event: TaskEnded, admitted: TaskAdmitted, blocks: tuple[int, ...]) -> Request:
        if event.transport:
            self._transports[event.transport] = self._transports.get(event.transport, 0) + 1
        took = (event.at_ns - admitted.at_ns) / 1e9
        was_cancelled = event.error == TaskCancelled.code
        tokens = event.tokens or event.deltas
        first, per_token = _pace(event.stages, tokens) if not event.error else (0.0, 0.0)
        return Request(
            at=admitted.at_ns / 1e9,
            ended_at=event.at_ns / 1e9,
            model=_model(admitted.model),
            stream=admitted.stream,
            session=self._session(admitted),
            tenant=self._tenant(admitted.tenant),
            priority=admitted.priority,
            deadline_s=admitted.deadline_ms / 1000,
            blocks=blocks,
            prompt_chars=admitted.prompt_chars,
            input_tokens=event.prompt_tokens,
            output_tokens=0 if event.error else tokens,
            cancel_s=took if was_cancelled and not (admitted.stream and event.deltas) else 0.0,
            cancel_tokens=event.deltas if was_cancelled and admitted.stream else 0,
            failed=bool(event.error) and not was_cancelled,
            first_s=first,
            per_token_s=per_token,
        )

    def _blocks(self, words: tuple[str, ...]) -> tuple[int, ...]:
        found = []
        for word in words:
            if word not in self._prefixes:
                if len(self._prefixes) >= MOST_BLOCKS:
                    break
                self._prefixes[word] = len(self._prefixes)
            found.append(self._prefixes[word])
        return tuple(found)

    def _tenant(self, name: str) -> str:
        return self._tenants.setdefault(name, f"t{len(self._tenants) + 1}") if name else ""

    def _session(self, admitted: TaskAdmitted) -> str:
        if not admitted.session:
            return ""
        return self._sessions.setdefault((admitted.tenant, admitted.session), f"s{len(self._sessions) + 1}")


def _model(name: str) -> str:
    """Empty for one that no trace can name, which is then the first one of the plan."""
    return name if len(name) <= MAX_MODEL_CHARS and name.isprintable() and name == name.strip() else ""


def _pace(stages: Stages, tokens: int) -> tuple[float, float]:
    """Both ends of each span are of the agent's clock."""
    if not stages.engine_started or not stages.first_chunk:
        return 0.0, 0.0
    first = (stages.first_chunk - stages.engine_started) / 1e9
    streamed = (stages.last_chunk - stages.first_chunk) / 1e9
    return first, streamed / (tokens - 1) if tokens > 1 and streamed > 0 else 0.0
