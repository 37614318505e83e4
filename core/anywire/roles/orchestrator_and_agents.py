"""An orchestrator and its agents on this machine, started and ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from anywire.config import Config, LauncherSection, with_transport_options
from anywire.errors import AnywireError, ConfigError, LaunchFailed, PluginError
from anywire.launcher import RunningProcess
from anywire.plugins import Plugins
from anywire.printable import printable
from anywire.roles import assembly
from anywire.roles.agent_configs import agent_sorts
from anywire.roles.on_demand.keeper import NAME as ON_DEMAND
from anywire.roles.on_demand.keeper import AgentsOnDemand
from anywire.roles.orchestrator_role import SETTLE, Served, serving
from anywire.roles.stop import Stop
from anywire.selector import AgentView

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds until it is said that agents which run do not join."""


class _Agents(Protocol):
    async def prepare(self) -> None:
        """Begin what needs no orchestrator."""
        ...

    async def start(self, served: Served) -> None:
        """Start them, so that they meet the orchestrator."""
        ...

    async def failure(self) -> None:
        """Wait until an agent fails for good, and raise that."""
        ...

    async def ready(self) -> None:
        """Wait until every one has started, joined or not."""
        ...

    async def stop(self) -> None: ...


class _AgentsInside:
    """Agents of this very process, for transports that reach no other."""

    def __init__(self, configs: Mapping[str, Config], plugins: Plugins) -> None:
        # The orchestrator says of them what they would say of it.
        self._agents = [assembly.make_agent(config, plugins, logging.DEBUG) for config in configs.values()]
        self._started: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        pass

    async def start(self, served: Served) -> None:
        self._started = [asyncio.create_task(agent.start()) for agent in self._agents]

    async def failure(self) -> None:
        await asyncio.gather(*self._started)
        await asyncio.Event().wait()

    async def ready(self) -> None:
        await asyncio.wait(self._started)

    async def stop(self) -> None:
        for task in self._started:
            task.cancel()
        await asyncio.gather(*self._started, return_exceptions=True)
        await asyncio.gather(*(agent.close() for agent in self._agents))


class _AgentsLaunched:
    """Agents in processes of their own, by the launcher that the configuration names."""

    def __init__(self, configs: Mapping[str, Config], config: Config, plugins: Plugins) -> None:
        self._configs, self._plugins, self.grace = configs, plugins, config.shutdown_grace + SETTLE
        self._launcher = assembly.make_launcher(config, plugins)
        self._processes: list[RunningProcess] = []
        self._meeting: Mapping[str, Mapping[str, Any]] = {}

    async def prepare(self) -> None:
        """Let the processes import what they need while the orchestrator starts: both take as long."""
        for name, config in self._configs.items():
            used = [self._plugins.module("transports", each.name) for each in config.transports]
            used.append(self._plugins.module("engines", config.engine.name))
            try:
                await self._launcher.prepare("agent", name, list(filter(None, used)))
            except Exception as error:
                log.debug("the launcher %s prepares nothing for %s: %s", self._launcher.name, name, error)

    async def start(self, served: Served) -> None:
        self._meeting = served.meeting_options(await self._reached())
        for name, config in self._configs.items():
            self._processes.append(await self.start_one(name, config))

    async def start_one(self, name: str, config: Config) -> RunningProcess:
        """Start one more, which the caller stops. Raises `AnywireError`."""
        try:
            # Its lines are read, and become lines of this log.
            own = with_transport_options(config, self._meeting).model_copy(update={"log_format": "json"})
            return await self._launcher.start("agent", own, name)
        except AnywireError:
            raise
        except Exception as error:
            raise PluginError(
                f"the launcher {self._launcher.name} cannot start {name}: {type(error).__name__}: {error}"
            ) from error

    async def _reached(self) -> str:
        try:
            return await self._launcher.reached()
        except AnywireError:
            raise
        except Exception as error:
            raise PluginError(
                f"the launcher {self._launcher.name} does not know how this machine is reached: "
                f"{type(error).__name__}: {error}"
            ) from error

    async def failure(self) -> None:
        watching = [asyncio.create_task(_fail_with(process)) for process in self._processes]
        try:
            await asyncio.gather(*watching)
        finally:
            for task in watching:
                task.cancel()

    async def ready(self) -> None:
        await asyncio.gather(*(process.ready() for process in self._processes))

    async def stop(self) -> None:
        try:
            await asyncio.gather(*(process.stop(self.grace) for process in self._processes))
        finally:
            await self._launcher.close()


async def _fail_with(process: RunningProcess) -> None:
    await process.ready()
    raise LaunchFailed(f"{process.name} ended for good: {await process.ended()}")


def what_is_missing(wanted: Iterable[str], agents: Iterable[AgentView], transports: str) -> list[str]:
    """Why the agents with the ids ``wanted`` cannot answer yet, a sentence for each reason. Empty when they can."""
    known = {each.agent_id: each.status for each in agents}
    absent = [agent_id for agent_id in wanted if agent_id not in known]
    reasons = []
    if absent:
        who = ", ".join(absent)
        reasons.append(
            f"agents run but have not joined over {transports}: {who}; `anywire doctor` tells what is missing"
        )
    for agent_id in wanted:
        status = known.get(agent_id)
        if status is not None and status.state != "ready":
            reasons.append(
                f"agent {agent_id} has joined but cannot answer: it is {status.state}"
                + (f", {printable(status.detail)}" if status.detail else "")
            )
    return reasons


@asynccontextmanager
async def running(config: Config, plugins: Plugins, stop: Stop, count: int | None = None) -> AsyncIterator[Served]:
    """Run an orchestrator and agents: those that ``agents`` lists, else ``count`` of them, one by default. Yields once
    every agent has joined and is ready. From then on agents on demand are started and ended, as ``on_demand`` says. At
    the end running tasks get ``shutdown_grace`` seconds, then the agents end.

    The launcher starts the agents. Over a transport that reaches no other process they run inside of this one, and a
    warning says so where another launcher than ``local`` is configured, and ``on_demand`` is refused. Raises what keeps
    the orchestrator from starting, `LaunchFailed` when an agent cannot start, `PluginError` when the launcher fails.
    """
    sorts = agent_sorts(config, count)
    configs = {agent_id: own for sort in sorts for agent_id, own in sort.agents.items()}
    if not config.on_demand.most and any(sort.most for sort in sorts):
        log.warning("agents: on_demand is set, and starts none while on_demand.most is 0, which bounds them all")
    agents: _Agents
    launched: _AgentsLaunched | None = None
    on_demand: AgentsOnDemand | None = None
    if assembly.in_one_process(config, plugins):
        if config.on_demand.most:
            raise ConfigError(
                f"on_demand: over {config.transport_names} the agents run in this process, where further ones add "
                "nothing: use a transport between processes, or set on_demand.most to 0"
            )
        agents = _AgentsInside(configs, plugins)
        if config.launcher != LauncherSection():
            log.warning(
                "the launcher %s is not used: over %s the agents run in this process",
                config.launcher.name,
                config.transport_names,
            )
    else:
        agents = launched = _AgentsLaunched(configs, config, plugins)

    def all_ready(agents: list[AgentView]) -> bool:
        return {each.agent_id for each in agents if each.status.state == "ready"}.issuperset(configs)

    async def warn(served: Served) -> None:
        await agents.ready()
        await asyncio.sleep(PATIENCE)
        for reason in what_is_missing(configs, served.orchestrator.agents(), config.transport_names):
            log.warning("%s", reason)

    failing: asyncio.Task[None] | None = None
    try:
        await agents.prepare()
        async with serving(config, plugins, stop) as served:
            await stop.unless(agents.start(served))
            failing = asyncio.create_task(agents.failure())
            waiting = asyncio.create_task(served.orchestrator.agents_until(all_ready))
            warning = asyncio.create_task(warn(served))
            try:
                await stop.unless(asyncio.wait((failing, waiting), return_when=asyncio.FIRST_COMPLETED))
            finally:
                warning.cancel()
                waiting.cancel()
                await asyncio.gather(warning, waiting, return_exceptions=True)
            if not failing.done():
                failing.add_done_callback(lambda _: stop.request("an agent cannot go on"))
                if launched is not None and config.on_demand.most:
                    on_demand = AgentsOnDemand(
                        sorts, config.on_demand, served.orchestrator, launched.start_one, launched.grace
                    )
                    on_demand.begin()
                    served.numbers(ON_DEMAND, on_demand.metrics)
                yield served
            if failing.done():
                failing.result()
    finally:
        if failing is not None:
            failing.cancel()
        stopping = [agents.stop(), *([on_demand.close()] if on_demand is not None else [])]
        await asyncio.gather(*stopping)
