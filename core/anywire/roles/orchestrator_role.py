"""An orchestrator as a process runs it: with its services, gateways, clients and parents, active or standing by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from anywire.access import OpenAccess, RunAccess
from anywire.access_settings import TlsConfig
from anywire.config import DEFAULT_GATEWAY, Config
from anywire.errors import ConfigError
from anywire.files.state_folders import state_root
from anywire.gateway import Gateway
from anywire.messages import HubInfo
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins, package_of
from anywire.roles import assembly
from anywire.roles.agent import Agent
from anywire.roles.beyond_machine import ADMIT_AGENTS, check_reach, open_to_agents
from anywire.roles.context import OrchestratorContext
from anywire.roles.fleet import leave
from anywire.roles.kept_budgets import KeptBudgets
from anywire.roles.service_host import Numbers, ServiceHost
from anywire.roles.standby import Standby
from anywire.roles.stop import Stop
from anywire.roles.told_access import told_access
from anywire.route import Routes
from anywire.transport import Candidacy, Transport
from anywire.transport_tools import option_of

if TYPE_CHECKING:
    from anywire.roles.gateway_processes import GatewayProcesses

log = logging.getLogger(__name__)

SETTLE = 5.0
"""Seconds a role gets beyond its grace to release everything."""


class Served(NamedTuple):
    """An orchestrator that lets clients in, its gateways, and the transports by which it meets its clients."""

    orchestrator: Orchestrator
    gateways: Sequence[Gateway]
    client_transports: Sequence[Transport] = ()
    access: RunAccess = OpenAccess()
    numbers: Callable[[str, Numbers], None] = lambda name, numbers: None
    """Tells the numbers of a further part, under a name, with those of services; see `ServiceHost.tell_also`."""
    routes: Routes | None = None
    """What the gateways serve beside their own."""
    own_address: str = ""
    """Where the orchestrator's own process answers other commands of this user, where that is not `address`."""

    @property
    def address(self) -> str:
        """Where clients reach the first gateway; empty when there is none."""
        return self.gateways[0].address if self.gateways else ""

    @property
    def tls(self) -> TlsConfig | None:
        """The certificate that the first gateway shows; None where it uses no TLS."""
        return self.gateways[0].tls if self.gateways else None

    @property
    def addresses(self) -> list[str]:
        """Where clients reach it, in words: its gateways, or that they use the transports."""
        return [gateway.address for gateway in self.gateways] or ["the client plane, no gateway"]

    def meeting_options(self, host: str) -> dict[str, dict[str, Any]]:
        """The options of each transport, by its name, with which agents and clients meet this orchestrator: see
        `anywire.transport.Transport.meeting_options`."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.orchestrator.transports:
            if each.capabilities.inter_process:
                found[each.name] = dict(each.meeting_options(host))
        for each in self.client_transports:
            if each.capabilities.inter_process:
                # What both planes have is said already. How links of clients with keys are protected is not for agents.
                met, addresses = each.meeting_options(host), option_of("client")
                found.setdefault(each.name, {}).update({name: met[name] for name in met if name == addresses})
        return found


class OrchestratorRole:
    """One orchestrator from its assembly to its end, in steps: `start` opens its hub, `admit` lets clients in, `close`
    ends all of it. It is a `anywire.roles.standby.Life`: in a standby `admit` is called when it is elected.

    ``ready`` is called once clients are let in. The constructor raises `ConfigError` and `PluginError`.
    """

    def __init__(self, config: Config, plugins: Plugins, ready: Callable[[Served], None] = lambda served: None) -> None:
        self._ready, self._config = ready, config
        self.orchestrator = assembly.make_orchestrator(config, plugins)
        self.access = assembly.make_access(config, self.orchestrator.events)
        """Who clients are; a caller whose key counts no more has its tasks ended."""
        check = self.orchestrator.end_check
        if check is not None:
            check.inviters = self.access
        self._told_access = told_access(self.access, self.orchestrator.events)
        self._stop_listening: Callable[[], None] = lambda: None
        self._stop_inviting: Callable[[], None] = lambda: None
        self.gateways = assembly.make_gateways(config, plugins)
        self._public = list(self.gateways)
        """Those that clients meet."""
        self._processes = self._share_port(config, plugins) if config.server.gateway_processes else None
        self.routes = Routes()
        services = assembly.make_services(config, plugins)
        self.services = ServiceHost(services, self.orchestrator, self._service_context, self.gateways)
        if self._processes is not None:
            self.services.tell_also("gateway_processes", self._processes.numbers)
        self._state = state_root(self.orchestrator.transports)
        self._budgets = KeptBudgets(self.orchestrator.limits, self._state, self.orchestrator.clock)
        self._fleet_agents = assembly.make_fleet_agents(config, plugins, self.orchestrator, self._told_access)
        self._client_transports = [
            transport for one in self._fleet_agents if one.plane == "client" for transport in one.transports
        ]
        check_reach(config, self.access, self._public, self._client_transports)
        self._started: list[Gateway] = []
        self._announced: list[Agent] = []

    @property
    def info(self) -> HubInfo:
        return self.orchestrator.info

    @property
    def served(self) -> Served:
        return Served(
            self.orchestrator,
            self._public,
            self._client_transports,
            self.access,
            self.services.tell_also,
            self.routes,
            f"unix:{self._processes.own_socket}" if self._processes is not None else "",
        )

    def context(self, name: str) -> OrchestratorContext:
        """What the gateway of that name is given."""
        return self._context(name, is_service=False)

    def _share_port(self, config: Config, plugins: Plugins) -> GatewayProcesses:
        """Put processes in the place of the gateway that can share its port, which stays on a Unix socket here."""
        from anywire.roles.gateway_processes import GatewayProcesses, shared_gateway

        choice = shared_gateway(config, plugins)
        at = next(number for number, each in enumerate(self.gateways) if each.name == choice.name)
        processes = GatewayProcesses(config, plugins, self.orchestrator, choice, self.gateways[at])
        self.gateways[at] = assembly.make(config, plugins, "gateways", choice.name, processes.own_options())
        self._public[at] = processes
        return processes

    def _service_context(self, name: str) -> OrchestratorContext:
        return self._context(name, is_service=True)

    def _context(self, name: str, is_service: bool) -> OrchestratorContext:
        return OrchestratorContext(
            self.orchestrator, name, self.services, self.routes, self._state, self._told_access, is_service
        )

    async def start(self) -> None:
        """Open the hub, and follow who may come in. Raises `TransportUnavailable`."""
        if told := open_to_agents(self._config, self.orchestrator.transports):
            log.warning("%s: %s", told, ADMIT_AGENTS)
        await self.access.start()
        if (check := self.orchestrator.end_check) is not None:
            self._stop_inviting = self.access.listen(lambda key_id: check.reconsider())
        await self.orchestrator.start()

    async def admit(self) -> None:
        """Start the services, then the gateways, and announce the orchestrator to clients and parents. Raises
        `AnywireError` when one of them cannot start; `close` releases what has begun."""
        if not self.gateways:
            missing = "no gateway is configured"
            if self._config.gateways is None:
                missing = f"no HTTP gateway is installed ({package_of('gateways', DEFAULT_GATEWAY)} has one)"
            log.info("%s: clients use the client plane over %s", missing, self._config.transport_names)
        await self._budgets.start()
        self._stop_listening = self.access.listen(self.orchestrator.end_caller)
        await self.services.start()
        if self._processes is not None:
            self._started.append(self._processes)
            self._processes.make_folder()
        for gateway in self.gateways:
            self._started.append(gateway)
            await gateway.start(self.context(gateway.name))
        if self._processes is not None:
            await self._processes.start(self.context(self._processes.name))
        if self.routes.all() and not self.gateways:
            log.warning("services have routes, and no gateway serves them: configure one that speaks HTTP")
        for one in self._fleet_agents:
            self._announced.append(one)
            await one.start()
        self._ready(self.served)

    async def close(self, grace: float, candidacy: Candidacy | None = None) -> None:
        """Refuse new tasks, close ``candidacy``, give the running tasks ``grace`` seconds, close the services, and
        release everything. What goes wrong is logged."""
        # All at once: a gateway stops accepting as the first thing it does, and is done when the last of its tasks is.
        loop = asyncio.get_running_loop()
        ending = [gateway.close() for gateway in self._started]
        ending += [leave(one, grace) for one in self._announced]
        closing = [loop.create_task(each) for each in (*ending, self.orchestrator.close(grace))]
        # Each of them has begun when this goes on: no gateway listens any more. Only now may another one take over,
        # which may need the same port.
        await asyncio.sleep(0)
        self.services.gate_closed()
        if candidacy is not None:
            closing.append(loop.create_task(candidacy.close()))
        try:
            async with asyncio.timeout(grace + SETTLE):
                results = await asyncio.gather(*closing, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    log.error("while shutting down: %s", result, exc_info=result)
        except TimeoutError:
            log.error("the shutdown took over %.0f s and is given up", grace + SETTLE)
        finally:
            self._stop_listening()
            self._stop_inviting()
            await self.services.close()
            await self.access.close()
            await self._budgets.close()


@asynccontextmanager
async def serving(config: Config, plugins: Plugins, stop: Stop) -> AsyncIterator[Served]:
    """Run an orchestrator with its services, gateways, clients and parents. At the end it refuses new tasks, gives the
    running ones ``shutdown_grace`` seconds, and closes. Raises what keeps it from starting."""
    if config.standby.enabled:
        raise ConfigError(
            "standby.enabled is for orchestrators alone: use `anywire serve`, and `anywire agent` beside it"
        )
    role = OrchestratorRole(config, plugins)
    grace = 0.0
    try:
        await stop.unless(role.start())
        await stop.unless(role.admit())
        yield role.served
        grace = config.shutdown_grace
    finally:
        await role.close(grace)


async def serve(config: Config, plugins: Plugins, stop: Stop, ready: Callable[[Served], None]) -> None:
    """Run an orchestrator until it is asked to stop: at once, or with ``standby.enabled`` whenever it is elected.
    ``ready`` is called each time clients are let in."""
    if not config.standby.enabled:
        async with serving(config, plugins, stop) as served:
            ready(served)
            await stop.wait()
        return
    standby = Standby(
        assembly.make_elects(config, plugins),
        lambda: OrchestratorRole(config, plugins, ready),
        strength=config.standby.strength,
        grace=config.shutdown_grace,
        lease=config.lease.timeout,
    )
    await stop.unless(standby.run())
