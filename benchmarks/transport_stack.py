"""One transport's stack in processes of its own: options that disturb nobody, a pipeline, and a whole server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from pydantic.fields import FieldInfo

from anywire.identity import agent_info, hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.submission import Submission
from nats_server import nats_server, program
from patience import FACTOR
from reserved import dds_domain, free_port

IN_FLIGHT = 64
ANSWER, STREAM = 20, 64
"""Tokens of an answer that comes whole, and of a stream."""
PATIENCE = 30.0 * FACTOR
"""Seconds for anything that starts, joins or ends."""
LEASE = 10.0
"""Seconds: an agent which a busy machine holds up is not to be taken for dead."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """As the commands have it: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def submission(tokens: int, *, stream: bool = False) -> Submission:
    message = {"role": "user", "content": "x" * 300}
    body = {"model": "synthetic", "messages": [message], "max_tokens": tokens, "stream": stream}
    return Submission("chat", "synthetic", json.dumps(body), stream=stream)


@contextmanager
def options_of(transport: str) -> Iterator[dict[str, Any]]:
    """Options with which any installed transport disturbs nobody: a DDS domain, ports and a folder of its own, each
    where its ``Config`` has such a field, and a server for ``nats``. Everything else is left at its default."""
    fields: dict[str, FieldInfo] = Plugins().load("transports", transport).Config.model_fields
    options: dict[str, Any] = {}
    for name in {"agent_addresses", "client_addresses"} & set(fields):
        usual = str(fields[name].get_default(call_default_factory=True)[0])
        scheme = "".join(usual.rpartition("://")[:2])
        options[name] = [f"{scheme}127.0.0.1:{free_port()}"]
    with ExitStack() as stack:
        if "domain" in fields:
            options["domain"] = stack.enter_context(dds_domain())
        if "directory" in fields:
            options["directory"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="anywire-"))
        if transport == "nats" and program() is not None:
            options |= {"servers": stack.enter_context(nats_server()), "local": True}
        yield options


@asynccontextmanager
async def server(transport: str, options: dict[str, Any], *more: str) -> AsyncIterator[str]:
    """The URL of ``anywire up`` on a free port, after its one agent has joined; ``more`` are further options. Where the
    transport does not leave the process, the agent is inside of the server."""
    with configured(transport, options) as config:
        async with anywire_process("up", "--agents", "1", "--config", config, *more) as process:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            address = re.search(r"http://\S+", line)
            assert address, f"anywire up over {transport} said: {line!r}"
            yield address[0]


@asynccontextmanager
async def pipeline(
    transport: str, options: dict[str, Any], *, itl: float = 0.0, lease: float = LEASE
) -> AsyncIterator[Orchestrator]:
    """An orchestrator here with one agent of `IN_FLIGHT` slots, in its own process where the transport allows. ``itl``
    are the milliseconds between two tokens of its engine, ``lease`` the agent's, in seconds."""
    plugins = Plugins()
    orchestrator = Orchestrator(
        hub_info(),
        [plugins.create("transports", transport, options)],
        plugins.create("schedulers", "fifo", {}),
        plugins.create("selectors", "least_loaded", {}),
        plugins=plugins,
    )
    await orchestrator.start()
    try:
        async with _agent(transport, options, plugins, itl, lease):
            free = orchestrator.agents_until(lambda agents: any(each.free_slots > 0 for each in agents))
            await asyncio.wait_for(free, PATIENCE)
            yield orchestrator
    finally:
        await orchestrator.close()


@asynccontextmanager
async def _agent(
    transport: str, options: dict[str, Any], plugins: Plugins, itl: float, lease: float
) -> AsyncIterator[None]:
    if plugins.load("transports", transport).capabilities.inter_process:
        with configured(transport, options, itl, lease) as config:
            async with anywire_process("agent", "--config", config):
                yield
        return
    engine = plugins.create("engines", "synthetic", {"length": STREAM, "itl": itl})
    made = plugins.create("transports", transport, options)
    agent = Agent(agent_info(engine=engine, lease=lease), engine, [made], slots=IN_FLIGHT)
    await agent.start()
    try:
        yield
    finally:
        await agent.close()


@contextmanager
def configured(transport: str, options: dict[str, Any], itl: float = 0.0, lease: float = LEASE) -> Iterator[str]:
    """A file with the configuration of a server or an agent with the synthetic engine."""
    settings = {
        "server": {"port": 0},
        "transports": {transport: options},
        "engine": {"name": "synthetic", "length": STREAM, "itl": itl},
        "agent": {"slots": IN_FLIGHT},
        "lease": {"timeout": lease},
        "log_level": "warning",
    }
    with tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        path = Path(folder) / "anywire.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        yield str(path)


@asynccontextmanager
async def anywire_process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An ``anywire`` command that is gone afterwards, with all its children, whatever happens."""
    command = (sys.executable, "-m", "anywire.cli", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
    for left in psutil.wait_procs(children, timeout=0)[1]:
        left.kill()
