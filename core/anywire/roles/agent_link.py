"""One transport's way into an agent: what a hub says for another one, or out of type or bounds, is dropped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from anywire import errors
from anywire.errors import AnywireError
from anywire.identities.end_check import NOT_ADMITTED, EndCheck
from anywire.messages import Cancel, Command, CommandResult, Credit, HubInfo, TaskRequest
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.roles import hub_claims
from anywire.transport import Plane, Reply

log = logging.getLogger(__name__)


class LinkedAgent(Protocol):
    """What an agent does with what hubs send over the transport of that number."""

    def hub_joined(self, hub: HubInfo, link: int) -> None: ...
    def task_received(self, task: TaskRequest, reply: Reply, link: int) -> None: ...
    def command_received(self, command: Command, reply: Reply, link: int) -> None: ...
    def cancel_received(self, cancel: Cancel, link: int) -> None: ...
    def credit_received(self, credit: Credit, link: int) -> None: ...
    def hub_lost(self, hub_id: str, link: int, reason: str) -> None: ...
    def refuse(self, task: TaskRequest, reply: Reply, error: AnywireError) -> None: ...


class AgentLink:
    """An `anywire.transport.AgentSink`. What is dropped is counted in ``counts`` and logged once per hub. That a hub
    has joined is logged at ``level``, with ``transport``, the name of the link's transport. ``check`` says which hubs
    are let in; without it all that the transport lets in."""

    def __init__(
        self,
        agent: LinkedAgent,
        link: int,
        counts: Counter[str],
        once: OnceLog,
        level: int,
        transport: str,
        plane: Plane = "agent",
        check: EndCheck | None = None,
    ) -> None:
        self._agent, self._link, self._counts, self._once, self._level = agent, link, counts, once, level
        self._transport, self._plane, self._check = transport, plane, check
        self._hubs: dict[tuple[str, int], HubInfo] = {}
        """Those that have joined, where it is checked who is let in."""
        self._strangers: dict[tuple[str, int], str] = {}
        """Those of them that are not let in, and why."""

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        if not self._may(hub_id, task, TaskRequest, hub_claims.check_task_name):
            return
        fault = hub_claims.check_task(task)
        if fault:
            self._drop("claims_rejected", hub_id, f"a task of which {fault}")
            self._agent.refuse(task, reply, errors.InvalidRequest(f"the task is refused: {fault}"))
            return
        if self._strangers and (why := self._strangers.get((hub_id, incarnation))):
            self._counts["strangers_refused"] += 1
            self._agent.refuse(
                task, reply, errors.Refused(f"the orchestrator is not let in: {why}", detail_code=NOT_ADMITTED)
            )
            return
        self._agent.task_received(task, reply, self._link)

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None:
        if not self._may(hub_id, command, Command, hub_claims.check_command):
            return
        if self._strangers and (why := self._strangers.get((hub_id, incarnation))):
            self._counts["strangers_refused"] += 1
            error = errors.to_wire(errors.Forbidden(f"the orchestrator is not let in: {why}", detail_code=NOT_ADMITTED))
            with suppress(AnywireError):
                reply.send(CommandResult(hub_id, command.id, 0, final=True, error=error))
        else:
            self._agent.command_received(command, reply, self._link)

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        if self._may(hub_id, cancel, Cancel, hub_claims.check_cancel):
            self._agent.cancel_received(cancel, self._link)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        if self._may(hub_id, credit, Credit, hub_claims.check_credit):
            self._agent.credit_received(credit, self._link)

    def hub_joined(self, info: HubInfo) -> None:
        fault = hub_claims.check_hub(info) if type(info) is HubInfo else "something else than a hello"
        if fault:
            self._drop("claims_rejected", str(getattr(info, "hub_id", "?")), fault)
            return
        if self._check is not None:
            self._hubs[info.hub_id, info.incarnation] = info
            if self._is_stranger(info):
                return
        log.log(self._level, "hub %s joined over %s", info.hub_id, self._transport)
        self._agent.hub_joined(info, self._link)

    def admitted_changed(self) -> None:
        """Ask again which hubs are let in: tasks and commands of those that are no more end."""
        for (hub_id, incarnation), info in self._hubs.items():
            was_stranger = (hub_id, incarnation) in self._strangers
            is_stranger = self._is_stranger(info)
            if is_stranger and not was_stranger:
                self._agent.hub_lost(hub_id, self._link, self._strangers[hub_id, incarnation])
            elif was_stranger and not is_stranger:
                self._agent.hub_joined(info, self._link)

    def _is_stranger(self, info: HubInfo) -> bool:
        assert self._check is not None
        key = (info.hub_id, info.incarnation)
        self._strangers.pop(key, None)
        if reason := self._check.refusal(self._plane, info):
            self._strangers[key] = reason
        return bool(reason)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        self._hubs.pop((hub_id, incarnation), None)
        self._strangers.pop((hub_id, incarnation), None)
        self._agent.hub_lost(hub_id, self._link, reason)

    def _may(self, hub_id: str, message: Any, kind: type[Any], check: Callable[[Any], str]) -> bool:
        """Whether a message is of its type, in its bounds and the hub's own."""
        if type(message) is not kind:
            self._drop("claims_rejected", hub_id, f"a {type(message).__name__} in place of a {kind.__name__}")
            return False
        if message.hub_id != hub_id:
            self._drop("foreign_messages", hub_id, "a message of another hub")
            return False
        fault = check(message)
        if fault:
            self._drop("claims_rejected", hub_id, fault)
        return not fault

    def _drop(self, count: str, hub_id: str, what: str) -> None:
        self._counts[count] += 1
        name = printable(str(hub_id)[:80])
        self._once.warn(name, "hub %s sent %s; dropped", name, what)
