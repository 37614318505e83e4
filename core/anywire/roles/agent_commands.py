"""Commands at an agent: its own ``drain``, and what its engine carries out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from anywire import errors
from anywire.boundary import Boundary
from anywire.caller import Caller
from anywire.clock import Clock, Timer
from anywire.engine import Engine
from anywire.errors import AnywireError, to_wire
from anywire.messages import MAX_COMMAND_BYTES, Cancel, Command, CommandResult, Credit
from anywire.pipeline.fleet.claims import MAX_COUNT
from anywire.pipeline.fleet.strangers import REFUSED
from anywire.pipeline.queue.waiting_send import send_when_room
from anywire.printable import printable
from anywire.roles.engine_stopper import Stopper
from anywire.roles.remembered import Remembered
from anywire.roles.replies import send_final
from anywire.transport import Plane, Reply

MAX_COMMANDS = 1024
"""Commands under way at once."""
MAX_OF_ONE_HUB = 256
MAX_REFUSALS = 100
"""Refusals that are remembered, so that each is logged once."""

CommandKey = tuple[int, str, str]
"""Link, hub and id."""

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


@runtime_checkable
class PassesCommandsOn(Protocol):
    """An engine that has agents behind it: it gets commands for them too, and who sent them."""

    def carry_out(
        self, name: str, arguments: Mapping[str, Any], target: Sequence[str], deadline: float, caller: Caller
    ) -> AsyncIterator[Any]:
        """In place of `Engine.command`; ``deadline`` is in seconds, 0 when there is none."""
        ...


class CommandRun:
    """A command under way. ``ending`` is the error that it ends with once it was asked to stop."""

    def __init__(self, command: Command, caller: Caller, reply: Reply, link: int) -> None:
        self.command, self.caller, self.reply, self.link = command, caller, reply, link
        self.runner: asyncio.Task[None] | None = None
        self.cancelled = ""
        self.ended = self.begun = False
        self.ending: AnywireError | None = None
        self.deadline: Timer | None = None
        self.seq = 0
        self.outstanding = command.credit
        self._more_credit: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        return self.command.id

    def cancel(self, reason: str) -> None:
        self.cancelled = self.cancelled or reason or "cancelled"
        # A runner that has not begun sees the flag; cancelled before its first step it would never run.
        if self.begun and self.runner is not None:
            self.runner.cancel()

    def credit(self, results: int) -> None:
        self.outstanding = min(self.outstanding + results, MAX_COUNT)
        if self._more_credit is not None and not self._more_credit.done():
            self._more_credit.set_result(None)

    async def wait_for_credit(self) -> None:
        while self.outstanding <= 0:
            self._more_credit = asyncio.get_running_loop().create_future()
            await self._more_credit

    def final(self, error: AnywireError | None = None) -> CommandResult:
        text = to_wire(error) if error is not None else ""
        return CommandResult(self.command.hub_id, self.command.id, self.seq, final=True, error=text)


class AgentCommands:
    """Runs each command once, and sends its results within the reader's credit.

    ``drain`` begins the agent's drain. A cancel or credit counts for what came by the same link.
    """

    def __init__(
        self,
        agent_id: str,
        engine: Engine,
        plane: Plane,
        clock: Clock,
        boundary: Boundary,
        drain: Callable[[], None],
    ) -> None:
        self._agent_id, self._engine, self._plane, self._clock = agent_id, engine, plane, clock
        self._boundary, self._drain = boundary, drain
        self._runs: dict[CommandKey, CommandRun] = {}
        self._known = Remembered()
        """Those that came; the same id is the same command."""
        self._cancelled = Remembered()
        """Cancels that came before their commands."""
        self._stopper = Stopper(engine.name, "command", clock, boundary)
        self._refusals: dict[tuple[str, str], None] = {}
        """Who has refused this agent and why, as it was logged."""

    @property
    def runners(self) -> list[asyncio.Task[None]]:
        return [run.runner for run in self._runs.values() if run.runner is not None]

    def received(self, command: Command, caller: Caller, reply: Reply, link: int) -> None:
        hub_id, key = command.hub_id, (link, command.hub_id, command.id)
        if self._known.has(hub_id, key) or self._stopper.closed:
            return
        self._known.add(hub_id, key)
        run = CommandRun(command, caller, reply, link)
        of_this_hub = sum(key[1] == hub_id for key in self._runs)
        if len(self._runs) >= MAX_COMMANDS or of_this_hub >= MAX_OF_ONE_HUB:
            full = errors.QueueFull(f"agent {self._agent_id}: too many commands are under way already")
            self.refuse(command, reply, full)
            return
        self._runs[key] = run
        if self._cancelled.has(hub_id, key):
            self._end(run, errors.TaskCancelled("cancelled before it arrived"))
        elif command.time_left_ms:
            late = errors.DeadlineExceeded(f"the command {command.name} was not done in time")
            run.deadline = self._clock.call_later(command.time_left_ms / 1000, self._end, run, late)
        run.runner = asyncio.get_running_loop().create_task(self._carry_out(key, run))

    def refuse(self, command: Command, reply: Reply, error: AnywireError) -> None:
        """Answer a command that is not begun: once, whether there is room or not, since what waited for it would have
        no bound."""
        final = CommandResult(command.hub_id, command.id, 0, final=True, error=to_wire(error))
        self._boundary.call("transport", "send", reply.send, final, otherwise=None)

    def cancel(self, cancel: Cancel, link: int) -> None:
        key = (link, cancel.hub_id, cancel.task_id)
        run = self._runs.get(key)
        if run is not None:
            self._end(run, errors.TaskCancelled(cancel.reason or "cancelled"))
        elif not self._known.has(cancel.hub_id, key):
            self._cancelled.add(cancel.hub_id, key)

    def credit(self, credit: Credit, link: int) -> None:
        run = self._runs.get((link, credit.hub_id, credit.task_id))
        if run is not None:
            run.credit(credit.chunks)

    def hub_lost(self, hub_id: str, link: int) -> None:
        for run in list(self._runs.values()):
            if run.command.hub_id == hub_id and run.link == link:
                self._end(run, errors.TaskCancelled("hub lost"))

    def end_caller(self, caller_id: str, error: AnywireError) -> None:
        """End those of the caller of that id."""
        for run in list(self._runs.values()):
            if run.caller.id == caller_id:
                self._end(run, error)

    def close(self) -> None:
        """End all; their `runners` are to be awaited."""
        self._stopper.closed = True
        for run in list(self._runs.values()):
            self._end(run, errors.ShuttingDown(f"agent {self._agent_id} shuts down"))

    # Inside

    def _end(self, run: CommandRun, error: AnywireError) -> None:
        if not run.ended:
            run.ending = run.ending or error
            self._stopper.stop(run, str(error))

    async def _carry_out(self, key: CommandKey, run: CommandRun) -> None:
        run.begun = True
        try:
            error = run.ending or await self._send_results(run)
        except asyncio.CancelledError:
            if not run.cancelled and run.runner is not None and run.runner.cancelling():
                raise
            # Nobody cancelled it: something that the engine awaits was, and that is its failure.
            error = run.ending or self._failed(run, "CancelledError: what it waited for was cancelled")
        finally:
            run.ended = True
            if run.deadline is not None:
                run.deadline.cancel()
        if run.runner is not None:
            while run.runner.uncancel():
                pass
        try:
            await send_final(run.reply, run.final(run.ending or error), self._clock, self._boundary)
        finally:
            del self._runs[key]

    async def _send_results(self, run: CommandRun) -> AnywireError | None:
        """What the engine yields, until it ends; the error with which it does."""
        results: Any = None
        try:
            results = self._results(run)
            iterator = aiter(results)
            while True:
                await run.wait_for_credit()
                try:
                    result = await anext(iterator)
                except StopAsyncIteration:
                    return None
                if run.cancelled:
                    return run.ending
                await self._send(run, result)
        except AnywireError as error:
            return error
        except Exception as error:
            return self._failed(run, error)
        finally:
            if hasattr(results, "aclose"):
                await results.aclose()

    def _results(self, run: CommandRun) -> AsyncIterator[Any]:
        """What carries the command out. Raises `AnywireError` when nothing does."""
        command, caller, engine = run.command, run.caller, self._engine
        if command.name == "drain" and self._plane == "agent" and not command.target:
            _check_operates(caller)
            self._drain()
            return _nothing()
        if command.name == REFUSED and self._plane == "agent" and not command.target:
            self._told_refused(command)
            return _nothing()
        arguments = _arguments(command)
        if isinstance(engine, PassesCommandsOn):
            return engine.carry_out(command.name, arguments, command.target, command.time_left_ms / 1000, caller)
        _check_operates(caller)
        if command.target:
            raise errors.InvalidRequest(
                f"agent {self._agent_id} is no orchestrator: it has no agent {command.target[0]!r}", param="target"
            )
        return engine.command(command.name, arguments)

    def _told_refused(self, command: Command) -> None:
        """An orchestrator does not let this agent in, and says what would do."""
        reason = printable(str(_arguments(command).get("reason", "")), 500)
        key = (command.hub_id, reason)
        if key not in self._refusals:
            log.error("orchestrator %s does not let agent %s in: %s", command.hub_id, self._agent_id, reason)
        self._refusals[key] = None
        if len(self._refusals) > MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]

    async def _send(self, run: CommandRun, result: Any) -> None:
        """Send one result. Raises `EngineFailed` for what is no JSON, or too long."""
        command = run.command
        try:
            data = _encode(result)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._failed(run, f"yielded what is no JSON: {error}") from error
        if len(data) > MAX_COMMAND_BYTES:
            raise self._failed(run, f"yielded a result of {len(data)} bytes, the limit is {MAX_COMMAND_BYTES}")
        message = CommandResult(command.hub_id, command.id, run.seq, data.decode())
        await send_when_room(run.reply.send, run.reply.drain, message, self._clock)
        run.seq += 1
        run.outstanding -= 1

    def _failed(self, run: CommandRun, fault: Exception | str) -> errors.EngineFailed:
        engine = f"engine {self._engine.name}"
        self._boundary.failed(engine, "command", fault, run.name)
        what = fault if isinstance(fault, str) else f"raised {type(fault).__name__}: {fault}"
        return errors.EngineFailed(f"the {engine} failed at the command {run.command.name}: it {what}")


async def _nothing() -> AsyncIterator[Any]:
    yield None


def _check_operates(caller: Caller) -> None:
    if caller.role != "operate":
        raise errors.Forbidden(f"this command is for the role operate, this caller has the role {caller.role}")


def _arguments(command: Command) -> dict[str, Any]:
    try:
        return msgspec.json.decode(command.arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(
            f"the arguments of {command.name} are no JSON object: {error}", param="arguments"
        ) from error
