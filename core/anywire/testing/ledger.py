"""What the ends of one test have accepted, so that the laws can compare it with what arrives at the other end."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from anywire.messages import AgentStatus, Chunk

Verdict = Literal["expected", "unknown", "repeated", "overtaken"]
"""Whether a message is the next one that was accepted; ``unknown``: its sender is not in this process."""


class LinkKey(NamedTuple):
    """A link of one plane, by the identities of both ends."""

    plane: str
    hub_id: str
    hub_incarnation: int
    agent_id: str
    agent_incarnation: int


class Ledger:
    """Belongs to one test and to all the ends it opens in this process."""

    def __init__(self) -> None:
        self._hubs: set[tuple[str, str, int]] = set()
        self._tasks: dict[LinkKey, dict[int, list[tuple[int, str, int]]]] = {}
        """By priority: an order is kept among tasks of one priority."""
        self._chunks: dict[tuple[LinkKey, str, int], deque[Chunk]] = {}
        self._statuses: dict[tuple[str, str, int], list[AgentStatus]] = {}

    # What senders accept

    def hub_opened(self, plane: str, hub_id: str, incarnation: int) -> None:
        """Tasks of this hub come from this process."""
        self._hubs.add((plane, hub_id, incarnation))

    def task(self, link: LinkKey, session: int, task_id: str, attempt: int, priority: int) -> None:
        """``session`` counts how often the hub was told that this link joined."""
        self._tasks.setdefault(link, {}).setdefault(priority, []).append((session, task_id, attempt))

    def task_not_sent(self, link: LinkKey, task_id: str, attempt: int) -> None:
        """``send`` raised, or `send_failed` was called for it."""
        for priority, sent in self._tasks.get(link, {}).items():
            self._tasks[link][priority] = [each for each in sent if each[1:] != (task_id, attempt)]

    def reply_opened(self, link: LinkKey, task_id: str, attempt: int) -> None:
        """Chunks of this attempt come from this process."""
        self._chunks.setdefault((link, task_id, attempt), deque())

    def chunk(self, link: LinkKey, task_id: str, attempt: int, chunk: Chunk) -> None:
        self._chunks[link, task_id, attempt].append(chunk)

    def chunk_not_sent(self, link: LinkKey, task_id: str, attempt: int) -> None:
        """``send`` raised for the last chunk."""
        self._chunks[link, task_id, attempt].pop()

    def status(self, plane: str, status: AgentStatus) -> None:
        self._statuses.setdefault((plane, status.agent_id, status.incarnation), []).append(status)

    # What receivers are given

    def judge_task(
        self, link: LinkKey, task_id: str, attempt: int, priority: int, after: int
    ) -> tuple[Verdict, int, str]:
        """Whether this task is the next one of its priority after place ``after`` (-1: the first of this link's
        session); with its own place, and the task that it overtook or that was lost."""
        if (link.plane, link.hub_id, link.hub_incarnation) not in self._hubs:
            return "unknown", after, ""
        accepted = self._tasks.get(link, {}).get(priority, [])
        for place in range(after + 1, len(accepted)):
            if accepted[place][1:] == (task_id, attempt):
                skipped = [each[1] for each in accepted[after + 1 : place] if each[0] == accepted[place][0]]
                if skipped and after >= 0:
                    return "overtaken", place, skipped[0]
                return "expected", place, ""
        return "repeated", after, ""

    def judge_chunk(self, link: LinkKey, chunk: Chunk) -> Verdict:
        accepted = self._chunks.get((link, chunk.task_id, chunk.attempt))
        if accepted is None:
            return "unknown"
        if accepted and accepted[0] == chunk:
            accepted.popleft()
            return "expected"
        return "overtaken" if chunk in accepted else "repeated"

    def judge_status(self, plane: str, status: AgentStatus, after: int) -> tuple[Verdict, int]:
        """Whether this status is one reported after place ``after``, or that one again; with its place."""
        reported = self._statuses.get((plane, status.agent_id, status.incarnation))
        if reported is None:
            return "unknown", after
        for place in range(max(after, 0), len(reported)):
            if reported[place] == status:
                return "expected", place
        return ("overtaken" if status in reported else "repeated"), after
