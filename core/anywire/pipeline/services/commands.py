"""Commands under way: what is sent to an agent beside the tasks, and its results as they come back."""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from anywire import errors
from anywire.access import KEY_GONE
from anywire.boundary import Boundary
from anywire.caller import Caller
from anywire.clock import Clock
from anywire.errors import AnywireError
from anywire.messages import MAX_COMMAND_BYTES, Cancel, Command, CommandResult, Credit
from anywire.pipeline.fleet import claims
from anywire.pipeline.fleet.ends import Ends
from anywire.pipeline.fleet.registry import Registry
from anywire.pipeline.observation.observation import Observation
from anywire.pipeline.queue.waiting_send import send_when_room
from anywire.pipeline.services.dropped import Dropped
from anywire.selector import AgentView
from anywire.transport import Hub

WINDOW = 64
"""Results that an agent may send before they are read."""
MAX_OPEN = 1024
"""Commands that may be under way at once."""

COMMAND_NAME = re.compile(r"(?=.{1,64}\Z)[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
"""Words of letters, digits and underscores, joined by dots (``models.list``)."""

_encode = msgspec.json.Encoder().encode


class _Open:
    """A command that was sent, and what came of it."""

    __slots__ = (
        "agent_id",
        "caller_id",
        "ended",
        "error",
        "incarnation",
        "is_over",
        "link",
        "next_seq",
        "outstanding",
        "results",
        "waiter",
    )

    def __init__(self, agent_id: str, incarnation: int, link: int, caller_id: str) -> None:
        self.agent_id, self.incarnation, self.link, self.caller_id = agent_id, incarnation, link, caller_id
        self.results: deque[str] = deque()
        self.next_seq, self.outstanding = 0, WINDOW
        self.ended = False
        self.is_over = False
        """Whether the agent has it no more."""
        self.error: AnywireError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def end(self, error: AnywireError | None) -> None:
        if not self.ended:
            self.ended, self.error = True, error
        self.wake()

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Commands:
    """Keeps the commands that have not ended. ``ids`` gives ids that cannot be guessed."""

    def __init__(
        self,
        hub_id: str,
        hubs: Ends[Hub],
        registry: Registry,
        clock: Clock,
        dropped: Dropped,
        boundary: Boundary,
        ids: Iterator[str],
        before: Callable[[Sequence[str], str, Caller], Awaitable[None]],
        observation: Observation,
    ) -> None:
        self._hub_id, self._hubs, self._registry = hub_id, hubs, registry
        self._clock, self._dropped, self._boundary, self._ids = clock, dropped, boundary, ids
        self._before, self._observation = before, observation
        self._open: dict[str, _Open] = {}
        self._closed = False

    async def run(
        self, target: Sequence[str], name: str, arguments: Mapping[str, Any] | None, deadline: float, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        """Send a command to the agent that ``target`` begins with; its results as they come. Errors as in
        `anywire.context.Context.command`. Who observes is told that it begins and how it has ended."""
        error = errors.TaskCancelled.code
        self._observation.command_begun(target, name, caller)
        try:
            await self._before(target, name, caller)
            async with aclosing(self._results(target, name, arguments, deadline, caller)) as results:
                async for result in results:
                    yield result
            error = ""
        except AnywireError as failed:
            error = failed.code
            raise
        finally:
            self._observation.command_ended(target, name, caller, error)

    def result_received(self, link: int, agent_id: str, incarnation: int, result: CommandResult) -> None:
        """Take in what came by a link; what belongs to no command on it is dropped."""
        opened = self._open.get(result.id)
        if opened is None:
            self._dropped.count("stale_results")
            return
        if (opened.agent_id, opened.link, opened.incarnation) != (agent_id, link, incarnation):
            self._dropped.foreign(agent_id, "a result of a command that was not sent to it")
            return
        if opened.ended:
            opened.is_over = opened.is_over or result.final is True
            return
        fault = claims.check_result(result)
        if fault:
            self._dropped.claim(agent_id, fault)
        else:
            fault = _disorder(opened, result)
        if fault:
            opened.end(errors.StreamCorrupted(f"agent {agent_id} sent {fault}", phase="streaming", agent_id=agent_id))
            return
        if result.data:
            opened.next_seq += 1
            opened.outstanding -= 1
            opened.results.append(result.data)
        if result.final:
            opened.is_over = True
            error = None
            if result.error:
                try:
                    error = errors.from_wire(result.error, phase="streaming", agent_id=agent_id)
                except errors.StreamCorrupted as unreadable:
                    error = unreadable
            opened.end(error)
        opened.wake()

    def send_failed(self, link: int, agent_id: str, incarnation: int, command_id: str, error: AnywireError) -> None:
        """End a command that a transport has accepted and could not send."""
        opened = self._open.get(command_id)
        if opened is None:
            self._dropped.count("stale_results")
        elif (opened.agent_id, opened.link, opened.incarnation) != (agent_id, link, incarnation):
            self._dropped.foreign(agent_id, "a failure of a command that was not sent to it")
        elif error.phase == "not_sent":
            opened.is_over = True
            opened.end(error)

    def link_lost(self, agent: AgentView, link: int, reason: str) -> None:
        """End every command on that link."""
        for opened in list(self._open.values()):
            if (opened.agent_id, opened.link, opened.incarnation) == (agent.agent_id, link, agent.info.incarnation):
                message = f"agent {agent.agent_id} was lost while it had a command, which may have been done: {reason}"
                opened.is_over = True
                opened.end(errors.AgentLost(message, phase="maybe_sent", agent_id=agent.agent_id))

    def end_caller(self, caller_id: str) -> None:
        """End every command of the caller of that id with `Unauthenticated`; its agent is told to stop."""
        for opened in list(self._open.values()):
            if opened.caller_id == caller_id:
                opened.end(errors.Unauthenticated(KEY_GONE))

    def close(self) -> None:
        self._closed = True
        for opened in list(self._open.values()):
            opened.end(errors.ShuttingDown("the orchestrator shuts down"))

    # Inside

    async def _results(
        self, target: Sequence[str], name: str, arguments: Mapping[str, Any] | None, deadline: float, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        text = _arguments_text(name, arguments)
        time_left_ms = _time_left_ms(deadline)
        agent, hub, link = self._find(target)
        opened = _Open(agent.agent_id, agent.info.incarnation, link, caller.id)
        command_id = next(self._ids)
        command = Command(
            self._hub_id,
            command_id,
            name,
            text,
            tuple(target[1:]),
            time_left_ms,
            WINDOW,
            caller.tenant,
            caller.role,
        )
        self._open[command_id] = opened
        late = errors.DeadlineExceeded(f"the command {name} was not done within {deadline:g} s")
        timer = self._clock.call_later(deadline, opened.end, late) if time_left_ms else None
        sent = False
        try:
            send = partial(hub.send, agent.agent_id)
            await send_when_room(send, partial(hub.drain, agent.agent_id), command, self._clock)
            sent = True
            unread = 0
            while True:
                while not opened.results:
                    if opened.ended:
                        if opened.error is not None:
                            raise opened.error
                        return
                    opened.waiter = asyncio.get_running_loop().create_future()
                    await opened.waiter
                yield msgspec.json.decode(opened.results.popleft())
                unread += 1
                if unread * 2 >= WINDOW and not opened.ended:
                    opened.outstanding += unread
                    self._say(hub, agent.agent_id, Credit(self._hub_id, command_id, 0, unread))
                    unread = 0
        finally:
            if timer is not None:
                timer.cancel()
            del self._open[command_id]
            if sent and not opened.is_over:
                self._say(hub, agent.agent_id, Cancel(self._hub_id, command_id, 0, "nobody waits for it any more"))

    def _find(self, target: Sequence[str]) -> tuple[AgentView, Hub, int]:
        # Below the first one an agent would drop what is none.
        if not claims.is_names(tuple(target[1:]), claims.MAX_DEPTH):
            raise errors.InvalidRequest(
                f"the target of a command are at most {claims.MAX_DEPTH + 1} ids of agents", param="target"
            )
        if self._closed:
            raise errors.ShuttingDown("the orchestrator shuts down")
        if len(self._open) >= MAX_OPEN:
            raise errors.QueueFull(f"{MAX_OPEN} commands are under way already")
        agent = self._registry.agent(target[0]) if target else None
        if agent is None:
            known = ", ".join(each.agent_id for each in self._registry.agents()[:20]) or "none"
            raise errors.AgentUnavailable(f"there is no agent {target[0] if target else ''!r}; known here: {known}")
        link = self._registry.link(agent)
        hub = self._hubs.ends[link]
        if hub is None:
            raise errors.AgentUnavailable(f"the transport {agent.transport} is not open")
        return agent, hub, link

    def _say(self, hub: Hub, agent_id: str, message: Cancel | Credit) -> None:
        try:
            hub.send(agent_id, message)
        except AnywireError:
            self._dropped.count("control_not_sent")
        except Exception as error:
            self._boundary.failed("transport", "send", error)


def _disorder(opened: _Open, result: CommandResult) -> str:
    """What is wrong with the order of a result; empty when nothing is."""
    if result.seq != opened.next_seq:
        return f"result {str(result.seq)[:20]} of a command, {opened.next_seq} was due"
    if opened.outstanding <= 0 and result.data:
        return f"more than the {WINDOW} results of a command that there was credit for"
    return ""


def _time_left_ms(deadline: float) -> int:
    """A deadline in seconds as it travels; 0 for 0 and without end."""
    if deadline == 0 or deadline == math.inf:
        return 0
    if not 0 < deadline * 1000 <= claims.MAX_TIME_MS:  # false for NaN too
        raise errors.InvalidRequest(
            f"the deadline of a command must be 0 or more seconds, not {deadline}", param="deadline"
        )
    return max(1, round(deadline * 1000))


def _arguments_text(name: str, arguments: Mapping[str, Any] | None) -> str:
    if not COMMAND_NAME.fullmatch(name):
        raise errors.InvalidRequest(f"{name[:64]!r} is no name of a command", param="name")
    try:
        text = _encode(dict(arguments)) if arguments else b""
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"the arguments of {name} are no JSON: {error}", param="arguments") from error
    if len(text) > MAX_COMMAND_BYTES:
        raise errors.InvalidRequest(
            f"the arguments of {name} have {len(text)} bytes, the limit is {MAX_COMMAND_BYTES}", param="arguments"
        )
    return text.decode()
