"""A fleet for the tests of an application: an orchestrator, a gateway and agents, in a thread of this process.

    with app_fleet(answers="answers.jsonl") as fleet:
        client = openai.OpenAI(base_url=fleet.base_url, api_key="none")

Tests of any kind use it: what they call is not asynchronous, and nothing of it runs on an event loop of theirs. The
pytest plugin has it as fixture ``anywire_fleet``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import msgspec

from anywire.access import OpenAccess
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.gateway import Gateway
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.agent import Agent
from anywire.roles.context import OrchestratorContext
from anywire.roles.fleet import leave
from anywire.roles.service_host import ServiceHost
from anywire.route import Routes
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.patience import PATIENCE
from anywire.transport_tools import option_of

MAX_ASKED = 10_000
"""Requests that are kept: the newest."""

Result = TypeVar("Result")
Options = Mapping[str, Any]
EngineChoice = str | Options


class Asked(NamedTuple):
    """A request that the fleet was asked over its gateway. ``body`` is its JSON; empty where it is no object."""

    kind: str
    model: str
    stream: bool
    body: Mapping[str, Any]
    session: str = ""


class AppFleet:
    """What tests are given. Its methods may be called by any thread; they return when it is done, and raise what it
    raises."""

    def __init__(self, running: _Running, loop: asyncio.AbstractEventLoop) -> None:
        self._running, self._loop = running, loop

    @property
    def address(self) -> str:
        """Where the gateway listens: ``http://127.0.0.1:PORT``. Empty where no gateway is installed."""
        return self._running.address

    @property
    def base_url(self) -> str:
        """What clients of OpenAI's API are given. Raises `ConfigError` where no gateway is installed."""
        if not self.address:
            raise ConfigError("the fleet has no gateway: pip install anywire-gateway-openai")
        return f"{self.address}/v1"

    @property
    def agents(self) -> list[str]:
        """The ids of the agents that the orchestrator knows, sorted."""
        return self._do(self._running.agents_known())

    @property
    def asked(self) -> list[Asked]:
        """What it was asked over HTTP so far, the oldest first."""
        return list(self._running.asked)

    @property
    def transport_options(self) -> dict[str, Any]:
        """The options with which a client in this process, or another one, meets it over its transport."""
        return dict(self._running.meeting)

    def add_agent(self, name: str = "", engine: EngineChoice | None = None, slots: int | None = None) -> str:
        """Start one more agent, and return its id once the orchestrator knows it as ready. ``engine`` is a name, or a
        mapping with ``name`` and the engine's settings; without it the agent is like the first ones."""
        return self._do(self._running.add_agent(name, engine, slots))

    def kill(self, agent_id: str) -> None:
        """End an agent in the middle of what it does, and return once the orchestrator knows. Over the transport
        ``memory`` its links break; over others it leaves. Raises `ConfigError` for one that is not here."""
        self._do(self._running.kill(agent_id))

    def stats(self) -> dict[str, Any]:
        """As ``GET /v1/stats`` tells."""
        return self._do(self._running.stats())

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._loop.is_closed():
            work.close()
            raise ConfigError("this fleet has ended: use it inside of its with block, or of the test with the fixture")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@contextmanager
def app_fleet(
    *,
    agents: int = 1,
    engine: EngineChoice = "synthetic",
    answers: str | Path | None = None,
    transport: str = "memory",
    transport_options: Options | None = None,
    services: str | Sequence[str] | Mapping[str, Options] = (),
    pipeline: Options | None = None,
    gateway: Options | None = None,
    plugins: Sequence[str] = (),
    slots: int = 4,
) -> Iterator[AppFleet]:
    """Run a fleet while the block runs, and leave nothing behind.

    Args:
        agents: how many there are at first; their ids are ``agent-1`` …
        engine: what answers: a name, or a mapping with ``name`` and the engine's settings.
        answers: a file of recorded answers, in place of ``engine``.
        transport: over which the agents are met, with ``transport_options``. It meets nobody else on this machine.
        services: names, or a mapping of names to settings, as in a configuration.
        pipeline: settings of the pipeline (``{"agent_wait": 0.1}``).
        gateway: settings of the gateway ``openai``.
        plugins: modules or files with hooks, as ``--plugin`` takes them.
        slots: tasks that each agent runs at once.

    Raises what an orchestrator raises at start: `ConfigError`, `PluginError`, `TransportUnavailable`.
    """
    if isinstance(services, str):
        services = [services]
    chosen: EngineChoice = {"name": "recorded", "file": str(answers)} if answers is not None else engine
    with TemporaryDirectory(prefix="anywire-fleet-") as state:

        def running() -> Any:
            return _running(
                Path(state),
                agents,
                chosen,
                (transport, dict(transport_options or {})),
                services if isinstance(services, Mapping) else {name: {} for name in services},
                dict(pipeline or {}),
                dict(gateway or {}),
                list(plugins),
                slots,
            )

        with _in_a_thread(running) as fleet:
            yield fleet


@contextmanager
def _in_a_thread(running: Callable[[], Any]) -> Iterator[AppFleet]:
    begun: Future[tuple[AppFleet, asyncio.Event]] = Future()

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with running() as fleet:
            begun.set_result((AppFleet(fleet, loop), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(error)

    def end(begun: Future[tuple[AppFleet, asyncio.Event]]) -> None:
        if begun.exception() is None:
            fleet, stop = begun.result()
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                fleet._loop.call_soon_threadsafe(stop.set)

    thread = threading.Thread(target=run, name="anywire-fleet")
    thread.start()
    try:
        yield begun.result()[0]
    finally:
        # Also when it was interrupted before it had begun: it ends then as soon as it has.
        begun.add_done_callback(end)
        thread.join()


class _Running:
    """The fleet on its own event loop."""

    def __init__(
        self, config: Config, plugins: Plugins, orchestrator: Orchestrator, address: str, meeting: Options
    ) -> None:
        self._config, self._plugins, self.orchestrator = config, plugins, orchestrator
        self.address, self.meeting = address, meeting
        self.asked: list[Asked] = []
        self._agents: dict[str, Agent] = {}
        self._number = 0

    async def add_agent(self, name: str = "", engine: EngineChoice | None = None, slots: int | None = None) -> str:
        while not name:
            self._number += 1
            made = f"agent-{self._number}"
            name = "" if made in self._agents else made
        if name in self._agents:
            raise ConfigError(f"there is an agent {name!r} already")
        base = self._config.model_dump(exclude_unset=True)
        own: dict[str, Any] = {
            "agent": {"id": name, "slots": slots or self._config.agent.slots},
            "transports": {next(iter(base["transports"])): dict(self.meeting)},
        }
        if engine is not None:
            own["engine"] = _section(engine)
        agent = assembly.make_agent(Config.model_validate(base | own), self._plugins)
        self._agents[name] = agent
        await agent.start()
        await self._until(
            lambda: any(each.agent_id == name and each.status.state == "ready" for each in self.orchestrator.agents())
        )
        return name

    async def kill(self, agent_id: str) -> None:
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            raise ConfigError(f"there is no agent {agent_id!r} here; there are: {', '.join(self._agents) or 'none'}")
        for transport in agent.transports:
            crash = getattr(transport, "crash", None)
            if crash is not None:
                crash()
        await agent.close()
        await self._until(lambda: all(each.agent_id != agent_id for each in self.orchestrator.agents()))

    async def agents_known(self) -> list[str]:
        return sorted(each.agent_id for each in self.orchestrator.agents())

    async def stats(self) -> dict[str, Any]:
        return self.orchestrator.stats()

    async def close(self) -> None:
        await asyncio.gather(*(agent.close() for agent in self._agents.values()))

    def note(self, submission: Submission) -> None:
        try:
            body = msgspec.json.decode(submission.body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            body = {}
        found = body if isinstance(body, dict) else {}
        self.asked.append(Asked(submission.kind, submission.model, submission.stream, found, submission.session))
        del self.asked[:-MAX_ASKED]

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.orchestrator.agents_until(lambda agents: condition())


class _NotingContext(OrchestratorContext):
    """What the gateway is given: it tells what it submits."""

    told: Callable[[Submission], None] = staticmethod(lambda submission: None)

    def submit(self, submission: Submission, task_id: str = "", attempts: int = 0) -> TaskStream:
        self.told(submission)
        return super().submit(submission, task_id, attempts)


@asynccontextmanager
async def _running(
    state: Path,
    agents: int,
    engine: EngineChoice,
    transport: tuple[str, dict[str, Any]],
    services: Mapping[str, Options],
    pipeline: dict[str, Any],
    gateway: dict[str, Any],
    sources: list[str],
    slots: int,
) -> AsyncIterator[_Running]:
    plugins = Plugins()
    for source in sources:
        plugins.add(source)
    name, options = transport
    options |= plugins.load("transports", name).free_options(options)
    if name == "memory":
        options.setdefault("network", f"app-{uuid4()}")
    has_gateway = "openai" in plugins.names("gateways")
    config = Config.model_validate(
        {
            "transports": {name: options},
            "engine": _section(engine),
            "agent": {"slots": slots},
            "services": dict(services),
            "pipeline": pipeline,
            "gateways": {"openai": {"port": 0, **gateway}} if has_gateway else [],
        }
    )
    orchestrator = assembly.make_orchestrator(config, plugins)
    access, routes = OpenAccess(), Routes()
    gateways = assembly.make_gateways(config, plugins)
    made = assembly.make_services(config, plugins)
    host = ServiceHost(
        made,
        orchestrator,
        lambda each: OrchestratorContext(orchestrator, each, host, routes, state, access, is_service=True),
        gateways,
    )
    clients = assembly.make_fleet_agents(config, plugins, orchestrator, access)
    running: _Running | None = None
    started: list[Gateway] = []
    announced: list[Agent] = []
    try:
        await orchestrator.start()
        running = _Running(config, plugins, orchestrator, "", _meeting(orchestrator, clients, name, options))
        await host.start()
        for front in gateways:
            context = _NotingContext(orchestrator, front.name, host, routes, state, access)
            context.told = running.note
            started.append(front)
            await front.start(context)
            running.address = front.address
        for one in clients:
            announced.append(one)
            await one.start()
        running.meeting = _meeting(orchestrator, clients, name, options)
        for _ in range(agents):
            await running.add_agent()
        yield running
    finally:
        ending = [front.close() for front in started] + [leave(one, 0.0) for one in announced]
        closing = [asyncio.ensure_future(each) for each in (*ending, orchestrator.close())]
        await asyncio.sleep(0)
        host.gate_closed()
        await asyncio.gather(*closing)
        await host.close()
        if running is not None:
            await running.close()


def _section(engine: EngineChoice) -> dict[str, Any]:
    return {"name": engine} if isinstance(engine, str) else dict(engine)


def _meeting(orchestrator: Orchestrator, clients: Sequence[Agent], name: str, options: Options) -> dict[str, Any]:
    """The options with which agents and clients meet it."""
    met = dict(options)
    for each in orchestrator.transports:
        if each.capabilities.inter_process:
            met |= each.meeting_options("127.0.0.1")
    for one in clients:
        if one.plane == "client":
            for each in one.transports:
                told = each.meeting_options("127.0.0.1")
                met |= {key: told[key] for key in told if key == option_of("client")}
    return met
