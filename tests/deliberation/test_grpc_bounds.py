"""What the gateway ``grpc`` tells of its calls, and clients that are slow or want everything: they harm nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.deliberation.deliberation_bench import Council, bench, ended
from tests.deliberation.grpc_bench import LAB, ORCHESTRATOR, Client, channel_to, listening, question, serving

from anywire.metric import metric_fault
from anywire.testing.patience import PATIENCE, expect, polled
from anywire_gateway_grpc import GrpcGateway
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc.call_records import method_of
from anywire_gateway_grpc.serving import MOST_CALLS

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs have not got it


def numbers(gateway: GrpcGateway, name: str) -> dict[tuple[str, ...], float]:
    """What is told under this name, by its labels' values, those of ``code`` first."""
    told = list(gateway.metrics())
    assert [metric_fault(each) for each in told if metric_fault(each)] == []
    return {
        tuple(each.labels[label] for label in sorted(each.labels)): each.value for each in told if each.name == name
    }


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[dict[str, Any]]:
    found = [each for each in caplog.records if each.name == "anywire.request_log" and each.levelno == level]
    return [each.fields for each in found]  # type: ignore[attr-defined]


# What is told


async def test_a_call_that_asks_or_fails_leaves_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="anywire.request_log")
    async with serving(tmp_path) as (client, kept, _):
        await client.call("Deliberate", question())
        await ended(kept)
        await client.result()
        for asked in (question(rounds=-1), question(task_description="Sort.")):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.call("Deliberate", asked)
        bad = Client(client.channel, (("x-anywire-tenant", "x" * 200),))
        with pytest.raises(grpc.aio.AioRpcError):
            await bad.result()
        with pytest.raises(grpc.aio.AioRpcError):
            await client.raw(f"/{ORCHESTRATOR}/DeriveSubtasks")
    told = [(each["request"], each["status"], each.get("error"), each.get("request_id")) for each in lines(caplog)]
    asks = "gRPC OrchestratorService/Deliberate"
    assert told == [
        (asks, "OK", None, "q-1"),
        (asks, "INVALID_ARGUMENT", "invalid_request", None),
        (asks, "ALREADY_EXISTS", "invalid_request", None),
        ("gRPC OrchestratorService/GetDeliberationResult", "INVALID_ARGUMENT", "invalid_request", None),
        ("gRPC OrchestratorService/DeriveSubtasks", "UNIMPLEMENTED", None, None),
    ]
    quiet = [each["request"] for each in lines(caplog, logging.DEBUG)]
    assert quiet == ["gRPC OrchestratorService/GetDeliberationResult"]


async def test_who_is_refused_is_named_and_lines_can_be_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="anywire.request_log")
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine, max_running=1) as (served, _):
        for wanted in (True, False):
            async with listening(served, log_requests=wanted) as gateway, channel_to(gateway) as channel:
                await Client(channel).call("DeliberateForBacklogReview", question())
                with pytest.raises(grpc.aio.AioRpcError):
                    await Client(channel).call("DeliberateForBacklogReview", question("q-2"))
    (first, second) = lines(caplog)
    assert "client" not in first
    assert (second["status"], second["error"]) == ("RESOURCE_EXHAUSTED", "queue_full")
    assert second["client"].startswith("ipv4:127.0.0.1:")


async def test_calls_are_counted_by_method_and_status(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with serving(tmp_path, engine=engine) as (client, kept, gateway):
        stream = client.stream(question())
        await anext(aiter(stream))
        await engine.all_asked("critique", 6)
        assert numbers(gateway, "open_calls") == {("OrchestratorService/StreamDeliberation",): 1}
        await client.call("DeliberateForBacklogReview", question(), service="orchestrator.v1.OrchestratorService")
        with pytest.raises(grpc.aio.AioRpcError):
            await client.call("Deliberate", question(rounds=-1))
        stream.cancel()
        gone = ("CANCELLED", "OrchestratorService/StreamDeliberation")
        await polled(lambda: gone in numbers(gateway, "calls"), "the stream has ended")
        assert numbers(gateway, "calls") == {
            gone: 1,
            ("OK", "OrchestratorService/DeliberateForBacklogReview"): 1,
            ("INVALID_ARGUMENT", "OrchestratorService/Deliberate"): 1,
        }
        assert set(numbers(gateway, "open_calls").values()) == {0}
        assert all(seconds > 0 for seconds in numbers(gateway, "call_seconds").values())
        engine.release("critique")
        await ended(kept)


def test_a_method_is_named_without_its_package() -> None:
    assert method_of("/fleet.orchestrator.v1.OrchestratorService/GetStatus") == "OrchestratorService/GetStatus"
    assert method_of("/orchestrator.v1.OrchestratorService/GetStatus") == "OrchestratorService/GetStatus"
    assert method_of("Odd") == "Odd/"


# Clients that are slow, or want everything


SMALL = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))
"""A client that takes little more than it reads."""


class Verbose(Council):
    """Writes proposals that the window of such a client does not hold."""

    def _text(self, member: str, kind: str, does: str, body: str) -> str:
        text = super()._text(member, kind, does, body)
        return text if kind == "score" else text + " and so on" * 15_000


def unread(channel: grpc.aio.Channel, method: str, asked: Any) -> Any:
    """A call of which nothing is read."""
    call: Callable[..., Any] = channel.unary_stream(f"/{ORCHESTRATOR}/{method}", type(asked).SerializeToString, None)
    return call(asked, metadata=LAB)


@asynccontextmanager
async def slow(gateway: GrpcGateway) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(gateway, None, *SMALL) as channel:
        yield channel


@asynccontextmanager
async def another(gateway: GrpcGateway) -> AsyncIterator[Client]:
    """A client with a connection of its own."""
    async with channel_to(gateway) as channel:
        yield Client(channel)


async def test_who_does_not_read_is_waited_for_no_longer_and_others_get_in(tmp_path: Path) -> None:
    settings = {"max_calls": 2, "reader_timeout": 1.0}
    async with (
        serving(tmp_path, engine=Verbose(), gateway=settings) as (client, kept, gateway),
        slow(gateway) as channel,
    ):
        await client.call("DeliberateForBacklogReview", question())
        await ended(kept)
        calls = [
            unread(channel, "StreamDeliberation", question()),
            unread(channel, "GetDeliberationResult", wire.GetDeliberationResultRequest(task_id="q-1")),
        ]
        for method in ("StreamDeliberation", "GetDeliberationResult"):
            stalled = ("ABORTED", f"OrchestratorService/{method}")
            await polled(lambda stalled=stalled: stalled in numbers(gateway, "calls"), f"{method} has stalled")  # type: ignore[misc]
        async with another(gateway) as other:
            found = await expect(other.result(), "another one is answered")
            assert found.status == wire.DELIBERATION_STATUS_COMPLETED
            assert len(found.results[0].proposal.content) > 100_000
        for call in calls:
            call.cancel()


async def test_who_reads_slowly_gets_everything(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, engine=Verbose(), gateway={"reader_timeout": PATIENCE}) as (client, kept, gateway),
        slow(gateway) as channel,
    ):
        call, updates = Client(channel).stream(question()), 0
        while (await expect(call.read(), "an update")) is not EOF:
            updates += 1
            if updates % 10 == 0:
                await client.result()
        assert updates == len([each async for each in client.stream(question())])
        assert (await ended(kept)).status == "completed"


async def test_one_connection_that_asks_for_everything_leaves_room_for_another(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with serving(tmp_path, engine=engine) as (client, kept, gateway):
        await client.call("DeliberateForBacklogReview", question())
        greedy = [client.stream(question()) for _ in range(MOST_CALLS + 50)]
        name = ("OrchestratorService/StreamDeliberation",)
        await polled(lambda: numbers(gateway, "open_calls").get(name) == MOST_CALLS, "the connection is full")
        async with another(gateway) as other:
            assert (await expect(other.result(), "another one is answered")).status != wire.DELIBERATION_STATUS_UNKNOWN
        assert numbers(gateway, "open_calls")[name] == MOST_CALLS
        for call in greedy:
            call.cancel()
        await polled(lambda: numbers(gateway, "open_calls")[name] == 0, "all have ended")
        engine.release("proposal")
        assert (await ended(kept)).status == "completed"


async def test_a_client_that_stalls_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, engine=Verbose(), gateway={"reader_timeout": PATIENCE}) as (client, kept, gateway),
        slow(gateway) as channel,
    ):
        await client.call("DeliberateForBacklogReview", question())
        await ended(kept)
        call = unread(channel, "StreamDeliberation", question())
        name = ("OrchestratorService/StreamDeliberation",)
        await polled(lambda: numbers(gateway, "open_calls").get(name) == 1, "it is under way")
        await expect(gateway.close(), "it closes")
        call.cancel()


# Where they are told


async def test_metrics_of_a_gateway_stand_beside_those_of_services(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _, gateway), bench(tmp_path / "other") as (served, _):
        await client.result()
        served.host.gateways = (gateway,)
        told = {(plugin, each.name) for plugin, each in served.host.metrics()}
        assert {("grpc", "calls"), ("grpc", "call_seconds"), ("deliberation", "running_deliberations")} <= told


async def test_nothing_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    async with (
        serving(tmp_path, engine=Verbose(), gateway={"reader_timeout": 0.5}) as (client, kept, gateway),
        slow(gateway) as channel,
    ):
        await client.call("DeliberateForBacklogReview", question())
        await ended(kept)
        unread(channel, "StreamDeliberation", question())
        stalled = ("ABORTED", "OrchestratorService/StreamDeliberation")
        await polled(lambda: stalled in numbers(gateway, "calls"), "it has stalled")
    await polled(lambda: asyncio.all_tasks() - before == {asyncio.current_task()}, "every task has ended")
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []
