"""What the ends of one test have accepted, so that the laws can compare it with what arrives at the other end."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from anywire.messages import AgentStatus, Chunk, Command, CommandResult, FromAgent, Progress

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
        self._answers: dict[tuple[LinkKey, str, int], deque[Chunk | CommandResult]] = {}
        """By task and attempt; a command's id stands for the task, with attempt 0."""
        self._commands: dict[LinkKey, list[Command]] = {}
        self._progress: dict[tuple[LinkKey, str, int], list[Progress]] = {}
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

    def command(self, link: LinkKey, command: Command) -> None:
        self._commands.setdefault(link, []).append(command)

    def command_not_sent(self, link: LinkKey, command: Command) -> None:
        """``send`` raised."""
        self._commands[link].remove(command)

    def reply_opened(self, link: LinkKey, task_id: str, attempt: int) -> None:
        """Answers to this attempt or command come from this process."""
        self._answers.setdefault((link, task_id, attempt), deque())
        self._progress.setdefault((link, task_id, attempt), [])

    def answer(self, link: LinkKey, task_id: str, attempt: int, message: FromAgent) -> None:
        if isinstance(message, Progress):
            self._progress[link, task_id, attempt].append(message)
        else:
            self._answers[link, task_id, attempt].append(message)

    def answer_not_sent(self, link: LinkKey, task_id: str, attempt: int, message: FromAgent) -> None:
        """``send`` raised for ``message``, the last one."""
        if isinstance(message, Progress):
            self._progress[link, task_id, attempt].pop()
        else:
            self._answers[link, task_id, attempt].pop()

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

    def judge_command(self, link: LinkKey, command: Command) -> Verdict:
        """Whether this command was sent and has not arrived as often as that. Commands have no order."""
        if (link.plane, link.hub_id, link.hub_incarnation) not in self._hubs:
            return "unknown"
        waiting = self._commands.get(link, [])
        if command not in waiting:
            return "repeated"
        waiting.remove(command)
        return "expected"

    def judge_answer(self, link: LinkKey, message: Chunk | CommandResult) -> Verdict:
        task_id, attempt = (message.task_id, message.attempt) if isinstance(message, Chunk) else (message.id, 0)
        accepted = self._answers.get((link, task_id, attempt))
        if accepted is None:
            return "unknown"
        if accepted and accepted[0] == message:
            accepted.popleft()
            return "expected"
        return "overtaken" if message in accepted else "repeated"

    def judge_progress(self, link: LinkKey, progress: Progress) -> Verdict:
        """Whether this progress is the next one or a later one of its attempt."""
        accepted = self._progress.get((link, progress.task_id, progress.attempt))
        if accepted is None:
            return "unknown"
        if progress not in accepted:
            return "repeated"
        del accepted[: accepted.index(progress) + 1]
        return "expected"

    def judge_status(self, plane: str, status: AgentStatus, after: int) -> tuple[Verdict, int]:
        """Whether this status is one reported after place ``after``, or that one again; with its place."""
        reported = self._statuses.get((plane, status.agent_id, status.incarnation))
        if reported is None:
            return "unknown", after
        for place in range(max(after, 0), len(reported)):
            if reported[place] == status:
                return "expected", place
        return ("overtaken" if status in reported else "repeated"), after
