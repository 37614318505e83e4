"""``anywire doctor``: whether what is configured can work on this machine, and what to do where it cannot."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import typer

from anywire.cli import options
from anywire.errors import AnywireError

if TYPE_CHECKING:
    from anywire.cli.eventloop import Stop
    from anywire.config import Config, PluginChoice
    from anywire.messages import AgentInfo, AgentStatus, Chunk
    from anywire.plugins import Plugins
    from anywire.transport import Transport

DISCOVERY = 10.0
"""Seconds for the far end to start, and for the two to find each other."""
LOOK = 2.0
"""Seconds an orchestrator gets to link an agent that looks for one."""
ENGINE_START = 120.0
OLDEST_PYTHON = (3, 11)


class Finding(NamedTuple):
    """The result of one check; ``remedy`` says what to do when it failed or warns. A warning is no failure: what it
    tells of may be meant to be so."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""
    warns: bool = False

    @property
    def state(self) -> Literal["ok", "warn", "fail"]:
        if not self.ok:
            return "fail"
        return "warn" if self.warns else "ok"

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "ok": self.ok,
            "state": self.state,
            "detail": self.detail,
            "remedy": self.remedy,
        }


class _HubSink:
    """What the doctor's hub is told of the one agent it looks for."""

    def __init__(self, agent_id: str) -> None:
        loop = asyncio.get_running_loop()
        self._agent_id = agent_id
        self.joined: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[str] = loop.create_future()

    def agent_joined(self, info: AgentInfo) -> None:
        if info.agent_id == self._agent_id and not self.joined.done():
            self.joined.set_result(None)

    def agent_reported(self, status: AgentStatus) -> None: ...
    def agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None: ...

    def chunk_received(self, chunk: Chunk) -> None:
        if not self.answered.done():
            self.answered.set_result("".join(chunk.deltas))

    def send_failed(self, task_id: str, attempt: int, error: AnywireError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


def doctor(
    as_json: options.Json = False,
    file: options.File = None,
    host: options.Host = None,
    port: options.Port = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    transports: options.Transports = None,
    dds_domain: options.DdsDomain = None,
    plugin_files: options.PluginFiles = None,
    log_level: options.LogLevel = None,
) -> None:
    """Check what is configured on this machine: Python, plugins, transports, the engine's model, the port."""
    from anywire.cli import eventloop

    config, plugins = options.settle(
        file,
        host=host,
        port=port,
        engine=engine,
        model=model,
        transports=transports,
        dds_domain=dds_domain,
        plugin_files=plugin_files,
        log_level=log_level,
        quiet=True,
    )

    async def role(stop: Stop) -> list[Finding]:
        findings = []
        for check in _checks(config, plugins):
            finding = await stop.unless(check())
            findings.append(finding)
            if not as_json:
                _show(finding)
        return findings

    findings = eventloop.run(role)
    if findings is None:
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _checks(config: Config, plugins: Plugins) -> list[Callable[[], Awaitable[Finding]]]:
    checks: list[Callable[[], Awaitable[Finding]]] = [_python]
    checks.append(lambda: _pipeline(config, plugins))
    for choice in config.transports:
        checks.append(partial(_transport, config, plugins, choice))
        if _leaves_the_process(plugins, choice):
            checks.append(partial(_orchestrator, config, plugins, choice))
    checks.append(lambda: _engine(config, plugins))
    checks.append(lambda: _port(config))
    return checks


def _show(finding: Finding) -> None:
    from rich.console import Console
    from rich.markup import escape

    mark = {"ok": "[green]ok  [/]", "warn": "[yellow]WARN[/]", "fail": "[red]FAIL[/]"}[finding.state]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{mark}  [bold]{escape(finding.check)}[/]: {escape(finding.detail)}")
    if finding.remedy and finding.state != "ok":
        console.print(f"      → {escape(finding.remedy)}")


async def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", sys.version_info >= OLDEST_PYTHON, version, f"use Python {wanted} or newer")


async def _pipeline(config: Config, plugins: Plugins) -> Finding:
    from anywire import assembly

    check = "plugins"
    remedy = "install the distribution that has it, or name another; `anywire plugins` lists what is there"
    try:
        plugins.create("schedulers", config.scheduler.name, config.scheduler.options)
        plugins.create("selectors", config.selector.name, config.selector.options)
        assembly.make_gateways(config, plugins)
    except AnywireError as error:
        return Finding(check, False, str(error), remedy)
    gateways = ", ".join(each.name for each in config.gateways)
    names = f"scheduler {config.scheduler.name}, selector {config.selector.name}, gateways {gateways}"
    return Finding(check, True, names)


async def _transport(config: Config, plugins: Plugins, choice: PluginChoice) -> Finding:
    check = f"transport {choice.name}"
    try:
        transport: Transport = plugins.create("transports", choice.name, choice.options)
    except AnywireError as error:
        return Finding(check, False, str(error), f"correct transports.{choice.name}, or install the plugin")
    try:
        detail = await _exchange(config, plugins, transport)
    except TimeoutError:
        detail = f"an agent and a hub on this machine did not find each other in {DISCOVERY:.0f} s"
        return Finding(check, False, detail, _discovery_remedy(transport))
    except AnywireError as error:
        # Where orchestrators listen there is often one already, or it is another machine: then no hub opens here.
        if transport.capabilities.discovery == "directory" and (hub_id := await _seen(config, transport)):
            detail = f"an agent here is linked by the orchestrator {hub_id}; no other one can run here ({error})"
            return Finding(check, True, detail)
        return Finding(check, False, str(error), f"see the documentation of the transport {choice.name}")
    return Finding(check, True, detail)


def _leaves_the_process(plugins: Plugins, choice: PluginChoice) -> bool:
    try:
        transport: Transport = plugins.create("transports", choice.name, choice.options)
    except AnywireError:
        return False  # the check of the transport itself says why
    return transport.capabilities.inter_process


async def _orchestrator(config: Config, plugins: Plugins, choice: PluginChoice) -> Finding:
    """Whether an agent on this machine, with these options, is linked by an orchestrator."""
    from anywire.cli import probe

    check = f"orchestrator over {choice.name}"
    transport: Transport = plugins.create("transports", choice.name, choice.options)
    where = f"over {choice.name}{_meeting_point(transport)}"
    try:
        hub_id = await probe.orchestrator_seen(transport, _agent_id("look"), config.agents.timeout, LOOK)
    except AnywireError as error:
        detail = f"whether an orchestrator is there {where} could not be seen: {error}"
        return Finding(check, True, detail, f"correct transports.{choice.name}", warns=True)
    if hub_id:
        return Finding(check, True, f"an orchestrator is seen {where} ({hub_id})")
    return Finding(check, True, f"no orchestrator is seen {where}", _meeting_remedy(transport), warns=True)


async def _seen(config: Config, transport: Transport) -> str:
    """The orchestrator that links an agent here; empty when there is none, or no agent's end opens either."""
    from anywire.cli import probe

    try:
        return await probe.orchestrator_seen(transport, _agent_id("end"), config.agents.timeout, LOOK)
    except AnywireError:
        return ""


def _agent_id(of: str) -> str:
    return f"doctor-{of}-{socket.gethostname()}-{os.getpid()}"


def _meeting_point(transport: Transport) -> str:
    """The options, by their usual names, that agents and orchestrators must share to meet."""
    told = ""
    for option, word in (("domain", "in domain"), ("fleet", "and fleet"), ("agent_addresses", "at")):
        value = getattr(transport.config, option, None)
        if value not in (None, "", []):
            told += f" {word} {', '.join(map(str, value)) if isinstance(value, list) else value}"
    return told


def _meeting_remedy(transport: Transport) -> str:
    name = transport.name
    begin = (
        f"if one should run, compare transports.{name} there (its `anywire config` shows it) with `anywire config` here"
    )
    match transport.capabilities.discovery:
        case "native":
            shared = [each for each in ("domain", "fleet") if each in type(transport.config).model_fields]
            same = f"it must use the same {' and '.join(shared)}, and" if shared else "it must use"
            return f"{begin}: {same} the same network (interface, peers, multicast), with its UDP ports open"
        case "directory":
            return (
                f"{begin}: it must listen on one of these addresses and be reachable from here, with the same "
                "token or keys that fit; what it refuses is in its log"
            )
        case _:
            return f"{begin}: it must use the same broker"


def _discovery_remedy(transport: Transport) -> str:
    match transport.capabilities.discovery:
        case "native":
            options = ", ".join(transport.Config.model_fields) or "none"
            return (
                "multicast is blocked, as in many containers, or the interface is the wrong one: name peers and the "
                f"interface in the transport's options ({options}), and let a firewall pass its UDP ports"
            )
        case "brokered":
            return "see that the broker of this transport runs and is reachable where the options say"
        case _:
            return "see that the hub's address in the transport's options is the one agents can reach"


async def _exchange(config: Config, plugins: Plugins, transport: Transport) -> str:
    """Open a hub here and an agent beside it, send a message both ways, and say how long that took."""
    from anywire.cli import probe
    from anywire.identity import hub_info
    from anywire.messages import TaskRequest

    agent_id = _agent_id("echo")
    info = hub_info(f"{probe.HUB_PREFIX}{socket.gethostname()}-{os.getpid()}", lease=config.agents.timeout)
    sink = _HubSink(agent_id)
    hub = await transport.open_hub(info, "agent", sink)
    try:
        async with _far_end(config, plugins, transport, agent_id) as (where, failing):
            began = time.perf_counter()
            await _before(sink.joined, failing)
            found = time.perf_counter()
            hub.send(agent_id, TaskRequest(info.hub_id, "doctor", 1, "chat", "doctor", "{}"))
            await _before(sink.answered, failing)
            answered = time.perf_counter()
    finally:
        await hub.close()
    round_trip = 1000 * (answered - found)
    return f"an agent {where} was found in {found - began:.2f} s, the first round trip took {round_trip:.1f} ms"


@asynccontextmanager
async def _far_end(
    config: Config, plugins: Plugins, transport: Transport, agent_id: str
) -> AsyncIterator[tuple[str, asyncio.Future[Any]]]:
    """An agent that answers, in another process where the transport reaches one; and what fails when that does."""
    from anywire.cli import probe, supervision

    if transport.capabilities.inter_process:
        arguments = ["anywire.cli.probe", transport.name, agent_id]
        child = supervision.Child(agent_id, arguments, config.model_dump_json())
        life = asyncio.create_task(child.keep_running())
        ready = asyncio.create_task(child.ready.wait())
        try:
            await _before(ready, life)
            yield "in another process", life
        finally:
            ready.cancel()
            await child.stop(timeout=5.0)
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        return
    choice = config.transport(transport.name)
    other: Transport = plugins.create("transports", transport.name, choice.options if choice else {})
    port = await probe.open_echo(other, agent_id, config.agents.timeout)
    try:
        yield "in this process", asyncio.get_running_loop().create_future()
    finally:
        await port.close()


async def _before(wanted: asyncio.Future[Any], failing: asyncio.Future[Any]) -> None:
    """Wait for ``wanted``; raises what ``failing`` raised if that came first, or TimeoutError."""
    async with asyncio.timeout(DISCOVERY):
        await asyncio.wait((wanted, failing), return_when=asyncio.FIRST_COMPLETED)
    if not wanted.done():
        failing.result()
    wanted.result()


async def _engine(config: Config, plugins: Plugins) -> Finding:
    from anywire import assembly

    check = f"engine {config.engine.name}"
    try:
        engine = assembly.make_engine(config, plugins)
    except AnywireError as error:
        return Finding(check, False, str(error), "correct the section engine, or install the plugin")
    try:
        async with asyncio.timeout(ENGINE_START):
            await engine.start(lambda: None)
        status = engine.status()
    except TimeoutError:
        return Finding(check, False, f"not started within {ENGINE_START:.0f} s", "try a smaller model (--model)")
    except AnywireError as error:
        return Finding(check, False, str(error), "correct engine.model (--model), or choose another engine (--engine)")
    finally:
        await engine.close()
    models = ", ".join(status.models)
    remedy = status.detail or "name a model (--model)"
    return Finding(
        check, bool(models) and status.state != "failed", f"{status.state}, models: {models or 'none'}", remedy
    )


async def _port(config: Config) -> Finding:
    from anywire.cli import stream

    host, port = config.server.host, config.server.port
    check = f"port {port}"
    try:
        listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            url = f"http://{options.reachable(host)}:{port}"
            try:
                async with stream.client(url) as client:
                    if (await stream.get(client, "/version")).get("name") == "anywire":
                        return Finding(check, True, f"an Anywire server runs on {url} already")
            except (AnywireError, AttributeError):
                pass
            return Finding(check, False, f"another program uses {host}:{port}", "end it, or choose another with --port")
        return Finding(check, False, f"{host}:{port}: {error.strerror}", "choose an address of this machine (--host)")
    listening.close()
    await listening.wait_closed()
    return Finding(check, True, f"{host}:{port} is free")
