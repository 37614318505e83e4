"""The methods of the OrchestratorService about councils and their members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from anywire.errors import InvalidRequest
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.asking import Asking
from anywire_gateway_grpc.calls import Call, Method
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import MAX_MEMBERS

DEFAULT_AGENTS, DEFAULT_ROUNDS = 3, 1


class CouncilCalls:
    """A council is named by its role. Its changes are made one after the other."""

    def __init__(self, asking: Asking) -> None:
        self._asking, self._deliberations = asking, asking.deliberations
        self._last: asyncio.Task[Any] | None = None

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "CreateCouncil": Method(wire.CreateCouncilRequest, self._in_turn(self.create)),
            "ListCouncils": Method(wire.ListCouncilsRequest, self.list),
            "DeleteCouncil": Method(wire.DeleteCouncilRequest, self._in_turn(self.delete)),
            "RegisterAgent": Method(wire.RegisterAgentRequest, self._in_turn(self.register)),
            "UnregisterAgent": Method(wire.UnregisterAgentRequest, self._in_turn(self.unregister)),
        }

    async def create(self, asked: wire.CreateCouncilRequest, call: Call) -> wire.CreateCouncilResponse:
        role = _role(asked.role)
        if await self._asking.council(role, call) is not None:
            raise InvalidRequest(
                f"there is a council {role} already: DeleteCouncil removes it", status=409, detail_code="id_reused"
            )
        count = asked.num_agents or DEFAULT_AGENTS
        if not 1 <= count <= MAX_MEMBERS:
            raise InvalidRequest(f"num_agents: there are 1 to {MAX_MEMBERS}, not {count}")
        config = asked.config
        model = {"model": config.model_profile} if config.model_profile else {}
        members = tuple({"name": f"agent-{role.lower()}-{number:03}"} | model for number in range(1, count + 1))
        rounds = config.deliberation_rounds or DEFAULT_ROUNDS
        council = Council(role, role, members, rounds, metadata=dict(config.custom_params))
        kept = await self._deliberations.put_council(council, call.caller)
        names = _names(kept)
        return wire.CreateCouncilResponse(council_id=kept.name, agents_created=len(names), agent_ids=names)

    async def list(self, asked: wire.ListCouncilsRequest, call: Call) -> wire.ListCouncilsResponse:
        councils = await self._deliberations.councils(call.caller)
        wanted = asked.role_filter.casefold()
        return wire.ListCouncilsResponse(
            councils=[
                _told(each, agents=asked.include_agents)
                for each in councils
                if not wanted or wanted in (each.role.casefold(), each.name.casefold())
            ]
        )

    async def delete(self, asked: wire.DeleteCouncilRequest, call: Call) -> wire.DeleteCouncilResponse:
        council = await self._asking.council(_role(asked.role), call)
        if council is None:
            return wire.DeleteCouncilResponse(message=_none(asked.role))
        try:
            await self._deliberations.delete_council(council.name, call.caller)
        except InvalidRequest as error:
            return wire.DeleteCouncilResponse(message=error.message)
        return wire.DeleteCouncilResponse(
            success=True, message=f"the council {council.name} is deleted", agents_removed=len(council.members)
        )

    async def register(self, asked: wire.RegisterAgentRequest, call: Call) -> wire.RegisterAgentResponse:
        if asked.endpoint:
            return wire.RegisterAgentResponse(
                message="endpoint must be empty: agents join over a transport (anywire agent), and members of councils "
                "are answered for by whichever agent has their model"
            )
        name, role = _agent(asked.agent_id), _role(asked.role)
        council = await self._asking.council(role, call) or Council(role, role, (), DEFAULT_ROUNDS)
        if name in _names(council):
            return wire.RegisterAgentResponse(
                message=f"the council {council.name} has a member {name} already", council_id=council.name
            )
        model = asked.capabilities.model_profile
        member = {"name": name} | ({"model": model} if model else {})
        changed = msgspec.structs.replace(council, members=(*_named(council), member))
        try:
            kept = await self._deliberations.put_council(changed, call.caller)
        except InvalidRequest as error:
            return wire.RegisterAgentResponse(message=error.message)
        text = f"{name} is a member of the council {kept.name}, which has {len(kept.members)} now"
        return wire.RegisterAgentResponse(success=True, message=text, council_id=kept.name)

    async def unregister(self, asked: wire.UnregisterAgentRequest, call: Call) -> wire.UnregisterAgentResponse:
        name = _agent(asked.agent_id)
        council = await self._asking.council(_role(asked.role), call)
        if council is None:
            return wire.UnregisterAgentResponse(message=_none(asked.role))
        left = tuple(each for each in _named(council) if each["name"] != name)
        if len(left) == len(council.members):
            return wire.UnregisterAgentResponse(message=f"the council {council.name} has no member {name[:64]!r}")
        try:
            if left:
                changed = msgspec.structs.replace(council, members=left)
                await self._deliberations.put_council(changed, call.caller)
            else:
                await self._deliberations.delete_council(council.name, call.caller)
        except InvalidRequest as error:
            return wire.UnregisterAgentResponse(message=error.message)
        text = f"{name} is no member of the council {council.name} any more"
        return wire.UnregisterAgentResponse(success=True, message=text)

    def _in_turn(self, change: Callable[[Any, Call], Coroutine[Any, Any, Any]]) -> Callable[[Any, Call], Any]:
        """Begin a change when the one before has ended. It goes on when its client goes."""

        async def after(before: asyncio.Task[Any] | None, asked: Any, call: Call) -> Any:
            if before is not None and not before.done():
                await asyncio.wait((before,))
            return await change(asked, call)

        async def turn(asked: Any, call: Call) -> Any:
            task = self._last = asyncio.ensure_future(after(self._last, asked, call))
            task.add_done_callback(_retrieved)
            return await asyncio.shield(task)

        return turn


def _retrieved(task: asyncio.Task[Any]) -> None:
    """What it has raised is told to its client, if that is still there."""
    if not task.cancelled():
        task.exception()


def _told(council: Council, *, agents: bool) -> wire.CouncilInfo:
    busy = council.in_use > 0
    model = str(council.members[0].get("model", "")) if council.members else ""
    found = [
        wire.AgentInfo(
            agent_id=str(each["name"]),
            role=str(each.get("role") or council.role),
            status="busy" if busy else "ready",
            capabilities=wire.AgentCapabilities(model_profile=str(each.get("model", ""))),
        )
        for each in _named(council)
    ]
    return wire.CouncilInfo(
        council_id=council.name,
        role=council.role or council.name,
        num_agents=len(council.members),
        agents=found if agents else [],
        status="busy" if busy else "active",
        model=model,
    )


def _named(council: Council) -> tuple[dict[str, Any], ...]:
    """Its members, with the names that they have in a question where they were given none."""
    return tuple({"name": f"member-{number}"} | each for number, each in enumerate(council.members, 1))


def _names(council: Council) -> list[str]:
    return [str(each["name"]) for each in _named(council)]


def _role(given: str) -> str:
    if not given.strip():
        raise InvalidRequest("role is empty: a council is named by its role")
    return given.strip()


def _agent(given: str) -> str:
    if not given.strip():
        raise InvalidRequest("agent_id is empty: it names the member")
    return given.strip()


def _none(role: str) -> str:
    return f"there is no council {role[:64]!r}"
