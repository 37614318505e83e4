"""Commands to an orchestrator: what reads it, and what is passed on to its agents.

| command | arguments | results | role |
|---|---|---|---|
| ``agents`` | | one for each agent | observe |
| ``models`` | | one for each model: ``model`` and ``agents``, how many offer it (0: a service) | use |
| ``stats`` | | one | observe |
| ``tasks`` | | one for each task | use |
| ``explain`` | ``task_id`` | one: a task that runs or has ended, and how its agents were chosen | use |
| ``events`` | ``types``, ``after`` | events until it is cancelled | use |
| ``follow`` | ``task_id`` | the chunks of a task from now on | use |
| ``cancel`` | ``task_id``, ``reason`` | one: ``cancelled``, true or false | use |
| ``order_agent`` | ``agent_id``, ``order``: drain, isolate or restore, ``reason`` | one: the agent's health | operate |
| ``echo`` | anything | one: ``arguments`` as they came, ``time`` (seconds since the epoch) and ``version`` here | use |

Their form is that of `anywire.views`. With the role ``use`` a caller sees, follows and cancels its own tasks alone.
Everything with a target needs the role ``operate``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import msgspec

from anywire.agent_health import ORDERS
from anywire.caller import Caller, Role
from anywire.errors import Forbidden, InvalidRequest, UnknownCommand
from anywire.event_bus import Missed
from anywire.events import Event, is_shown, read_types
from anywire.messages import MAX_COMMAND_BYTES, Chunk
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.remembered import Remembered
from anywire.views import agent_json, chunk_json, event_json, ordered_json, record_json, task_json

MAX_TEXT = 8 * 1024
"""Characters of a followed text in one result: all of them may take six bytes as JSON."""

ROLES_NEEDED: Mapping[str, Role] = {
    "agents": "observe",
    "models": "use",
    "stats": "observe",
    "tasks": "use",
    "explain": "use",
    "events": "use",
    "follow": "use",
    "cancel": "use",
    "order_agent": "operate",
    "echo": "use",
}
"""Each command, and the least role that may send it."""

_encode = msgspec.json.Encoder().encode


class FleetCommands:
    """``own`` are the tasks that clients have submitted here, by hub, where a client is known by its link alone; None
    where callers are known by their keys, or vouched for by a parent."""

    def __init__(self, orchestrator: Orchestrator, own: Remembered | None) -> None:
        self._orchestrator, self._own = orchestrator, own
        self._readers: dict[str, Callable[[Mapping[str, Any], Caller], AsyncIterator[Any]]] = {
            name: getattr(self, f"_{name}") for name in ROLES_NEEDED
        }

    def carry_out(
        self, name: str, arguments: Mapping[str, Any], target: Sequence[str], deadline: float, caller: Caller
    ) -> AsyncIterator[Any]:
        """See `anywire.roles.agent_commands.PassesCommandsOn`."""
        if target:
            return self._orchestrator.command(target, name, arguments, deadline=deadline, caller=caller)
        reader = self._readers.get(name)
        if reader is None:
            known = ", ".join(self._readers)
            raise UnknownCommand(f"an orchestrator has no command {name!r} of its own; it has {known}")
        if not caller.has_role(ROLES_NEEDED[name]):
            raise Forbidden(
                f"the command {name} is for the role {ROLES_NEEDED[name]}, this caller has the role {caller.role}"
            )
        return reader(arguments, caller)

    # What reads

    async def _agents(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        for view in self._orchestrator.agents():
            told = agent_json(view, self._orchestrator.agent_health(view.agent_id))
            yield _bounded(told, "offers", "models", "resources", "capabilities", "detail")

    async def _models(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        for model, offered in self._orchestrator.offers(caller).items():
            yield {"model": model, "agents": sum(offer.takes_tasks for _, offer in offered)}
        for _, offer in self._orchestrator.services.offers():
            if offer.takes_tasks and caller.limits.allows_model(offer.model):
                yield {"model": offer.model, "agents": 0}

    async def _stats(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        yield _bounded(self._orchestrator.stats(), "ends_waiting", "plugin_failures")

    async def _tasks(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        for view in self._orchestrator.tasks():
            if self._sees(caller, view.caller, view.task_id):
                yield task_json(view)

    async def _explain(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        task_id = _text(arguments, "task_id")
        record = self._orchestrator.explain(task_id)
        if record is None or not self._sees(caller, record.view.caller, task_id):
            raise InvalidRequest(f"no task {task_id[:80]!r} is kept", param="task_id")
        told = record_json(record)
        while len(_encode(told)) > MAX_COMMAND_BYTES and told["decisions"]:
            del told["decisions"][0]
        yield _bounded(told, "message")

    async def _events(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        kinds, after = _kinds(arguments.get("types", "")), _text(arguments, "after", "")

        def wants(event: Event) -> bool:
            if self._own is None:
                return is_shown(event, caller)
            owner = Caller(event.caller, event.tenant)
            return self._sees(caller, owner, getattr(event, "task_id", ""))

        async with self._orchestrator.events.reader(*kinds, after=after, wants=wants) as events:
            async for event in events:
                told = event_json(event)
                yield told if len(_encode(told)) <= MAX_COMMAND_BYTES else event_json(Missed(1))

    async def _follow(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        task_id = _text(arguments, "task_id")
        who = self._who_ends(caller, task_id)
        if who is None:
            raise InvalidRequest(f"no task {task_id[:80]!r} is under way", param="task_id")
        async with aclosing(self._orchestrator.follow(task_id, who)) as chunks:
            async for chunk in chunks:
                for told in _chunk_parts(chunk):
                    yield told

    async def _cancel(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        task_id, reason = _text(arguments, "task_id"), _text(arguments, "reason", "cancelled by a command")
        who = self._who_ends(caller, task_id)
        yield {"cancelled": who is not None and self._orchestrator.cancel(task_id, reason, who)}

    async def _order_agent(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        agent_id, order = _text(arguments, "agent_id"), ORDERS.get(_text(arguments, "order"))
        if order is None:
            raise InvalidRequest(f"the argument order must be one of {', '.join(ORDERS)}", param="order")
        reason = _text(arguments, "reason", "")
        yield ordered_json(agent_id, self._orchestrator.order_agent(agent_id, order, reason, caller))

    async def _echo(self, arguments: Mapping[str, Any], caller: Caller) -> AsyncIterator[Any]:
        told = {"arguments": arguments, "time": time.time(), "version": version("anywire")}
        yield _bounded(told, "arguments")

    # Inside

    def _sees(self, caller: Caller, owner: Caller, task_id: str) -> bool:
        if self._own is not None and caller.role == "use":
            return self._own.has(caller.id, task_id)
        return caller.sees(owner)

    def _who_ends(self, caller: Caller, task_id: str) -> Caller | None:
        """As whom ``caller`` follows or cancels a task, None when it may not. A client names its tenant itself, so that
        does not count."""
        if self._own is None or caller.role != "use":
            return caller
        return msgspec.structs.replace(caller, role="operate") if self._own.has(caller.id, task_id) else None


def _kinds(types: object) -> Sequence[type[Event]]:
    """The events of these types, a list or a text with commas (`anywire.events.read_types`); all when it is empty."""
    if isinstance(types, list) and all(isinstance(name, str) for name in types):
        types = ",".join(types)
    if not isinstance(types, str):
        raise InvalidRequest("types must be a list of types of events", param="types")
    return read_types(types)


def _text(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = arguments.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidRequest(f"the argument {name} must be a text", param=name)
    return value


def _bounded(told: dict[str, Any], *less_needed: str) -> dict[str, Any]:
    """What fits into one result: members are left out, in this order, until it does."""
    for member in less_needed:
        if len(_encode(told)) <= MAX_COMMAND_BYTES:
            break
        told.pop(member, None)
    return told


def _chunk_parts(chunk: Chunk) -> Iterator[dict[str, Any]]:
    """A chunk as results; a long text is told in several, of which only the last one says more than text."""
    told = chunk_json(chunk)
    text, seq, pieces = told["text"], told["seq"], told["pieces"]
    while len(text) > MAX_TEXT:
        yield {"seq": seq, "pieces": pieces, "text": text[:MAX_TEXT], "final": False}
        text, seq, pieces = text[MAX_TEXT:], seq + pieces, 0
    yield _bounded(told | {"seq": seq, "pieces": pieces, "text": text}, "extra", "usage")
