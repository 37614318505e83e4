"""Agents of the launcher ``ray`` when workers, nodes and the head of its cluster are killed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

from tests.integration.anywire_processes import Process
from tests.integration.fake_openai_server import FakeServer
from tests.integration.test_migration import undisturbed
from tests.patience import FACTOR, PATIENCE
from tests.system.own_network import own_network
from tests.system.ray_nodes import Nodes, nothing_left

from anywire.config import Config
from anywire.plugins import Plugins
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.orchestrator_role import Served
from anywire.roles.stop import Stop
from anywire.submission import Submission
from anywire.testing.patience import expect, polled
from anywire.testing.rig import read
from reserved import free_ports

pytestmark = pytest.mark.timeout(300)

STREAMS, LENGTH = 20, 60
ENGINE = {"itl": 50, "length": LENGTH}
HERE = "127.0.0.1"


@pytest.fixture
def folder() -> Iterator[Path]:
    """For what a test makes beside the cluster. Nothing at all is left of both, and where that is allowed they have a
    network of their own."""
    with own_network(), nothing_left() as made:
        yield made


@asynccontextmanager
async def fleet(launcher: dict[str, Any], **settings: Any) -> AsyncIterator[Served]:
    """An orchestrator in this process, whose agents the launcher ``ray`` has."""
    agents, clients = free_ports(2)
    config: dict[str, Any] = {
        "transports": {
            "zeromq": {"agent_addresses": [f"tcp://{HERE}:{agents}"], "client_addresses": [f"tcp://{HERE}:{clients}"]}
        },
        "gateways": [],
        "engine": {"name": "synthetic", **ENGINE},
        "agent": {"id": "a", "slots": 8},
        "launcher": {"name": "ray", "reach": HERE, **launcher},
        "lease": {"timeout": FACTOR, "heartbeat_interval": 0.2 * FACTOR},
        "pipeline": {"max_attempts": 10},
        "shutdown_grace": 1.0,
    }
    async with asyncio.timeout(4 * PATIENCE):
        async with running(Config.model_validate(config | settings), Plugins(), Stop()) as served:
            yield served


def begin(served: Served, number: int) -> Any:
    body = {"model": "synthetic", "messages": [{"role": "user", "content": f"prompt {number}"}]}
    return served.orchestrator.submit(Submission("chat", "synthetic", json.dumps(body), stream=True))


async def answered(stream: Any, number: int) -> None:
    """It is what it would have been undisturbed."""
    body = {"model": "synthetic", "messages": [{"role": "user", "content": f"prompt {number}"}]}
    expected, _, _ = await undisturbed(body, **ENGINE)
    assert await expect(read(stream), f"stream {number} ends", PATIENCE) == expected, number


async def begun(served: Served, streams: list[Any]) -> None:
    """Each of them runs at some agent."""
    places = {stream.task_id for stream in streams}

    async def wait() -> None:
        while {task.task_id for task in served.orchestrator.tasks() if task.chunks > 1} != places:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await expect(wait(), "each stream has begun", PATIENCE)


async def ready(served: Served, *wanted: str, but: dict[str, int] | None = None) -> dict[str, int]:
    """Wait for these agents, with other processes than in ``but``; the process of each."""
    earlier = but or {}

    def there(agents: Any) -> bool:
        found = {each.agent_id: each.info.pid for each in agents if each.status.state == "ready"}
        return found.keys() >= set(wanted) and not (found.items() & earlier.items())

    await expect(served.orchestrator.agents_until(there), f"{wanted} are ready", 2 * PATIENCE)
    return {each.agent_id: each.info.pid for each in served.orchestrator.agents()}


def on(node: Any, pids: dict[str, int]) -> dict[str, int]:
    """Those of the agents that run on a node."""
    roots = [psutil.Process(each.process.pid) for group in node.all_processes.values() for each in group]
    below = {each.pid for root in roots for each in root.children(recursive=True)}
    return {name: pid for name, pid in pids.items() if pid in below}


async def test_a_worker_and_then_a_node_are_killed_under_twenty_streams(folder: Path) -> None:
    nodes = Nodes(folder, cpus=4)
    try:
        second = nodes.add()
        names = [f"a-{number}" for number in range(1, 5)]
        launcher = {"address": nodes.address, "num_cpus": 1, "spread": True}
        async with fleet(launcher, agents=[{"count": 4}]) as served:
            pids = await ready(served, *names)
            there = on(second, pids)
            assert there, "both nodes have agents"
            assert on(nodes.head, pids), "both nodes have agents"

            streams = [begin(served, number) for number in range(STREAMS)]
            await begun(served, streams)
            name, pid = next(iter(on(nodes.head, pids).items()))
            agent = psutil.Process(pid)
            worker = agent.parent()
            assert worker is not None
            worker.kill()
            agent.kill()
            await asyncio.gather(*(answered(stream, number) for number, stream in enumerate(streams)))
            pids = await ready(served, *names, but={name: pid})

            there = on(second, pids)
            assert there
            streams = [begin(served, number) for number in range(STREAMS)]
            await begun(served, streams)
            nodes.kill(second)
            await asyncio.gather(*(answered(stream, number) for number, stream in enumerate(streams)))
            pids = await ready(served, *names, but=there)
            assert on(nodes.head, pids).keys() == set(names), "those of the lost node are back on the other one"
            await answered(begin(served, 1), 1)
    finally:
        nodes.close()


async def test_the_head_is_killed_and_the_orchestrator_serves_its_other_agents(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(folder, cpus=4)
    port = int(nodes.address.rpartition(":")[2])
    other: Process | None = None
    try:
        async with fleet({"address": nodes.address}, agents=[{"count": 2}]) as served:
            options = json.dumps(served.meeting_options(HERE)["zeromq"])
            given = [f"{name}={value}" for name, value in ENGINE.items()]
            settings = [part for each in given for part in ("--set", f"engine.{each}")]
            other = await Process.start(
                *("agent", "--agent-id", "other", "--slots", "32", "--engine", "synthetic", *settings),
                *("--set", f"transports={{zeromq: {options}}}"),
            )
            pids = await ready(served, "a-1", "a-2", "other")
            streams = [begin(served, number) for number in range(STREAMS)]
            await begun(served, streams)
            nodes.kill(nodes.head)
            await asyncio.gather(*(answered(stream, number) for number, stream in enumerate(streams)))
            lost = "the Ray cluster is lost with its agents"
            await polled(lambda: lost in caplog.text, "it says so", 2 * PATIENCE)
            await answered(begin(served, 1), 1)
            nodes.close()

            # It comes back at its address, and so do the agents.
            nodes = Nodes(folder, cpus=4, port=port)
            await ready(served, "a-1", "a-2", but={name: pids[name] for name in ("a-1", "a-2")})
    finally:
        if other is not None:
            await other.end(signal.SIGKILL)
        nodes.close()


@pytest.fixture
async def upstream(folder: Path) -> AsyncIterator[FakeServer]:
    """A server as vLLM is one, which answers once three of its requests are under way."""
    made = FakeServer()
    made.models = {"object": "list", "data": [{"id": "synthetic"}]}
    at_once, say_hello = asyncio.Barrier(3), made.handler

    async def handler(request: Any) -> Any:
        async with at_once:
            return await say_hello(request)

    made.handler = handler
    await made.up()
    yield made
    await made.down()


async def test_agents_on_demand_are_actors_that_end_when_idle(
    folder: Path, upstream: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = {"name": "openai", "base_url": upstream.url}
    on_demand = {"most": 2, "after": 0.3, "idle": 2 * FACTOR}
    async with fleet({}, engine=engine, agent={"id": "a", "slots": 1}, on_demand=on_demand) as served:
        await ready(served, "a-1")
        streams = [begin(served, number) for number in range(3)]
        pids = await ready(served, "a-1", "a-2", "a-3")
        texts = await asyncio.gather(*(expect(read(stream), "it is answered", PATIENCE) for stream in streams))
        assert len(set(texts)) == 1
        assert texts[0]
        assert served.orchestrator.stats()["tasks"]["ended"] == {"answered": 3}

        def one_is_left(agents: Any) -> bool:
            return {each.agent_id for each in agents} == {"a-1"}

        await expect(served.orchestrator.agents_until(one_is_left), "those on demand end", PATIENCE)
        gone = [psutil.Process(pid) for name, pid in pids.items() if name != "a-1" and psutil.pid_exists(pid)]
        assert not psutil.wait_procs(gone, PATIENCE)[1]
        assert psutil.pid_exists(pids["a-1"])
        warnings = [record for record in caplog.records if "Ray listens on all interfaces" in record.message]
        assert len(warnings) == 1
