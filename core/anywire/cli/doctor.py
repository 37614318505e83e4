"""``anywire doctor``: whether what is configured can work on this machine, and what to do where it cannot."""

from __future__ import annotations

import asyncio
import errno
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from anywire.cli import options
from anywire.errors import AnywireError

if TYPE_CHECKING:
    from anywire.config import Config, PluginChoice
    from anywire.plugins import Plugins
    from anywire.roles.stop import Stop
    from anywire.transport import Transport

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
    settings: Mapping[str, str] = {}
    """What a transport says is in force."""

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
            "settings": dict(self.settings),
        }


@options.takes("host", "port", "engine", "model", "transports", "dds_domain")
def doctor(
    given: options.Given,
    as_json: options.Json = False,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Show what each transport has in force, such as the QoS granted.")
    ] = False,
) -> None:
    """Check what is configured on this machine: Python, plugins, transports, orchestrators over them, the engine's
    model, the port."""
    from anywire.roles.stop import run

    config, plugins = given.settle(quiet=True)

    async def role(stop: Stop) -> list[Finding]:
        findings = []
        for check in _checks(config, plugins):
            finding = await stop.unless(check())
            findings.append(finding)
            if not as_json:
                _show(finding, show_settings)
        return findings

    findings = run(role)
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


def _show(finding: Finding, settings: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    mark = {"ok": "[green]ok  [/]", "warn": "[yellow]WARN[/]", "fail": "[red]FAIL[/]"}[finding.state]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{mark}  [bold]{escape(finding.check)}[/]: {escape(finding.detail)}")
    if finding.remedy and finding.state != "ok":
        console.print(f"      → {escape(finding.remedy)}")
    for name, value in finding.settings.items() if settings else ():
        console.print(f"      [dim]{escape(name)}: {escape(value)}[/]")


async def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", sys.version_info >= OLDEST_PYTHON, version, f"use Python {wanted} or newer")


async def _pipeline(config: Config, plugins: Plugins) -> Finding:
    from anywire.roles import assembly

    check = "plugins"
    remedy = "install the distribution that has it, or name another; `anywire plugins` lists what is there"
    try:
        plugins.create("schedulers", config.scheduler.name, config.scheduler.options)
        plugins.create("selectors", config.selector.name, config.selector.options)
        gateways = [each.name for each in assembly.make_gateways(config, plugins)]
        services = [each.name for each in assembly.make_services(config, plugins)]
        assembly.make_launcher(config, plugins)
    except AnywireError as error:
        return Finding(check, False, str(error), remedy)
    names = f"scheduler {config.scheduler.name}, selector {config.selector.name}"
    names += f", gateways {', '.join(gateways) or 'none'}, launcher {config.launcher.name}"
    names += f", services {', '.join(services)}" if services else ""
    return Finding(check, True, names)


async def _transport(config: Config, plugins: Plugins, choice: PluginChoice) -> Finding:
    from anywire.cli import probe
    from anywire.config import replaced

    check = f"transport {choice.name}"
    try:
        # Apart from the running fleet where the transport offers that, so that no orchestrator links this agent.
        apart = plugins.load("transports", choice.name).free_options(choice.options)
        transport: Transport = plugins.create("transports", choice.name, {**choice.options, **apart})
        config = replaced(config, transports={choice.name: {**choice.options, **apart}})
    except AnywireError as error:
        return Finding(check, False, str(error), f"correct transports.{choice.name}, or install the plugin")
    try:
        detail = await probe.exchange(config, plugins, transport)
    except TimeoutError:
        detail = f"an agent and a hub on this machine did not find each other in {probe.DISCOVERY:.0f} s"
        remedy = _discovery_remedy(transport)
        if found := _found(transport):
            detail, remedy = f"{detail}: {_all(found, 0)}", _all(found, 1)
        return Finding(check, False, detail, remedy, settings=transport.effective_settings())
    except AnywireError as error:
        # Where orchestrators listen there is often one already, or it is another machine: then no hub opens here.
        if transport.capabilities.discovery == "directory" and (hub_id := await _seen(config, plugins, choice)):
            detail = f"an agent here is linked by the orchestrator {hub_id}; no other one can run here ({error})"
            return Finding(check, True, detail)
        return Finding(check, False, str(error), f"see the documentation of the transport {choice.name}")
    settings = transport.effective_settings()
    if found := _found(transport):
        return Finding(check, True, f"{detail}, but {_all(found, 0)}", _all(found, 1), True, settings)
    return Finding(check, True, detail, settings=settings)


def _found(transport: Transport) -> Sequence[tuple[str, str]]:
    from anywire.transport import HasFindings

    return transport.findings() if isinstance(transport, HasFindings) else ()


def _all(found: Sequence[tuple[str, str]], member: int) -> str:
    """What all findings say, each once: ``member`` 0 what is so, 1 what would do."""
    return "; ".join(dict.fromkeys(each[member] for each in found))


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
    where = f"over {choice.name}{probe.meeting_point(transport)}"
    try:
        hub_id = await probe.orchestrator_seen(transport, probe.agent_id("look"), config.lease.timeout, LOOK)
    except AnywireError as error:
        detail = f"whether an orchestrator is there {where} could not be seen: {error}"
        return Finding(check, True, detail, f"correct transports.{choice.name}", warns=True)
    if hub_id:
        return Finding(check, True, f"an orchestrator is seen {where} ({hub_id})")
    detail, remedy = f"no orchestrator is seen {where}", probe.meeting_remedy(transport)
    if found := _found(transport):
        detail, remedy = f"{detail}, and {_all(found, 0)}", _all(found, 1)
    return Finding(check, True, detail, remedy, warns=True)


async def _seen(config: Config, plugins: Plugins, choice: PluginChoice) -> str:
    """The orchestrator that links an agent here; empty when there is none, or no agent's end opens either."""
    from anywire.cli import probe

    try:
        transport: Transport = plugins.create("transports", choice.name, choice.options)
        return await probe.orchestrator_seen(transport, probe.agent_id("end"), config.lease.timeout, LOOK)
    except AnywireError:
        return ""


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


async def _engine(config: Config, plugins: Plugins) -> Finding:
    from anywire.roles import assembly

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
