"""Deliberations asked over the client plane: followed, left, refused, below another orchestrator, through a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.deliberation.deliberation_bench import RUBRIC, Council, bench

from anywire import Client, errors
from anywire.access import Access
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.caller import OPERATOR, Limits
from anywire.deliberation_views import Whole
from anywire.identity import hub_info
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.client import ClientConfig
from anywire.roles.fleet import fleet_agent
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.patience import FACTOR, PATIENCE, expect, polled
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.transport import Plane, Transport
from anywire_nats.config import NatsConfig
from anywire_nats.transport import NatsTransport
from anywire_service_deliberation import answering
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.viewed import whole
from anywire_zeromq import ZeromqConfig, ZeromqTransport
from reserved import free_ports

WIRES = ("memory", "nats", "zeromq")


class Wire:
    """Makes transports that meet each other and nobody else."""

    def __init__(self, name: str = "memory", options_of: Callable[[str], dict[str, Any]] = lambda name: {}) -> None:
        self._name, self._network, self._ports = name, f"plane-{uuid4()}", free_ports(2)
        self._options = options_of(name)

    def __call__(self) -> Transport:
        if self._name == "memory":
            return MemoryTransport(MemoryConfig(network=self._network))
        if self._name == "nats":
            return NatsTransport(NatsConfig.model_validate(self._options))
        agents, clients = (f"tcp://127.0.0.1:{port}" for port in self._ports)
        return ZeromqTransport(ZeromqConfig(agent_addresses=[agents], client_addresses=[clients]))


@asynccontextmanager
async def joined(
    orchestrator: Orchestrator, wire: Wire, plane: Plane = "client", access: Access | None = None
) -> AsyncIterator[None]:
    """Let clients in over this wire, or join the orchestrator there."""
    agent = fleet_agent(orchestrator, [wire()], plane, access=access)
    try:
        await agent.start()
        yield
    finally:
        await agent.close()


async def ready(hub: Orchestrator) -> None:
    """Until an orchestrator that can answer is seen."""
    waiting = hub.agents_until(lambda agents: any(each.status.state == "ready" for each in agents))
    await expect(waiting, "an orchestrator is seen")


def client_of(wire: Wire, wait: float = PATIENCE, key: str = "") -> Client:
    return Client(wire(), config=ClientConfig(agent_wait=wait), key=key)


@asynccontextmanager
async def asking(
    folder: Path, wire: Wire | None = None, **settings: Any
) -> AsyncIterator[tuple[Client, KeptDeliberations]]:
    wire = wire or Wire()
    async with (
        bench(folder, **settings) as (served, kept),
        joined(served.orchestrator, wire),
        client_of(wire) as client,
    ):
        yield client, kept


async def state_of(kept: KeptDeliberations, name: str = "q-1") -> Deliberation:
    state = await expect(kept.get(name, OPERATOR, 60), "it has ended")
    assert state is not None
    assert state.is_final
    return state


def shown(state: Deliberation) -> Whole:
    return msgspec.json.decode(msgspec.json.encode(whole(state, "/v1/deliberations")), type=Whole)


# Asking


@pytest.mark.parametrize("name", WIRES)
async def test_who_awaits_it_gets_all_of_it(tmp_path: Path, name: str, options_of: Any) -> None:
    async with asking(tmp_path, Wire(name, options_of)) as (client, kept):
        result = await expect(client.deliberate("Reverse a list.", role="qa", rubric=RUBRIC), "the result")
        state = await state_of(kept, result.id)
        assert result == shown(state)
        assert (result.status, result.answer) == ("completed", state.answers[f"revision/1/{result.winner}"].text)
        assert {each.role for each in result.members} == {"QA"}


@pytest.mark.parametrize("name", WIRES)
async def test_who_enters_it_is_told_what_happens_and_then_all_of_it(
    tmp_path: Path, name: str, options_of: Any
) -> None:
    async with asking(tmp_path, Wire(name, options_of)) as (client, kept):
        seen = []
        async with client.deliberate("Reverse a list.", id="q-1", members=2, rubric=RUBRIC) as deliberation:
            assert deliberation.id == "q-1"
            assert await kept.get("q-1", OPERATOR) is not None, "it is stored"
            async for update in deliberation:
                seen.append(update)
                if update.name == "answered":
                    break
            seen += [update async for update in deliberation]
            result = await deliberation.result()
        assert seen == [update async for update in kept.updates("q-1", OPERATOR)]
        assert seen[-1].data["winner"] == result.winner
        again = await expect(client.deliberate("Reverse a list.", id="q-1", members=2, rubric=RUBRIC), "the same")
        assert again == result
        async with client.deliberate("Reverse a list.", id="q-1", members=2, rubric=RUBRIC) as ended:
            assert [update async for update in ended] == seen
        with pytest.raises(errors.InvalidRequest, match="something else"):
            await client.deliberate("Sort a list.", id="q-1")


async def test_a_large_result_comes_whole(tmp_path: Path) -> None:
    class Verbose(Council):
        def _text(self, member: str, kind: str, does: str, body: str) -> str:
            text = super()._text(member, kind, does, body)
            return text if kind == "score" else text + " ünd\n" * 20_000

    async with asking(tmp_path, Wire("zeromq"), engine=Verbose()) as (client, kept):
        result = await expect(client.deliberate("Reverse.", id="q-1", members=2, rubric=RUBRIC), "the result")
        assert result == shown(await state_of(kept))
        assert len(result.answer) > 100_000


async def test_one_without_a_winner_raises_nothing_and_says_why(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, number: "fail")
    async with asking(tmp_path, engine=engine) as (client, _):
        result = await expect(client.deliberate("Reverse a list.", members=2, rubric=RUBRIC), "the result")
        assert (result.status, result.winner, result.answer) == ("failed", "", "")
        assert "member-1: no proposal" in result.reason
        assert [each.code for each in result.missing] == ["engine_failed"] * 2


async def test_a_chat_may_name_an_id_and_ask_for_all_of_it(tmp_path: Path) -> None:
    async with asking(tmp_path) as (client, kept):
        options = {"id": "q-1", "answer": "whole", "members": 2, "rubric": RUBRIC}
        asked: Any = {"model": "deliberate:DEV", "messages": [{"role": "user", "content": "Why?"}]}
        answer = await expect(client.chat(**asked, deliberation=options, deadline=60), "the answer")
        state = await state_of(kept)
        told = msgspec.json.decode(answer["choices"][0]["message"]["content"], type=Whole)
        assert told == shown(state)
        assert answer["usage"]["total_tokens"] == told.cost.total_tokens
        assert await expect(client.chat(**asked, deliberation=options, deadline=50), "the same again")
        with pytest.raises(errors.InvalidRequest, match=r"deliberation\.answer is 'winner' or 'whole'"):
            await client.chat(**asked, deliberation={"answer": "all"})


# Leaving


async def test_who_leaves_when_nothing_has_happened_for_a_while_cancels_it_too(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with asking(tmp_path, engine=engine) as (client, kept):
        async with client.deliberate("Reverse a list.", id="q-1", members=3, rubric=RUBRIC) as deliberation:
            await engine.all_asked("proposal", 3)
            following = asyncio.ensure_future(deliberation.result())
            await asyncio.wait((following,), timeout=0.2 * FACTOR)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert (await state_of(kept)).status == "cancelled"


@pytest.mark.parametrize("way", ["the block", "the task"])
async def test_who_leaves_cancels_it(tmp_path: Path, way: str) -> None:
    engine = Council()
    engine.hold("critique")
    async with asking(tmp_path, engine=engine) as (client, kept):
        deliberation = client.deliberate("Reverse a list.", id="q-1", members=3, rubric=RUBRIC)
        if way == "the block":
            async with deliberation:
                await engine.all_asked("critique", 6)
        else:
            waiting = asyncio.ensure_future(_awaited(deliberation))
            await engine.all_asked("critique", 6)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await engine.recorder.until(lambda: len(engine.named("cancelled", "critique")) == 6, "all are stopped")
        assert (await state_of(kept)).status == "cancelled"
        with pytest.raises(errors.InvalidRequest, match="was left before its end"):
            await deliberation.result()


async def _awaited(deliberation: Any) -> Any:
    return await deliberation


async def test_a_client_that_is_closed_does_not_ask_again(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    wire = Wire()
    async with bench(tmp_path, engine=engine) as (served, kept), joined(served.orchestrator, wire):
        client = client_of(wire)
        await client.open()
        async with client.deliberate("Reverse a list.", id="q-1", rubric=RUBRIC) as deliberation:
            waiting = asyncio.ensure_future(deliberation.result())
            await engine.all_asked("proposal", 3)
            await client.close()
            with pytest.raises(errors.ShuttingDown, match="closed"):
                await expect(waiting, "it ends")
        assert (await state_of(kept)).status == "cancelled"


# Refusals


async def test_what_is_wrong_is_told_by_name(tmp_path: Path) -> None:
    async with asking(tmp_path) as (client, kept):
        for options, param, says in (
            ({"rounds": -1}, "rounds", "rounds"),
            ({"role": "CHEF"}, "role", "there is no role 'CHEF'; there are: .*DEV"),
            ({"rubric": "none"}, "rubric", "no rubric"),
            ({"roundz": 1}, "roundz", "did you mean 'rounds'"),
        ):
            asked: dict[str, Any] = options
            with pytest.raises(errors.InvalidRequest, match=says) as refused:
                await expect(client.deliberate("Why?", **asked), "it is refused")
            assert refused.value.param == param
        assert not await kept.list(OPERATOR)


async def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    wire = Wire()
    async with service_bench(state=tmp_path) as served, joined(served.orchestrator, wire), client_of(wire) as client:
        for role in ("", "DEV"):
            with pytest.raises(errors.ModelNotFound, match="configure the service deliberation"):
                await expect(client.deliberate("Why?", role=role), "it is refused")
    async with client_of(Wire(), 0.01) as client:
        with pytest.raises(errors.NoAgent, match="no orchestrator is seen"):
            await expect(client.deliberate("Why?"), "it is refused")


async def test_a_key_has_its_own_deliberations_and_what_it_may_use_of_them(tmp_path: Path) -> None:
    keys, first, second = tmp_path / "keys.json", new_key(), new_key()
    add_key(keys, record_of(first, tenant="lab", limits=Limits(concurrency=1)))
    add_key(keys, record_of(second, tenant="other", limits=Limits(models=("deliberate:DEV", MODEL))))
    access, wire = KeyAccess(keys), Wire("zeromq")
    async with (
        bench(tmp_path, access=access) as (served, kept),
        joined(served.orchestrator, wire, access=access),
        client_of(wire, key=str(first)) as ann,
        client_of(wire, key=str(second)) as bob,
    ):
        await expect(ann.deliberate("Why?", id="q-1", members=2, rubric=RUBRIC), "one with a limit of one task")
        await expect(bob.deliberate("How?", role="DEV", id="q-1", members=2, rubric=RUBRIC), "another's of that name")
        told = {state.question.task: state.question.caller.tenant for state in await kept.list(OPERATOR)}
        assert told == {"Why?": "lab", "How?": "other"}
        assert "deliberate:DEV" in await bob.models()
        assert "deliberate:QA" not in await bob.models()
        for role in ("", "QA"):
            with pytest.raises(errors.Forbidden):
                await expect(bob.deliberate("Who?", role=role, members=2, rubric=RUBRIC), "it is refused")


# A tree


@asynccontextmanager
async def above(served: ServiceBench, top: Wire, **settings: Any) -> AsyncIterator[Orchestrator]:
    """An orchestrator that the served one joins, with clients over ``top``. ``settings`` are its pipeline's."""
    between, config = Wire(), PipelineConfig(**settings)
    parent = Orchestrator(hub_info(), [between()], fifo(), least_loaded(), config=config, plugins=Plugins())
    try:
        await parent.start()
        async with joined(served.orchestrator, between, "agent"), joined(parent, top):
            await ready(parent)
            yield parent
    finally:
        await parent.close()


async def test_it_goes_down_a_tree_to_who_has_the_service(tmp_path: Path) -> None:
    top, engine = Wire(), Council()
    async with bench(tmp_path, engine=engine) as (served, kept), above(served, top), client_of(top) as client:
        assert {MODEL, "deliberate", "deliberate:DEV"} <= set(await client.models())
        result = await expect(client.deliberate("Why?", role="DEV", id="q-1", members=2, rubric=RUBRIC), "the result")
        assert result == shown(await state_of(kept))
        engine.hold("proposal")
        async with client.deliberate("Why not?", id="q-2", members=2, rubric=RUBRIC):
            await engine.all_asked("proposal", 4)
        assert (await state_of(kept, "q-2")).status == "cancelled"


async def test_members_are_asked_below_and_never_as_deliberations(tmp_path: Path) -> None:
    """The agent stands for an orchestrator below that has the service too."""
    engine = Council(models=(MODEL, "deliberate", "deliberate:DEV"))
    async with asking(tmp_path, engine=engine) as (client, _):
        result = await expect(client.deliberate("Why?", rubric=RUBRIC), "the result")
        assert {each.model for each in result.members} == {MODEL}


# Restarts


async def test_an_orchestrator_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    wire, first, second = Wire(), Council(), Council()
    first.hold("critique")
    async with client_of(wire, 0.05) as client:
        async with AsyncExitStack() as life:
            served, _ = await life.enter_async_context(bench(tmp_path, engine=first))
            await life.enter_async_context(joined(served.orchestrator, wire))
            life.callback(served.host.gate_closed)  # as at the end of a process: first
            await ready(client.hub)
            waiting = asyncio.ensure_future(_followed(client))
            await first.all_asked("critique", 6)
        async with bench(tmp_path, engine=second) as (served, kept), joined(served.orchestrator, wire):
            numbers, result = await expect(waiting, "the end")
            assert numbers == list(range(1, len(numbers) + 1))
            assert result == shown(await state_of(kept))
            assert result.status == "completed"
            assert not second.asked("proposal")


async def test_a_key_with_a_limit_of_one_task_is_waited_for_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anywire.roles.client_deliberations")
    keys, key, first, second = tmp_path / "keys.json", new_key(), Council(), Council()
    add_key(keys, record_of(key, tenant="lab", limits=Limits(concurrency=1)))
    access, wire = KeyAccess(keys), Wire("zeromq")
    first.hold("critique")
    second.hold("critique")
    async with client_of(wire, 0.05, str(key)) as client:
        async with AsyncExitStack() as life:
            served, _ = await life.enter_async_context(bench(tmp_path, engine=first, access=access))
            await life.enter_async_context(joined(served.orchestrator, wire, access=access))
            life.callback(served.host.gate_closed)
            await ready(client.hub)
            waiting = asyncio.ensure_future(_followed(client))
            await first.all_asked("critique", 6)
        async with (
            bench(tmp_path, engine=second, access=access) as (served, _),
            joined(served.orchestrator, wire, access=access),
        ):
            await second.all_asked("critique", 6)
            await polled(lambda: "concurrency" in caplog.text, "it is refused while the deliberation goes on")
            second.release("critique")
            numbers, result = await expect(waiting, "the end")
            assert numbers == list(range(1, len(numbers) + 1))
            assert result.status == "completed"


async def _followed(client: Client, role: str = "") -> tuple[list[int], Whole]:
    asked: Any = {"id": "q-1", "members": 3, "rubric": RUBRIC}
    async with client.deliberate("Reverse a list.", role=role, **asked) as deliberation:
        numbers = [update.number async for update in deliberation]
        return numbers, await deliberation.result()


async def test_an_orchestrator_that_stays_away_is_given_up(tmp_path: Path) -> None:
    wire, engine = Wire(), Council()
    engine.hold("proposal")
    async with client_of(wire, 0.01) as client:
        async with bench(tmp_path, engine=engine) as (served, _), joined(served.orchestrator, wire):
            await ready(client.hub)
            deliberation = client.deliberate("Why?", rubric=RUBRIC, patience=0.2)
            waiting = asyncio.ensure_future(_awaited(deliberation))
            await engine.all_asked("proposal", 3)
        with pytest.raises((errors.NoAgent, errors.AgentLost)):
            await expect(waiting, "it is given up")


async def test_one_without_the_service_that_is_seen_meanwhile_does_not_end_the_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anywire.roles.client_deliberations")
    wire, first = Wire(), Council()
    first.hold("critique")
    async with (
        service_bench(state=tmp_path / "other") as other,
        joined(other.orchestrator, wire),
        client_of(wire, 0.05) as client,
    ):
        async with AsyncExitStack() as life:
            served, _ = await life.enter_async_context(bench(tmp_path, engine=first))
            await life.enter_async_context(joined(served.orchestrator, wire))
            life.callback(served.host.gate_closed)
            await polled(lambda: "deliberate" in client.hub.models(), "the service is seen")
            waiting = asyncio.ensure_future(_followed(client, "dev"))
            await first.all_asked("critique", 6)
        await polled(lambda: waiting.done() or "has deliberations" in caplog.text, "only the other one is seen")
        async with bench(tmp_path) as (served, kept), joined(served.orchestrator, wire):
            _, result = await expect(waiting, "the end")
            assert result == shown(await state_of(kept))
            assert result.status == "completed"


# Time


async def test_one_that_names_no_time_has_the_services_and_not_that_of_tasks(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with asking(tmp_path, engine=engine, deadline=0.3 * FACTOR) as (client, _):
        waiting = asyncio.ensure_future(_followed(client))
        await engine.all_asked("proposal", 3)
        await asyncio.wait((waiting,), timeout=0.6 * FACTOR)
        assert not waiting.done()
        engine.release("proposal")
        assert (await expect(waiting, "the result"))[1].status == "completed"


@pytest.mark.parametrize("through", ["a client", "a tree"])
async def test_members_that_take_long_are_no_silent_orchestrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    monkeypatch.setattr(answering, "SILENCE_S", 0.05)
    top, engine = Wire(), Council()
    engine.hold("proposal")
    patient = ClientConfig(agent_wait=PATIENCE, next_token_timeout=10 if through == "a tree" else 0.5 * FACTOR)
    async with AsyncExitStack() as stack:
        served, kept = await stack.enter_async_context(bench(tmp_path, engine=engine))
        if through == "a tree":
            await stack.enter_async_context(above(served, top, next_token_timeout=0.5 * FACTOR))
        else:
            await stack.enter_async_context(joined(served.orchestrator, top))
        client = await stack.enter_async_context(Client(top(), config=patient, key=""))
        waiting = asyncio.ensure_future(_followed(client))
        await engine.all_asked("proposal", 3)
        # Three times as long as a silent one is waited for.
        await asyncio.wait((waiting,), timeout=1.5 * FACTOR)
        engine.release("proposal")
        _, result = await expect(waiting, "the result")
        assert result == shown(await state_of(kept))
        assert result.status == "completed"
