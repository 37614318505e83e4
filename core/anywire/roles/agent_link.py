"""One transport's way into an agent: what a hub says for another one, or out of type or bounds, is dropped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from anywire import errors
from anywire.errors import AnywireError
from anywire.messages import Cancel, Command, Credit, TaskRequest
from anywire.once_log import OnceLog
from anywire.printable import printable
from anywire.roles import hub_claims
from anywire.transport import Reply

log = logging.getLogger(__name__)


class LinkedAgent(Protocol):
    """What an agent does with what hubs send over the transport of that number."""

    def task_received(self, task: TaskRequest, reply: Reply, link: int) -> None: ...
    def command_received(self, command: Command, reply: Reply, link: int) -> None: ...
    def cancel_received(self, cancel: Cancel) -> None: ...
    def credit_received(self, credit: Credit) -> None: ...
    def hub_lost(self, hub_id: str, link: int, reason: str) -> None: ...
    def refuse(self, task: TaskRequest, reply: Reply, error: AnywireError) -> None: ...


class AgentLink:
    """An `anywire.transport.AgentSink`. What is dropped is counted in ``counts`` and logged once per hub. That a hub
    has joined is logged at ``level``, with ``transport``, the name of the link's transport."""

    def __init__(
        self, agent: LinkedAgent, link: int, counts: Counter[str], once: OnceLog, level: int, transport: str
    ) -> None:
        self._agent, self._link, self._counts, self._once, self._level = agent, link, counts, once, level
        self._transport = transport

    def task_received(self, hub_id: str, incarnation: int, task: TaskRequest, reply: Reply) -> None:
        if not self._may(hub_id, task, TaskRequest, hub_claims.check_task_name):
            return
        fault = hub_claims.check_task(task)
        if fault:
            self._drop("claims_rejected", hub_id, f"a task of which {fault}")
            self._agent.refuse(task, reply, errors.InvalidRequest(f"the task is refused: {fault}"))
            return
        self._agent.task_received(task, reply, self._link)

    def command_received(self, hub_id: str, incarnation: int, command: Command, reply: Reply) -> None:
        if self._may(hub_id, command, Command, hub_claims.check_command):
            self._agent.command_received(command, reply, self._link)

    def cancel_received(self, hub_id: str, incarnation: int, cancel: Cancel) -> None:
        if self._may(hub_id, cancel, Cancel, hub_claims.check_cancel):
            self._agent.cancel_received(cancel)

    def credit_received(self, hub_id: str, incarnation: int, credit: Credit) -> None:
        if self._may(hub_id, credit, Credit, hub_claims.check_credit):
            self._agent.credit_received(credit)

    def hub_joined(self, hub_id: str, incarnation: int) -> None:
        log.log(self._level, "hub %s joined over %s", hub_id, self._transport)

    def hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
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
