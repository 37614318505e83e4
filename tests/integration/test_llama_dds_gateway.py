"""The gateway ``llama_dds`` for clients that know nothing of Anywire, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from tests.integration.gateway_serving import ScriptedEngine, hangs, says, serving
from tests.integration.llama_processes import ClientProcess, text
from tests.patience import PATIENCE

from anywire.engine import Delta
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import TaskRequest
from anywire.offers import offers
from anywire.plugins import Plugins
from anywire_gateway_llama_dds import LlamaDdsGateway, LlamaDdsGatewayConfig

pytestmark = pytest.mark.timeout(90)

Start = Callable[..., Any]
USAGE = json.dumps({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})


@pytest.fixture
async def client(dds_domain: int) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(pause: float = 0.0) -> ClientProcess:
            process: ClientProcess = await ClientProcess.start("client", dds_domain, pause)
            stack.push_async_callback(process.end)
            return process

        yield start


@asynccontextmanager
async def gateway(domain: int, engine: ScriptedEngine, slots: int = 64, **options: Any) -> AsyncIterator[Any]:
    # A machine that is busy with other tests lets a client wait before it comes to its reader.
    options = {"shutdown_grace": 0.2, "reader_pause": 0.25} | options
    async with serving(engine, slots=slots) as served:
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(domain=domain, **options))
        await front.start(served.context)
        try:
            yield served
        finally:
            await front.close()


def counts(number: int) -> ScriptedEngine:
    """Says numbers, as fast as it may."""

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for each in range(number):
            yield Delta(f"{each} ")
            await asyncio.sleep(0)

    return ScriptedEngine(script)


def echoes() -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for piece in json.loads(task.body)["messages"][-1]["content"].split("|"):
            yield Delta(piece)
            await asyncio.sleep(0)

    return ScriptedEngine(script)


def counted(number: int) -> str:
    return "".join(f"{each} " for each in range(number))


def assert_in_form(responses: list[dict[str, Any]], *reasons: str) -> None:
    assert [each["is_final"] for each in responses] == [False] * (len(responses) - 1) + [True]
    assert all(each["finish_reason"] == "" for each in responses[:-1])
    assert responses[-1]["finish_reason"] in (reasons or ("stop", "length"))


async def test_the_plugin_is_found_by_name() -> None:
    assert Plugins().load("gateways", "llama_dds") is LlamaDdsGateway


async def test_a_whole_answer_has_the_text_the_reason_and_the_tokens(dds_domain: int, client: Start) -> None:
    said = 'Grüße\n\t"x" \\ 漢字 🙂 end'
    engine = says(said, Delta(" cut", finish_reason="length", usage=USAGE))
    async with gateway(dds_domain, engine):
        asking = await client()
        await asking.served()
        asking.ask("one")
        assert await asking.answer("one") == [
            {"request_id": "one", "model": "m", "content": said + " cut", "finish_reason": "length",
             "is_final": True, "prompt_tokens": 7, "completion_tokens": 3},
        ]  # fmt: skip
    body = json.loads(engine.bodies[0]) if engine.bodies else json.loads(engine.tasks[0].body)
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "say hello"}], "temperature": 0.7, "max_tokens": 64,
        "stream": False,
    }  # fmt: skip


async def test_optional_fields_travel_when_they_are_there(dds_domain: int, client: Start) -> None:
    engine = says("x")
    async with gateway(dds_domain, engine):
        asking = await client()
        await asking.served()
        asking.ask("one", top_p=[0.9], n=[1], stop=["END"], max_tokens=0)
        await asking.answer("one")
    body = json.loads(engine.tasks[0].body)
    assert (body["top_p"], body["stop"]) == (0.9, ["END"])
    assert "max_tokens" not in body


async def test_a_stream_comes_in_order_and_ends_with_its_final_response(dds_domain: int, client: Start) -> None:
    async with gateway(dds_domain, counts(300)):
        asking = await client()
        await asking.served()
        asking.ask("one", stream=True)
        responses = await asking.answer("one")
        assert_in_form(responses)
        assert len(responses) > 1
        assert text(responses) == counted(300)


async def test_many_clients_at_once_each_get_their_own_text(dds_domain: int, client: Start) -> None:
    async with gateway(dds_domain, echoes()):
        asking = [await client() for _ in range(3)]
        for one in asking:
            await one.served()
        wanted = {}
        for number, one in enumerate(asking):
            for each in range(4):
                said = "|".join(f"{number}.{each}.{piece} é" for piece in range(40))
                wanted[f"{number}-{each}"] = said.replace("|", "")
                one.ask(f"{number}-{each}", said, stream=bool(each % 2))
        for number, one in enumerate(asking):
            for each in range(4):
                responses = await one.answer(f"{number}-{each}")
                assert_in_form(responses)
                assert text(responses) == wanted[f"{number}-{each}"]


async def test_a_slow_reader_loses_nothing_of_a_long_fast_stream(dds_domain: int, client: Start) -> None:
    """It looks into its reader, which keeps 8 samples, now and then only, and so many more deltas come meanwhile."""
    async with gateway(dds_domain, counts(3000), chunk_interval=0):
        slow = await client(0.1)
        await slow.served()
        slow.ask("one", stream=True)
        slow.ask("two", stream=True)
        for each in ("one", "two"):
            responses = await slow.answer(each)
            assert_in_form(responses)
            assert text(responses) == counted(3000)


async def test_a_paused_client_loses_nothing_of_its_stream(dds_domain: int, client: Start) -> None:
    goes_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("begun ")
        await goes_on.wait()
        for each in range(500):
            yield Delta(f"{each} ")
            await asyncio.sleep(0.002)

    async with gateway(dds_domain, ScriptedEngine(script), ack_wait=0.2):
        asking = await client()
        await asking.served()
        asking.ask("one", stream=True)
        await asking.until(lambda: asking.responses["one"], "the first chunk")
        asking.process.send_signal(signal.SIGSTOP)
        goes_on.set()
        await asyncio.sleep(1.5)  # so long it stands still: there is nothing else to wait for
        asking.process.send_signal(signal.SIGCONT)
        responses = await asking.answer("one")
        assert_in_form(responses)
        assert text(responses) == "begun " + counted(500)


async def test_a_killed_client_holds_up_nobody_and_its_task_is_cancelled(dds_domain: int, client: Start) -> None:
    hanging = asyncio.Event()
    ended = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        if "hang" not in task.body:
            for each in range(100):
                yield Delta(f"{each} ")
                await asyncio.sleep(0.002)
            return
        yield Delta("begun")
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with gateway(dds_domain, ScriptedEngine(script), ack_wait=0.3):
        dying, living = await client(), await client()
        await dying.served()
        await living.served()
        dying.ask("lost", "hang", stream=True)
        await hanging.wait()
        await dying.until(lambda: dying.responses["lost"], "the first chunk")
        await dying.kill()
        for number in range(3):
            living.ask(f"more-{number}", "count", stream=True)
            assert text(await living.answer(f"more-{number}")) == counted(100)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_client_that_goes_cancels_what_it_asked(dds_domain: int, client: Start) -> None:
    engine = hangs("begun")
    async with gateway(dds_domain, engine):
        leaving = await client()
        await leaving.served()
        leaving.ask("one", stream=True)
        await leaving.until(lambda: leaving.responses["one"], "the first chunk")
        await leaving.end()
        await engine.cancelled.wait()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages must have at least 1 item"),
        ({"stop": ["x"] * 17}, "stop may have at most 16"),
        ({"model": "other", "stream": True}, "model_not_found: no agent serves the model 'other'"),
        ({"model": "other"}, "model_not_found: no agent serves the model 'other'"),
    ],
)
async def test_what_cannot_be_answered_ends_with_a_text_that_says_why(
    dds_domain: int, client: Start, fields: dict[str, Any], said: str
) -> None:
    async with gateway(dds_domain, says("x")):
        asking = await client()
        await asking.served()
        asking.ask("one", **fields)
        (response,) = await asking.answer("one")
        assert response["content"].startswith("[Error: ")
        assert response["content"].endswith("]")
        assert said in response["content"]
        assert (response["finish_reason"], response["prompt_tokens"], response["completion_tokens"]) == ("error", 0, 0)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"temperature": 0.0}, {}),
        ({"temperature": -1.0, "stream": True}, {}),
        ({"temperature": 2.5}, {"temperature": 2.0}),
        ({"temperature": 0.3, "top_p": [1.5]}, {"temperature": 0.3}),
        ({"temperature": 0.3, "top_p": [-0.5]}, {"temperature": 0.3}),
        ({"temperature": 0.3, "top_p": [0.5, 0.6]}, {"temperature": 0.3, "top_p": 0.5}),
        ({"temperature": 0, "n": [2]}, {}),
        ({"temperature": 0, "stop": ["", "END"]}, {"stop": ["END"]}),
        ({"temperature": 0, "messages": [{"role": "robot", "content": "x"}]},
         {"messages": [{"role": "robot", "content": "x"}]}),
    ],
)  # fmt: skip
async def test_what_is_out_of_range_means_the_servers_default_as_in_that_service(
    dds_domain: int, client: Start, fields: dict[str, Any], body: dict[str, Any]
) -> None:
    engine = says("x")
    async with gateway(dds_domain, engine):
        asking = await client()
        await asking.served()
        asking.ask("one", max_tokens=-1, **fields)
        assert (await asking.answer("one"))[-1]["finish_reason"] == "stop"
    plain = {
        "model": "m",
        "messages": [{"role": "user", "content": "say hello"}],
        "stream": fields.get("stream", False),
    }
    assert json.loads(engine.tasks[0].body) == plain | body


async def test_a_failure_amid_a_stream_ends_it_after_what_came_before(dds_domain: int, client: Start) -> None:
    async with gateway(dds_domain, says("some ", "text", then=EngineFailed("it broke"))):
        asking = await client()
        await asking.served()
        asking.ask("one", stream=True)
        responses = await asking.answer("one")
        assert_in_form(responses, "error")
        assert text(responses).startswith("some text\n[Error: engine_failed: it broke; the answer is not resumed: ")


async def test_beyond_its_bound_a_request_is_refused_with_an_answer(dds_domain: int, client: Start) -> None:
    engine = hangs("x")
    async with gateway(dds_domain, engine, max_in_flight=1):
        asking = await client()
        await asking.served()
        asking.ask("one", stream=True)
        await asking.until(lambda: asking.responses["one"], "the first chunk")
        asking.ask("two")
        assert "max_in_flight" in text(await asking.answer("two"))


async def test_a_request_is_answered_once_however_often_it_comes(dds_domain: int, client: Start) -> None:
    engine = says("x")
    async with gateway(dds_domain, engine):
        asking = await client()
        await asking.served()
        for each in ("one", "one", "two"):
            asking.ask(each)
        await asking.answer("two")
        assert len(engine.tasks) == 2
        assert len(asking.responses["one"]) == 1


async def test_a_gateway_that_comes_later_answers_what_waits_but_not_what_is_old(
    dds_domain: int, client: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    old, new = await client(), await client()
    old.ask("old", age=3600)
    await old.until(lambda: old.said, "its writing")
    new.ask("new")
    async with gateway(dds_domain, says("x"), max_age=600.0):
        await new.answer("new")
        old.ask("newer")
        await old.answer("newer")
        assert not old.responses["old"]
        assert re.search(r"'old' is 36\d\d s old and is not answered", caplog.text)


async def test_names_that_clients_use_stand_for_models_served(dds_domain: int, client: Start) -> None:
    engine = says("x")
    async with gateway(dds_domain, engine, models={"gpt-4": "m"}):
        asking = await client()
        await asking.served()
        asking.ask("one", model="gpt-4")
        asking.ask("two", model="")
        assert (await asking.answer("one"))[0]["model"] == "gpt-4"
        assert (await asking.answer("two"))[0]["model"] == "m"
        assert [task.model for task in engine.tasks] == ["m", "m"]


async def test_any_other_name_can_stand_for_a_model_too(dds_domain: int, client: Start) -> None:
    engine = says("x")
    engine.offers = offers("m", "n")
    async with gateway(dds_domain, engine, models={"*": "n", "default": ""}):
        asking = await client()
        await asking.served()
        for model in ("gpt-4", "m", "default", ""):
            asking.ask(model, model=model)
            assert (await asking.answer(model))[0]["finish_reason"] == "stop"
        assert [task.model for task in engine.tasks] == ["n", "m", "m", "m"]


async def test_a_final_that_others_pushed_out_of_a_reader_is_written_again(dds_domain: int, client: Start) -> None:
    """The slow client looks into its reader, which holds 8 samples, far more rarely than the gateway waits for it."""
    async with gateway(dds_domain, says("x"), reader_pause=0):
        slow, quick = await client(1.0), await client()
        await slow.served()
        await quick.served()
        slow.ask("slow")
        for number in range(60):
            quick.ask(f"{number}")
            await quick.answer(f"{number}")
        (response, *again) = await slow.answer("slow")
        assert all(each == response for each in again)
        assert response["content"] == "x"
        # Who asked again had read: nothing of it came twice.
        assert all(len(quick.responses[f"{number}"]) == 1 for number in range(59))


async def test_a_final_that_nothing_came_after_is_written_once(dds_domain: int, client: Start) -> None:
    async with gateway(dds_domain, says("x"), reader_pause=0):
        asking = await client()
        await asking.served()
        for number in range(4):
            asking.ask(f"{number}")
        for number in range(4):
            await asking.answer(f"{number}")
        asking.ask("last")
        await asking.answer("last")
        assert all(len(asking.responses[f"{number}"]) == 1 for number in range(4))


async def test_the_status_tells_slots_model_and_readiness(dds_domain: int, client: Start) -> None:
    engine = hangs("x")
    async with gateway(dds_domain, engine, slots=4, server_id="front", status_interval=0.1):
        asking = await client()
        await asking.served()
        assert asking.statuses[-1] == {
            "server_id": "front", "slots_idle": 4, "slots_processing": 0, "model_loaded": "m", "ready": True,
        }  # fmt: skip
        asking.ask("one", stream=True)
        await asking.until(lambda: asking.statuses[-1]["slots_processing"] == 1, "a busy slot")
        assert asking.statuses[-1]["slots_idle"] == 3
    await asking.until(lambda: not asking.statuses[-1]["ready"], "the last status")


async def test_closing_ends_what_runs_with_an_answer(dds_domain: int, client: Start) -> None:
    engine = hangs("begun")
    asking = await client()
    async with gateway(dds_domain, engine, shutdown_grace=5) as served:
        asking.ask("one", stream=True)
        await asking.until(lambda: asking.responses["one"], "the first chunk")
        closing = asyncio.create_task(served.orchestrator.close(0.1))
    await closing
    assert text(await asking.answer("one")).endswith("[Error: shutting_down: the orchestrator shuts down]")


@pytest.mark.parametrize("options", [{"status_interval": 2.5}, {"domain": 231}, {"reader_pause": -1}, {"what": 1}])
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Plugins().create("gateways", "llama_dds", options)
