"""What a gateway or service is given of an orchestrator: `anywire.context.Context`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from anywire.caller import OPERATOR, Caller
from anywire.clock import Clock
from anywire.context import Context, Services, TaskView
from anywire.event_bus import EventBus
from anywire.fleet_names import is_private
from anywire.messages import Chunk, HubInfo
from anywire.offers import Offer
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.guarded_routes import GuardedRoutes
from anywire.route import Routes
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.transport import Transport

DEFAULT_FLEET = "default"


class NoServices:
    """`anywire.context.Services` of an orchestrator that has none."""

    def get(self, name: str) -> Any:
        return None


class OrchestratorContext:
    """``orchestrator`` as the plugin ``name`` sees it. ``services`` and ``routes`` are those of the orchestrator, one
    of each for all of its contexts; ``state`` is the folder in which state folders are made, see `state_root`."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        name: str = "",
        services: Services | None = None,
        routes: Routes | None = None,
        state: Path | None = None,
    ) -> None:
        self._orchestrator, self._name, self._state = orchestrator, name, state
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
    def transports(self) -> Sequence[Transport]:
        return self._orchestrator.transports

    @cached_property
    def state_folder(self) -> Path:
        root = self._state if self._state is not None else state_root(self.transports)
        folder = root / quote(self._name or "anywire", safe="")
        for each in (root.parent, root, folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        return folder

    @property
    def closing(self) -> bool:
        return self._orchestrator.closing

    def submit(self, submission: Submission) -> TaskStream:
        return self._orchestrator.submit(submission)

    def cancel(self, task_id: str, reason: str = "cancelled", caller: Caller = OPERATOR) -> bool:
        return self._orchestrator.cancel(task_id, reason, caller)

    def tasks(self, caller: Caller = OPERATOR) -> list[TaskView]:
        return self._orchestrator.tasks(caller)

    def follow(self, task_id: str, caller: Caller = OPERATOR) -> AsyncGenerator[Chunk, None]:
        return self._orchestrator.follow(task_id, caller)

    def agents(self) -> list[AgentView]:
        return self._orchestrator.agents()

    def models(self) -> list[str]:
        own = {offer.model: None for _, offer in self._orchestrator.services.offers()}
        return list(dict.fromkeys(self._orchestrator.models()) | own)

    def offers(self) -> Mapping[str, Sequence[tuple[str, Offer]]]:
        """As in the contract; an offer of a service stands under ``service NAME``."""
        found = self._orchestrator.offers()
        for name, offer in self._orchestrator.services.offers():
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

    def stats(self) -> dict[str, Any]:
        return self._orchestrator.stats()


def state_root(transports: Sequence[Transport], environment: Mapping[str, str] | None = None) -> Path:
    """The folder of an orchestrator's state: ``anywire/FLEET`` below XDG_STATE_HOME, or below ``~/.local/state``.
    FLEET is the option ``fleet`` of the first transport that has one, else, and for a private one, ``default``."""
    fleets = (getattr(transport.config, "fleet", "") for transport in transports)
    fleet = next((each for each in fleets if isinstance(each, str) and each and not is_private(each)), DEFAULT_FLEET)
    return state_folder(fleet, environment)


def state_folder(fleet: str, environment: Mapping[str, str] | None = None) -> Path:
    """The folder of the state of the fleet of that name: see `state_root`."""
    variables = os.environ if environment is None else environment
    home = variables.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "anywire" / quote(fleet, safe="")


if TYPE_CHECKING:

    def _is_a_context(context: OrchestratorContext) -> Context:
        return context
