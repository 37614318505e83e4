"""What a gateway or service is given of an orchestrator: `anywire.context.Context`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anywire.access import Access, OpenAccess
from anywire.agent_health import AgentHealth, Order
from anywire.caller import OPERATOR, Caller
from anywire.clock import Clock
from anywire.context import Context, Services, TaskRecord, TaskView
from anywire.event_bus import EventBus
from anywire.files.state_folders import made_state_folder, state_root
from anywire.messages import Chunk, HubInfo
from anywire.metric import Metric
from anywire.offers import Offer
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.guarded_routes import GuardedRoutes
from anywire.route import Routes
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.tracing import Tracing
from anywire.transport import Transport


class NoServices:
    """`anywire.context.Services` of an orchestrator that has none."""

    def get(self, name: str) -> Any:
        return None

    def metrics(self) -> Sequence[tuple[str, Metric]]:
        return ()


class OrchestratorContext:
    """``orchestrator`` as the plugin ``name`` sees it. ``services`` and ``routes`` are those of the orchestrator, one
    of each for all of its contexts; ``state`` is the folder in which state folders are made, see
    `anywire.files.state_folders.state_root`. ``is_service``: the plugin is a service, whose tasks may be those of a
    parent."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        name: str = "",
        services: Services | None = None,
        routes: Routes | None = None,
        state: Path | None = None,
        access: Access | None = None,
        is_service: bool = False,
    ) -> None:
        self._orchestrator, self._name, self._state = orchestrator, name, state
        self._is_service = is_service
        self.access: Access = access if access is not None else OpenAccess()
        self.services: Services = services if services is not None else NoServices()
        self.routes = GuardedRoutes(routes if routes is not None else Routes(), name, orchestrator.boundary)

    @property
    def info(self) -> HubInfo:
        return self._orchestrator.info

    @property
    def clock(self) -> Clock:
        return self._orchestrator.clock

    @property
    def events(self) -> EventBus:
        return self._orchestrator.events

    @property
    def tracing(self) -> Tracing:
        return self._orchestrator.tracing

    @property
    def transports(self) -> Sequence[Transport]:
        return self._orchestrator.transports

    @cached_property
    def state_folder(self) -> Path:
        root = self._state if self._state is not None else state_root(self.transports)
        return made_state_folder(root, self._name or "anywire")

    @property
    def closing(self) -> bool:
        return self._orchestrator.closing

    def submit(self, submission: Submission, task_id: str = "", attempts: int = 0) -> TaskStream:
        return self._orchestrator.submit(submission, self._is_service, task_id, attempts)

    def cancel(self, task_id: str, reason: str = "cancelled", caller: Caller = OPERATOR) -> bool:
        return self._orchestrator.cancel(task_id, reason, caller)

    def tasks(self, caller: Caller = OPERATOR) -> list[TaskView]:
        return self._orchestrator.tasks(caller)

    def explain(self, task_id: str, caller: Caller = OPERATOR) -> TaskRecord | None:
        return self._orchestrator.explain(task_id, caller)

    def follow(self, task_id: str, caller: Caller = OPERATOR) -> AsyncGenerator[Chunk, None]:
        return self._orchestrator.follow(task_id, caller)

    def note(self, task_id: str, name: str, value: str) -> None:
        self._orchestrator.note(task_id, name, value)

    def agents(self) -> list[AgentView]:
        return self._orchestrator.agents()

    def agent_health(self, agent_id: str) -> AgentHealth:
        return self._orchestrator.agent_health(agent_id)

    def order_agent(self, agent_id: str, order: Order, reason: str = "", caller: Caller = OPERATOR) -> AgentHealth:
        return self._orchestrator.order_agent(agent_id, order, reason, caller)

    def models(self, caller: Caller = OPERATOR) -> list[str]:
        own = {offer.model: None for _, offer in self._services_offers(caller)}
        return list(dict.fromkeys(self._orchestrator.models(caller)) | own)

    def offers(self, caller: Caller = OPERATOR) -> Mapping[str, Sequence[tuple[str, Offer]]]:
        """As in the contract; an offer of a service stands under ``service NAME``."""
        found = self._orchestrator.offers(caller)
        for name, offer in self._services_offers(caller):
            found.setdefault(offer.model, []).insert(0, (f"service {name}", offer))
        return found

    def command(
        self,
        target: Sequence[str],
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline: float = 60.0,
        caller: Caller = OPERATOR,
    ) -> AsyncGenerator[Any, None]:
        return self._orchestrator.command(target, name, arguments, deadline=deadline, caller=caller)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        return self._orchestrator.listen(changed)

    def expect_models(self, models: Collection[str]) -> None:
        self._orchestrator.expect_models(self._name, models)

    def stats(self) -> dict[str, Any]:
        return self._orchestrator.stats()

    def _services_offers(self, caller: Caller) -> Iterator[tuple[str, Offer]]:
        return (each for each in self._orchestrator.services.offers() if caller.limits.allows_model(each[1].model))


if TYPE_CHECKING:

    def _is_a_context(context: OrchestratorContext) -> Context:
        return context
