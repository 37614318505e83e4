"""A gateway process: its gateways, before a pipeline whose one agent is the orchestrator that has started it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from anywire.access import Access
from anywire.config import Config
from anywire.errors import AnywireError, ConfigError
from anywire.gateway import Gateway
from anywire.identity import hub_info
from anywire.pipeline.attempts.decide import Budget, Decision, Fail
from anywire.pipeline.health.health import Health
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline.tasks.task import Attempt, Task
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.client import MAX_WAITING, ClientConfig, FirstComeFirstSent, WithoutHooks
from anywire.roles.context import OrchestratorContext
from anywire.roles.stop import Stop
from anywire.roles.vouched_callers import vouched
from anywire.scheduler import SchedulerConfig
from anywire.submission import Submission
from anywire.task_stream import TaskStream

log = logging.getLogger(__name__)

MEETING = 30.0
"""Seconds in which the orchestrator must be there: it has started this process, and listens before that."""
ACCEPTED = 60.0
"""Seconds in which it must say that it has a task. No other one could do better."""


class GatewayContext(OrchestratorContext):
    """What the gateways here are given: tasks name their callers to the orchestrator, and what is no task is passed on
    to ``orchestrator_socket`` (`anywire.gateway.PassesOn`)."""

    def __init__(self, hub: Orchestrator, name: str, access: Access, orchestrator_socket: Path) -> None:
        super().__init__(hub, name, access=access)
        self._socket = orchestrator_socket

    @property
    def orchestrator_socket(self) -> Path:
        return self._socket

    def submit(self, submission: Submission, task_id: str = "", attempts: int = 0) -> TaskStream:
        return super().submit(vouched(submission), task_id, attempts)


def make_hub(config: Config, plugins: Plugins) -> Orchestrator:
    """The pipeline of a gateway process, not started: it holds nothing back and tries nothing again, since the
    orchestrator does both."""
    return Orchestrator(
        hub_info(lease=config.lease.timeout),
        assembly.make_transports(config, plugins),
        FirstComeFirstSent(SchedulerConfig(max_queue_size=MAX_WAITING)),
        plugins.create("selectors", "least_loaded", {}),
        config=_settings(config.pipeline),
        plugins=WithoutHooks(),  # those of the orchestrator see each task
        plane="client",
        decide=_never_again,
    )


def _never_again(task: Task, attempt: Attempt, error: AnywireError, health: Health, budget: Budget) -> Decision:
    """The orchestrator has tried what can be tried."""
    return Fail()


def _settings(asked: PipelineConfig) -> ClientConfig:
    return ClientConfig(
        max_attempts=1,
        accept_timeout=ACCEPTED,
        next_token_timeout=0,
        reader_timeout=asked.reader_timeout,
        window=asked.window,
        max_body_bytes=asked.max_body_bytes,
        early_refusal=False,
        resume=False,
        explained_tasks=0,
    )


async def work(config: Config, plugins: Plugins, stop: Stop, ready: Callable[[Sequence[Gateway]], None]) -> None:
    """Run the gateways of ``config`` until it is asked to stop. ``ready`` is called once they serve. Raises what keeps
    them from it."""
    socket = config.server.unix
    if socket is None:
        raise ConfigError("a gateway process is started by its orchestrator (server.gateway_processes)")
    hub, access = make_hub(config, plugins), assembly.make_access(config)
    gateways, started = assembly.make_gateways(config, plugins), list[Gateway]()
    stop_listening = access.listen(hub.end_caller)
    try:
        await stop.unless(access.start())
        await stop.unless(hub.start())
        await stop.unless(_met(hub))
        for gateway in gateways:
            started.append(gateway)
            await stop.unless(gateway.start(GatewayContext(hub, gateway.name, access, socket)))
        ready(gateways)
        await stop.wait()
    finally:
        await asyncio.gather(*(each.close() for each in started))
        stop_listening()
        await hub.close()
        await access.close()


async def _met(hub: Orchestrator) -> None:
    try:
        async with asyncio.timeout(MEETING):
            await hub.agents_until(bool)
    except TimeoutError as error:
        raise ConfigError(f"no orchestrator is there after {MEETING:g} s: it has ended, or is too busy") from error
