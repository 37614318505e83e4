"""``anywire doctor``: whether what is configured can work on this machine, and what to do where it cannot."""

from __future__ import annotations

import errno
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anywire.cli import options
from anywire.cli.finding import Finding, show
from anywire.cli.settle import configured
from anywire.errors import AnywireError

if TYPE_CHECKING:
    from anywire.access_settings import TlsConfig
    from anywire.cli.asked_server import Server
    from anywire.config import Config
    from anywire.plugins import Plugins
    from anywire.roles.stop import Stop

ENGINE_START = 120.0
EXPIRES_SOON = 14
"""Days before its end from which a certificate is worth a warning."""
OLDEST_PYTHON = (3, 11)


@options.takes("host", "port", "ca", "cert", "fleet", "lan", "invite", "engine", "model", "transports", "dds_domain")
def doctor(
    given: options.Given,
    as_json: options.Json = False,
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Show what each transport has in force, such as the QoS granted.")
    ] = False,
) -> None:
    """Check what is configured on this machine. Looks at Python, the plugins, the keys of clients, the transports,
    orchestrators over them, the engine's model and the port."""
    from anywire.roles.stop import run

    config, plugins = given.joining(must=False, quiet=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Once())

    async def role(stop: Stop) -> list[Finding]:
        findings = []
        for check in _checks(config, plugins, given.known, given.known_key(config)):
            finding = await stop.unless(check())
            findings.append(finding)
            if not as_json:
                show(finding, show_settings)
        return findings

    findings = run(role)
    if findings is None:
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


class _Once(logging.Filter):
    """Passes each message once: several checks open the same transport."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in self._seen:
            return False
        self._seen.add(message)
        return True


def _checks(
    config: Config, plugins: Plugins, known: Callable[[Server], Server], key: str | None
) -> list[Callable[[], Awaitable[Finding]]]:
    from anywire.cli.doctor_transports import leaves_the_process, reaches_orchestrator, works_here

    checks: list[Callable[[], Awaitable[Finding]]] = [_python]
    checks.append(lambda: _pipeline(config, plugins))
    if config.access.keys is not None:
        checks.append(partial(_keys, config.access.keys))
    if config.access.keys is not None or config.access.jwt is not None:
        checks.append(lambda: _agents(config, plugins))
    for choice in config.transports:
        checks.append(partial(works_here, config, plugins, choice))
        if leaves_the_process(plugins, choice):
            checks.append(partial(reaches_orchestrator, config, plugins, choice, key))
    checks.append(lambda: _engine(config, plugins))
    if config.server.tls is not None:
        checks.append(partial(_certificate, config.server.tls))
    if config.server.host:
        checks.append(lambda: _port(config, known))
    return checks


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


async def _keys(path: Path) -> Finding:
    from anywire.keys.key_records import read_keys

    check = "keys"
    try:
        found = read_keys(path)
    except AnywireError as error:
        return Finding(check, False, str(error), "correct access.keys (--keys), or make a key: `anywire keys create`")
    now = time.time()
    active = sum(each.state(now) == "active" for each in found.values())
    return Finding(check, True, f"{path} has {active} keys that count, and {len(found) - active} that do no more")


async def _agents(config: Config, plugins: Plugins) -> Finding:
    from anywire.roles import assembly
    from anywire.roles.beyond_machine import ADMIT_AGENTS, open_to_agents

    check = "agents"
    try:
        told = open_to_agents(config, assembly.make_transports(config, plugins))
    except AnywireError as error:
        return Finding(check, False, str(error), "correct the section transports")
    if told:
        return Finding(check, True, told, ADMIT_AGENTS, warns=True)
    return Finding(check, True, "no stranger on another machine can join as an agent")


async def _engine(config: Config, plugins: Plugins) -> Finding:
    import asyncio

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


async def _certificate(tls: TlsConfig) -> Finding:
    from anywire.listening.certificates import days_left, names_in, read_certificates, server_context

    check = "certificate"
    try:
        server_context(tls)
        names, days = names_in(read_certificates(tls.certificate)[0]), days_left(tls.certificate)
    except AnywireError as error:
        return Finding(check, False, str(error), "correct server.tls")
    if not names:
        return Finding(check, False, f"{tls.certificate} names no host", "have one made with a subjectAltName")
    told = f"for {', '.join(names)}, {days:.0f} days left"
    remedy = "renew it: the new files are read while the server runs"
    return Finding(check, True, told, remedy, warns=days < EXPIRES_SOON)


async def _is_anywire(server: Server) -> bool:
    from anywire.cli import stream

    async with stream.client(server) as client:
        told: object = (await client.get("/health")).headers.get("server")
    return told == "anywire"


async def _port(config: Config, known: Callable[[Server], Server]) -> Finding:
    import asyncio

    from anywire.cli.meeting import runs_here
    from anywire.config import DEFAULT_PORT

    host, port, moves = config.server.host, config.server.port, config.server.port is None
    port = DEFAULT_PORT if port is None else port
    check = f"port {port}"
    try:
        listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            try:
                server = known(configured(config.server))
                # One of this user may ask for a certificate; any other is asked what nobody needs a key for.
                if runs_here(server.url) or await _is_anywire(server):
                    return Finding(check, True, f"an Anywire server runs on {server.url} already")
            except AnywireError:
                pass
            if moves:
                return Finding(check, True, f"another program uses {host}:{port}: a server takes one that is free")
            return Finding(check, False, f"another program uses {host}:{port}", "end it, or choose another with --port")
        return Finding(check, False, f"{host}:{port}: {error.strerror}", "choose an address of this machine (--host)")
    listening.close()
    await listening.wait_closed()
    return Finding(check, True, f"{host}:{port} is free")
