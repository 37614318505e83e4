"""The laws that hold in every test: each end that a rig opens checks what its transport calls.

A breach does not raise where it happens, which may be a callback nobody waits for: it is recorded with a sentence, ends
what the test waits for, and fails the test (`anywire.testing.patience.Breaches`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from anywire.clock import SystemClock
from anywire.errors import AnywireError, TransportError
from anywire.lease import AwakeTime, Silence
from anywire.messages import (
    AgentInfo,
    AgentStatus,
    Cancel,
    Chunk,
    Command,
    CommandResult,
    Credit,
    FromAgent,
    HubInfo,
    Progress,
    TaskRequest,
)
from anywire.testing.ledger import Ledger, LinkKey
from anywire.testing.patience import FACTOR, Breaches
from anywire.transport import AgentSink, HubSink, Plane, Reply
from anywire.transport_tools import payload_bytes

FIRST_REPORT = 1.0 * FACTOR
"""Seconds until a joined agent's first status is late. It travels with the announcement."""


class Link:
    """One session of a link: from joined to lost."""

    def __init__(self, peer_id: str, incarnation: int, session: int) -> None:
        self.peer_id, self.incarnation, self.session = peer_id, incarnation, session
        self.sent: set[tuple[str, int]] = set()
        """Attempts that this hub sent in this session, and commands, with attempt 0."""
        self.failed: set[tuple[str, int]] = set()
        """Those of them for which `send_failed` said that they were not sent."""
        self.next_seq: dict[tuple[str, int], int] = {}
        self.granted = False
        """Whether ``drain`` has returned and nothing was sent since."""
        self.place = -1
        """Place in the ledger of the last status that arrived."""
        self.places: dict[int, int] = {}
        """Place in the ledger of the last task that arrived, by priority."""
        self.first_report: Silence | None = None


class EndLaws:
    """What the laws of hubs and agents have in common. ``limit`` is the transport's ``max_message_bytes``."""

    def __init__(self, breaches: Breaches, ledger: Ledger, who: str, plane: Plane, limit: int) -> None:
        self.breaches, self.ledger, self.who, self.plane, self.limit = breaches, ledger, who, plane, limit
        self.opened = self.closing = False
        self.live: dict[str, Link] = {}
        self._sessions: dict[tuple[str, int], int] = {}
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()

    def breach(self, sentence: str) -> None:
        self.breaches.add(f"{self.who}: {sentence}")

    def close(self) -> None:
        """The end's ``close`` was called."""
        self.closing = True
        for link in self.live.values():
            _stop(link.first_report)

    def may_call(self, callback: str) -> bool:
        """Check thread, loop and time of a callback; False when it must not be passed on."""
        if threading.get_ident() != self._thread:
            self.breach(f"{callback} was called from another thread than the event loop's")
            return False
        if asyncio.get_running_loop() is not self._loop:
            self.breach(f"{callback} was called on another event loop")
        if not self.opened:
            self.breach(f"{callback} was called before the end's open had returned to its caller")
        if self.closing:
            self.breach(f"{callback} was called after close was called")
            return False
        return True

    def join(self, peer_id: str, incarnation: int) -> Link:
        old = self.live.get(peer_id)
        if old is not None:
            if old.incarnation > incarnation:
                self.breach(f"{peer_id} joined with a lesser incarnation while a greater one was alive")
            elif old.incarnation == incarnation:
                self.breach(f"{peer_id} joined twice, and was not lost between")
            else:
                self.breach(f"a new incarnation of {peer_id} joined before the old one was reported lost")
            _stop(old.first_report)
        key = (peer_id, incarnation)
        self._sessions[key] = self._sessions.get(key, 0) + 1
        self.live[peer_id] = link = Link(peer_id, incarnation, self._sessions[key])
        return link

    def lose(self, peer_id: str, incarnation: int, reason: str, callback: str) -> None:
        if self.link(peer_id, incarnation, callback) is not None:
            _stop(self.live.pop(peer_id).first_report)
        if not isinstance(reason, str) or not reason.strip():
            self.breach(f"{callback} for {peer_id} came without a reason")

    def link(self, peer_id: str, incarnation: int, callback: str) -> Link | None:
        """The link a callback names, or None after a breach."""
        link = self.live.get(peer_id)
        if link is not None and link.incarnation == incarnation:
            return link
        if link is not None:
            self.breach(f"{callback} named incarnation {incarnation} of {peer_id}, joined is {link.incarnation}")
        elif any(known == peer_id for known, _ in self._sessions):
            self.breach(f"{callback} came by the link of {peer_id} after it was lost")
        else:
            self.breach(f"{callback} came by the link of {peer_id} before it joined")
        return None

    def check_size(self, message: TaskRequest | Command | FromAgent) -> None:
        kind = type(message).__name__
        try:
            size = payload_bytes(message)
        except TransportError:  # text that is no Unicode: nothing was encoded on the way
            return
        if size > self.limit:
            self.breach(f"a {kind} of {size} bytes was delivered, over the limit of {self.limit} (max_message_bytes)")


class HubLaws(EndLaws):
    """A `HubSink` that checks, then calls ``sink``."""

    def __init__(
        self, breaches: Breaches, ledger: Ledger, info: HubInfo, plane: Plane, sink: HubSink, limit: int
    ) -> None:
        super().__init__(breaches, ledger, f"hub {info.hub_id}", plane, limit)
        self.info, self.sink = info, sink
        self._awake = AwakeTime(SystemClock())
        ledger.hub_opened(plane, info.hub_id, info.incarnation)

    def key(self, link: Link) -> LinkKey:
        return LinkKey(self.plane, self.info.hub_id, self.info.incarnation, link.peer_id, link.incarnation)

    def agent_joined(self, info: AgentInfo) -> None:
        if self.may_call("agent_joined"):
            link = self.join(info.agent_id, info.incarnation)
            link.first_report = Silence(self._awake, FIRST_REPORT, lambda: self._no_report(info.agent_id))
            self.sink.agent_joined(info)

    def _no_report(self, agent_id: str) -> None:
        self.breach(f"the first report of {agent_id} did not follow agent_joined within {FIRST_REPORT:g} s")

    def agent_reported(self, agent_id: str, incarnation: int, status: AgentStatus) -> None:
        if not self.may_call("agent_reported"):
            return
        link = self.link(agent_id, incarnation, "agent_reported")
        if link is not None:
            _stop(link.first_report)
            verdict, link.place = self.ledger.judge_status(self.plane, status, link.place)
            if verdict == "overtaken":
                self.breach(f"an older status of {agent_id} came after a newer one")
            elif verdict == "repeated":
                self.breach(f"a status of {agent_id} came that it never reported")
        self.sink.agent_reported(agent_id, incarnation, status)

    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        if self.may_call("agent_lost"):
            self.lose(agent_id, incarnation, reason, "agent_lost")
            self.sink.agent_lost(agent_id, incarnation, reason)

    def chunk_received(self, agent_id: str, incarnation: int, chunk: Chunk) -> None:
        if not self.may_call("chunk_received"):
            return
        link = self.link(agent_id, incarnation, "chunk_received")
        if link is not None:
            self._check_chunk(link, chunk)
        self.check_size(chunk)
        self.sink.chunk_received(agent_id, incarnation, chunk)

    def _check_chunk(self, link: Link, chunk: Chunk) -> None:
        attempt = (chunk.task_id, chunk.attempt)
        what = f"attempt {chunk.attempt} of task {chunk.task_id}"
        if attempt not in link.sent:
            self.breach(f"a chunk of {what} came, which was not sent on this link")
        if attempt in link.failed:
            self.breach(f"a chunk of {what} came after send_failed had said that it was not sent")
        self._check_order(link, chunk, attempt, len(chunk.deltas), what)

    def _check_order(
        self, link: Link, message: Chunk | CommandResult, key: tuple[str, int], numbers: int, what: str
    ) -> None:
        kind = "chunk" if isinstance(message, Chunk) else "result"
        verdict = self.ledger.judge_answer(self.key(link), message)
        if verdict == "unknown":  # sent by another process: its numbers must do
            expected = link.next_seq.get(key, 0)
            link.next_seq[key] = message.seq + numbers
            if message.seq != expected:
                verdict = "overtaken" if message.seq > expected else "repeated"
        if verdict == "overtaken":
            self.breach(f"{kind}s of {what} came out of order, or one was lost while its link was not")
        elif verdict == "repeated":
            self.breach(f"a {kind} of {what} came twice, or was never sent")

    def result_received(self, agent_id: str, incarnation: int, result: CommandResult) -> None:
        if not self.may_call("result_received"):
            return
        link = self.link(agent_id, incarnation, "result_received")
        if link is not None:
            if (result.id, 0) not in link.sent:
                self.breach(f"a result of command {result.id} came, which was not sent on this link")
            self._check_order(link, result, (result.id, 0), 1, f"command {result.id}")
        self.check_size(result)
        self.sink.result_received(agent_id, incarnation, result)

    def progress_received(self, agent_id: str, incarnation: int, progress: Progress) -> None:
        if not self.may_call("progress_received"):
            return
        link = self.link(agent_id, incarnation, "progress_received")
        if link is not None:
            what = f"attempt {progress.attempt} of task {progress.task_id}"
            if (progress.task_id, progress.attempt) not in link.sent:
                self.breach(f"progress of {what} came, which was not sent on this link")
            if self.ledger.judge_progress(self.key(link), progress) == "repeated":
                self.breach(f"progress of {what} came twice, after a newer one, or was never sent")
        self.check_size(progress)
        self.sink.progress_received(agent_id, incarnation, progress)

    def send_failed(self, agent_id: str, incarnation: int, task_id: str, attempt: int, error: AnywireError) -> None:
        if not self.may_call("send_failed"):
            return
        link = self.link(agent_id, incarnation, "send_failed")
        if link is not None and (task_id, attempt) not in link.sent:
            self.breach(f"send_failed named attempt {attempt} of task {task_id}, which was not sent on this link")
        given: object = error
        if not isinstance(given, AnywireError):
            self.breach(f"send_failed gave an exception of a library: {error!r}")
        elif link is not None and error.phase == "not_sent":
            link.failed.add((task_id, attempt))
            self.ledger.task_not_sent(self.key(link), task_id, attempt)
        self.sink.send_failed(agent_id, incarnation, task_id, attempt, error)


class AgentLaws(EndLaws):
    """An `AgentSink` that checks, then calls ``sink``. ``wrap`` makes the `Reply` that the sink is given."""

    def __init__(
        self,
        breaches: Breaches,
        ledger: Ledger,
        info: AgentInfo,
        plane: Plane,
        sink: AgentSink,
        limit: int,
        wrap: Callable[[AgentLaws, Link, TaskRequest | Command, Reply], Reply],
    ) -> None:
        super().__init__(breaches, ledger, f"agent {info.agent_id}", plane, limit)
        self.info, self.sink, self._wrap = info, sink, wrap
        self._received: set[tuple[str, int, str, int]] = set()

    def key(self, link: Link) -> LinkKey:
        return LinkKey(self.plane, link.peer_id, link.incarnation, self.info.agent_id, self.info.incarnation)

    def hub_joined(self, info: HubInfo) -> None:
        if self.may_call("hub_joined"):
            self.join(info.hub_id, info.incarnation)
            self.sink.hub_joined(info)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        if self.may_call("hub_lost"):
            self.lose(hub_id, incarnation, reason, "hub_lost")
            self.sink.hub_lost(hub_id, incarnation, reason)

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        if not self.may_call("task_received"):
            return
        link = self.link(hub_id, incarnation, "task_received")
        self.check_size(task)
        if link is not None:
            self._check_task(link, task)
            reply = self._wrap(self, link, task, reply)
        self.sink.task_received(hub_id, incarnation, task, reply)

    def _check_task(self, link: Link, task: TaskRequest) -> None:
        key = (link.peer_id, link.incarnation, task.task_id, task.attempt)
        if key in self._received:
            self.breach(f"attempt {task.attempt} of task {task.task_id} was delivered twice")
            return
        self._received.add(key)
        priority, after = task.priority, link.places.get(task.priority, -1)
        verdict, link.places[priority], skipped = self.ledger.judge_task(
            self.key(link), task.task_id, task.attempt, priority, after
        )
        if verdict == "overtaken":
            self.breach(f"task {task.task_id} came before task {skipped}, which was sent earlier, or that one was lost")
        elif verdict == "repeated":
            self.breach(f"task {task.task_id} came after a task that was sent later, or was never sent on this link")

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        if self.may_call("cancel_received"):
            self.link(hub_id, incarnation, "cancel_received")
            self.sink.cancel_received(hub_id, incarnation, cancel)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        if self.may_call("credit_received"):
            self.link(hub_id, incarnation, "credit_received")
            self.sink.credit_received(hub_id, incarnation, credit)

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None:
        if not self.may_call("command_received"):
            return
        link = self.link(hub_id, incarnation, "command_received")
        self.check_size(command)
        if link is not None:
            if self.ledger.judge_command(self.key(link), command) == "repeated":
                self.breach(f"command {command.id} came more often than it was sent, or was never sent on this link")
            reply = self._wrap(self, link, command, reply)
        self.sink.command_received(hub_id, incarnation, command, reply)


def _stop(silence: Silence | None) -> None:
    if silence is not None:
        silence.cancel()
