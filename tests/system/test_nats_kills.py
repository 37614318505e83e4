"""The nats-server is killed, and the orchestrator: each event is in its stream once all the same."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.deliberation.process_fleet import Fleet
from tests.integration.anywire_processes import until_agents
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.jetstream.test_outbox import message
from tests.long_form import SOAK
from tests.patience import FACTOR
from tests.system.event_stream import Event, client, count, events, jetstream, twice

from anywire.clock import SystemClock
from anywire.testing.patience import expect, polled
from anywire_service_nats.broker import Broker
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.publishing import Publishing
from anywire_service_nats.streams import Streams

KILLS = 20 if SOAK else 3
LIVES = 10 if SOAK else 2
MANY = 100_000 if SOAK else 10_000
TASKS = 50
SUBJECT = "agent.response.completed"
PATIENT = 300 * FACTOR

pytestmark = [pytest.mark.timeout(1200 if SOAK else 240), needs_nats_server]


class Publisher:
    """The service's outbox, publishing and connection, without an orchestrator."""

    def __init__(self, outbox: Outbox, publishing: Publishing, broker: Broker) -> None:
        self.outbox, self.publishing, self.broker = outbox, publishing, broker

    async def all_published(self) -> None:
        await polled(lambda: not self.outbox.messages, "all is published", PATIENT)


@asynccontextmanager
async def publisher(folder: Path, server: NatsServer, **settings: Any) -> AsyncIterator[Publisher]:
    config = NatsServiceConfig(servers=[server.url], folder=folder, **settings)
    outbox = Outbox(folder, config.envelope, config.outbox_messages, config.outbox_bytes)
    broker = Broker(config)
    publishing = Publishing(outbox, broker, SystemClock(), lambda each: Streams(config, each), lambda *told: None)
    await outbox.open()
    await publishing.start()
    await broker.open()
    try:
        yield Publisher(outbox, publishing, broker)
    finally:
        await publishing.close()
        await broker.close()
        await outbox.close()


def some(number: int, times: int = 100) -> list[Outgoing]:
    """Of the ``number``-th lot: so many, in turn of each task."""
    return [message(f"{number}:{at}", f"t-{at % 7}", text="x" * 200) for at in range(times)]


def check(found: list[Event], wanted: list[Outgoing]) -> None:
    """Each is there once, those of a task in their order."""
    assert not twice(found)
    assert {each.id for each in found} == {each.envelope.id for each in wanted}
    of_task = {each.envelope.id: each.order for each in wanted}
    by_task: dict[str, list[str]] = defaultdict(list)
    expected: dict[str, list[str]] = defaultdict(list)
    for event in found:
        by_task[of_task[event.id]].append(event.id)
    for each in wanted:
        expected[each.order].append(each.envelope.id)
    assert by_task == expected


@pytest.mark.parametrize("window", [120.0, 0.1], ids=["window", "longer than the window"])
async def test_a_server_that_is_killed_has_each_event_once(tmp_path: Path, window: float) -> None:
    """Killed before, while and after they are published. Once it is away for longer than the stream knows a message
    again by its id: only whoever has sent it can know then."""
    drawn = random.Random(None if SOAK else 7)
    wanted: list[Outgoing] = []
    async with (
        jetstream(tmp_path) as server,
        publisher(tmp_path / "outbox", server, duplicate_window=window) as own,
    ):
        for number in range(KILLS):
            new = some(number, 400)
            wanted += new
            moment = ("before", "while", "after")[number % 3]
            if moment == "before":
                await server.stop()
            await own.outbox.put(new)
            if moment == "while":
                wait = len(wanted) - drawn.randrange(50, 400)
                await polled(lambda: sum(own.publishing.published.values()) >= wait, "some are published")  # noqa: B023
            elif moment == "after":
                await own.all_published()
            await server.stop()
            await asyncio.sleep(2 * min(window, 0.1))  # the ids that it knew are too old then
            await server.restart()
        await own.all_published()
        check(await events(server, SUBJECT, least=len(wanted)), wanted)
        assert sum(own.publishing.published.values()) == len(wanted)


@asynccontextmanager
async def losing(server: NatsServer, losses: int) -> AsyncIterator[str]:
    """The address of a wire to the server that ends ``losses`` times as soon as messages are acknowledged, and has let
    the messages through: their acknowledgements are lost."""
    left = losses
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        task.add_done_callback(tasks.discard)  # type: ignore[union-attr]
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def there() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)

        going = asyncio.create_task(there())
        nonlocal left
        try:
            while data := await up_reader.read(65536):
                if left and b'"seq":' in data and b'"stream":"AGENT_RESPONSES"' in data and b"PubAck" not in data:
                    left -= 1
                    return
                writer.write(data)
        except (asyncio.CancelledError, OSError):
            pass  # the end of the test
        finally:
            going.cancel()
            up_writer.close()
            writer.close()

    listening = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_acknowledgements_that_are_lost_for_longer_than_the_window_make_no_event_come_twice(
    tmp_path: Path,
) -> None:
    wanted = [each for number in range(5) for each in some(number)]
    async with jetstream(tmp_path) as server, losing(server, 5) as url:
        behind = type("Behind", (), {"url": url})()
        async with publisher(tmp_path / "outbox", behind, duplicate_window=0.1) as own:
            for number in range(5):
                await own.outbox.put(wanted[100 * number : 100 * (number + 1)])
                await own.all_published()
            assert own.publishing.found > 0, "acknowledgements were lost"
        check(await events(server, SUBJECT, least=len(wanted)), wanted)


async def test_an_orchestrator_that_is_killed_publishes_in_its_next_life_what_it_had(tmp_path: Path) -> None:
    """With the server away, or there; what ended and what goes on: each deliberation's messages come once."""
    drawn = random.Random(None if SOAK else 11)
    asked: dict[str, Any] = {"members": 2, "rounds": 1, "rubric": "answer"}
    async with jetstream(tmp_path) as server:
        services = {
            "deliberation": {"folder": str(tmp_path / "kept")},
            "nats": {"servers": [server.url], "folder": str(tmp_path / "outbox")},
        }
        fleet = Fleet(tmp_path, "zeromq", zeromq_options(), engine={"ttft": 20}, services=services)
        try:
            await fleet.begin("a1", "a2")
            await fleet.serve()
            names = []
            async with fleet.client() as http, fleet.http() as plain:
                for life in range(LIVES):
                    await until_agents(plain, "a1", "a2")
                    if life % 2 == 0:
                        await server.stop()
                    new = [f"q-{life}-{number}" for number in range(4)]
                    for name in new:
                        await http.submit("What is right?", id=name, **asked)
                    for name in new[: drawn.randrange(len(new))]:
                        await http.wait(name)
                    await asyncio.sleep(drawn.uniform(0, 0.1))
                    await fleet.kill_server()
                    if life % 2 == 0:
                        await server.restart()
                    await fleet.serve()
                    names += new
                for name in names:
                    assert (await http.wait(name)).status == "completed"
            found = await expect(events(server, "deliberation.completed", least=len(names)), "all are told", PATIENT)
            found += await events(server, "agent.response.>", least=2 * len(names))
            found += await events(server, "orchestration.>", least=2 * len(names))
        finally:
            await fleet.end()
    assert not twice(found)
    by_subject: dict[str, list[str]] = defaultdict(list)
    for each in found:
        by_subject[each.subject].append(each.payload["task_id"])
    for subject, times in {
        "deliberation.completed": 1,
        "orchestration.deliberation.completed": 1,
        "orchestration.task.dispatched": 1,
        SUBJECT: 2,
    }.items():
        assert sorted(by_subject[subject]) == sorted(names * times), subject


def zeromq_options() -> dict[str, Any]:
    from reserved import free_ports

    ports = [f"tcp://127.0.0.1:{port}" for port in free_ports(5)]
    return {"agent_addresses": ports[:3], "client_addresses": ports[3:]}


WRITER = """
import asyncio, re, sys
from pathlib import Path
from tests.system.test_nats_kills import publisher, task_event

def memory():
    # Not getrusage: its figure begins with what the parent process has.
    return re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]

async def main():
    url, folder, many = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    server = type("Server", (), {"url": url})()
    async with publisher(folder, server) as own:
        print("ready", memory(), flush=True)
        for number in range(0, many, 500):
            await own.outbox.put([task_event(number + at) for at in range(500)])
        print("put", memory(), flush=True)
        await own.all_published()
        print("published", memory(), flush=True)

asyncio.run(main())
"""
MEMORY_MIB = 60
"""What a process may take more while any number of events wait."""


def task_event(number: int) -> Outgoing:
    return message(f"{number}", f"t-{number % TASKS}", text="x" * 300, number=number)


@pytest.mark.parametrize("away", ["consumer", "server"])
async def test_many_events_take_no_memory_and_are_all_there_in_order(tmp_path: Path, away: str) -> None:
    async with jetstream(tmp_path) as server:
        if away == "server":
            await server.stop()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            server.url,
            str(tmp_path / "outbox"),
            str(MANY),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        memory: dict[str, float] = {}
        try:
            for word in ("ready", "put", "published"):
                line = (await expect(process.stdout.readline(), word, PATIENT)).decode()
                found = re.fullmatch(rf"{word} (\d+)\n", line)
                assert found, line
                memory[word] = int(found[1]) / 1024
                if word == "put" and away == "server":
                    await server.restart()
            await process.wait()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        print(f"{MANY} events, {away} away: {memory} MiB")
        assert memory["published"] - memory["ready"] < MEMORY_MIB, memory
        assert await count(server, "AGENT_RESPONSES") == MANY
        numbers: dict[str, list[int]] = defaultdict(list)
        async with client(server) as stream:
            reading = await stream.pull_subscribe(SUBJECT)
            got = 0
            while got < MANY:
                for each in await reading.fetch(1000, timeout=PATIENT):
                    text = each.headers["Nats-Msg-Id"]
                    numbers[f"t-{int(text) % TASKS}"].append(int(text))
                    got += 1
                    await each.ack()
        for task, found_numbers in numbers.items():
            assert found_numbers == sorted(found_numbers), task
            assert len(set(found_numbers)) == len(found_numbers) == MANY // TASKS
