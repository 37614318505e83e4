"""The engine ``llama_dds`` against servers that know nothing of Anywire, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import openai
import pytest
from tests.integration.gateway_serving import MESSAGES, says, serving
from tests.integration.llama_processes import ClientProcess, ServerProcess, text
from tests.patience import PATIENCE

from anywire.engine import Delta, EngineProgress
from anywire.errors import ConfigError, EngineFailed, InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer
from anywire.plugins import Plugins
from anywire_engine_llama_dds import LlamaDdsEngine, LlamaDdsEngineConfig
from anywire_gateway_llama_dds import LlamaDdsGateway, LlamaDdsGatewayConfig

pytestmark = pytest.mark.timeout(90)

Start = Callable[..., Any]


@pytest.fixture
def domain(other_dds_domain: int) -> int:
    """Not that of the gateway: each would hear the other."""
    return other_dds_domain


@pytest.fixture
async def server(domain: int) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(name: str = "server-1", slots: int = 4, *times: float) -> ServerProcess:
            process: ServerProcess = await ServerProcess.start("server", domain, name, "llama-3", slots, *times)
            stack.push_async_callback(process.end)
            return process

        yield start


class Watched:
    def __init__(self, engine: LlamaDdsEngine) -> None:
        self.engine = engine
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[Any], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(self.engine.status()):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited for {what}; it is {self.engine.status()}") from None

    async def ready(self) -> None:
        await self.until(lambda status: status.state == "ready", "ready")

    async def run(self, what: str, **members: Any) -> list[Delta]:
        async with aclosing(self.engine.run(task(what, **members))) as deltas:
            return [delta async for delta in deltas if isinstance(delta, Delta)]


@asynccontextmanager
async def running(domain: int, **options: Any) -> AsyncIterator[Watched]:
    watched = Watched(LlamaDdsEngine(LlamaDdsEngineConfig(domain=domain, **options)))
    await watched.engine.start(watched.changed.set)
    try:
        yield watched
    finally:
        await watched.engine.close()


def task(what: str, *, stream: bool = True, kind: Kind = "chat", hub_id: str = "hub", **members: Any) -> TaskRequest:
    body = {"model": "llama-3", "messages": [{"role": "user", "content": what}], "stream": stream} | members
    return TaskRequest(hub_id, "t", 1, kind, "llama-3", json.dumps(body), stream)


async def test_the_plugin_is_found_by_name() -> None:
    assert Plugins().load("engines", "llama_dds") is LlamaDdsEngine


async def test_it_is_ready_when_a_server_comes_and_offers_what_that_has(domain: int, server: Start) -> None:
    async with running(domain) as watched:
        assert watched.engine.status().state == "starting"
        assert f"domain {domain}" in watched.engine.status().detail
        await server(slots=3)
        await watched.ready()
        # The wire has no place for tools, images, structured output and log probabilities.
        features = dict.fromkeys(("audio", "json", "logprobs", "tools", "vision"), False)
        assert watched.engine.status().offers == (Offer("llama-3", ("chat",), features),)
        assert watched.engine.status().slots == 3
        assert not watched.engine.resumable(task("say x"))


async def test_a_server_is_ready_only_when_its_responses_will_be_heard(domain: int, server: Start) -> None:
    """Its writer of responses comes later than its status; what it wrote before that was known would be lost."""
    async with running(domain) as watched:
        await server("server-1", 4, 0.1, 0.0, 1.0)
        await watched.until(lambda status: status.detail == "server-1 is not ready yet", "a server without a writer")
        await watched.ready()
        said = " ".join(f"{number}" for number in range(40))
        assert "".join(delta.text for delta in await watched.run(f"say {said}")) == said


async def test_a_task_for_a_server_without_a_free_slot_is_queued_there(domain: int, server: Start) -> None:
    process = await server(slots=1)
    async with running(domain) as watched:
        await watched.ready()
        hanging = asyncio.create_task(watched.run("hang"))
        await process.asked()
        second = watched.engine.run(task("say x"))
        progress = await anext(second)
        assert isinstance(progress, EngineProgress)
        assert progress.state == "queued"
        await second.aclose()
        hanging.cancel()
        await asyncio.wait({hanging})


async def test_answers_whole_and_streamed_are_the_servers(domain: int, server: Start) -> None:
    said = 'Grüße "x" 漢字 🙂 end'
    serving_process = await server()
    async with running(domain) as watched:
        await watched.ready()
        (whole,) = await watched.run(f"cut {said}", stream=False, temperature=0.5, max_tokens=9, top_p=0.9, stop="END")
        assert (whole.text, whole.finish_reason) == (said, "length")
        assert json.loads(whole.usage) == {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        deltas = await watched.run(f"say {said}")
        assert "".join(delta.text for delta in deltas) == said
        assert len(deltas) == 5
        assert deltas[-1].finish_reason == "stop"
    await serving_process.asked(2)
    first, second = serving_process.said
    assert first["request_id"] != second["request_id"]
    assert (first["max_tokens"], first["stop"], first["n"]) == (9, ["END"], [])
    assert first["top_p"] == [pytest.approx(0.9)]
    assert (first["stream"], second["stream"]) == (False, True)
    assert second["temperature"] == pytest.approx(0.8)
    assert second["max_tokens"] == 512


async def test_the_wire_gets_what_clients_write_in_their_own_way(domain: int, server: Start) -> None:
    """An earlier answer as the official client gives it back, and numbers that other clients write."""
    process = await server()
    earlier: dict[str, Any] = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": None,
        "annotations": [],
    }
    messages = [MESSAGES[0], earlier, {"role": "assistant", "content": []}, {"role": "user", "content": "say x"}]
    async with running(domain) as watched:
        await watched.ready()
        for number in (7.0, -1, -1.0):
            deltas = await watched.run("", messages=messages, max_tokens=number, n=1.0)
            assert "".join(delta.text for delta in deltas) == "x"
    await process.asked(3)
    assert [asked["max_tokens"] for asked in process.said] == [7, 512, 512]
    assert [each["content"] for each in process.said[0]["messages"]][1:] == ["", "", "say x"]


@pytest.mark.parametrize("pause", [0.0, 0.3])
async def test_many_at_once_all_come_to_a_server_that_keeps_eight(domain: int, server: Start, pause: float) -> None:
    """Also to one that is away from its reader for a while."""
    await server("server-1", 64, 0.0, pause)
    async with running(domain) as watched:
        await watched.ready()
        answers = await asyncio.gather(*(watched.run(f"say {number}", stream=False) for number in range(40)))
        assert [answer[0].text for answer in answers] == [str(number) for number in range(40)]


async def test_more_requests_than_a_server_keeps_are_written_as_it_tells_that_it_works_on_them(
    domain: int, server: Start
) -> None:
    process = await server(slots=20)
    async with running(domain, reader_pause=60) as watched:
        await watched.ready()
        hanging = [asyncio.create_task(watched.run("hang", stream=False)) for _ in range(20)]
        await process.asked(20)
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)


async def test_a_request_that_others_pushed_out_of_the_servers_reader_is_asked_again(
    domain: int, server: Start, caplog: Any
) -> None:
    process = await server("server-1", 64, 0.0, 0.5)
    client: ClientProcess = await ClientProcess.start("client", domain)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.end)
        watched = await stack.enter_async_context(running(domain))
        await watched.ready()
        await client.served()
        while not all(each.counts for each in watched.engine._servers):
            await watched.run("count 3 0.3")
        own: list[str] = []
        while "has lost" not in caplog.text:  # where the server looks in between, nothing is lost
            own.append(f"say {len(own)}")
            answer = asyncio.create_task(watched.run(own[-1], stream=False))
            await asyncio.sleep(0)  # it is written
            for number in range(10):
                client.ask(f"{own[-1]}, {number}", "say other")
            assert f"say {(await answer)[0].text}" == own[-1]
        read = [each["messages"][0]["content"] for each in process.said]
        assert [each for each in read if each in own] == own


async def test_a_request_that_is_lost_again_and_again_fails(
    domain: int, server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anywire_engine_llama_dds.asked.QUIET", 0.3)
    await server()
    async with running(domain, reader_pause=0) as watched:
        await watched.ready()
        while not all(each.counts for each in watched.engine._servers):
            await watched.run("count 3 0.3")
        monkeypatch.setattr(watched.engine._asked._flow.writer, "write", lambda sample: True)
        with pytest.raises(EngineFailed, match="lost this request 3 times"):
            await watched.run("say x")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"stop": ["a", "b"]}, "stop"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "name"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "tool_call_id"),
        ({"temperature": 3}, "temperature"),
    ],
)
async def test_what_the_wire_has_no_place_for_is_the_clients_error(
    domain: int, server: Start, members: dict[str, Any], said: str
) -> None:
    await server()
    async with running(domain) as watched:
        await watched.ready()
        with pytest.raises(InvalidRequest, match=said) as caught:
            await watched.run("say x", **members)
        assert caught.value.status == 400
        with pytest.raises(InvalidRequest, match="chat only"):
            await watched.run("say x", kind="completion")


async def test_what_says_nothing_or_is_text_in_parts_passes(domain: int, server: Start) -> None:
    process = await server()
    async with running(domain) as watched:
        await watched.ready()
        parts = [{"type": "text", "text": "say "}, {"type": "text", "text": "hello"}]
        (answer,) = await watched.run(
            "", stream=False, messages=[{"role": "user", "content": parts}], n=1, seed=None, tools=[], user="me",
            models=["llama-3", "other"], prompt_cache_key="c",
            presence_penalty=0, response_format={"type": "text"},
        )  # fmt: skip
        assert answer.text == "hello"
        await process.asked()
        assert process.said[0]["messages"] == [{"role": "user", "content": "say hello"}]


async def test_a_killed_server_ends_its_tasks_and_is_used_again_when_it_is_back(domain: int, server: Start) -> None:
    process = await server()
    async with running(domain) as watched:
        await watched.ready()
        hanging = asyncio.create_task(watched.run("hang"))
        await process.asked()
        await process.kill()
        with pytest.raises(EngineFailed, match="server-1 was lost"):
            await hanging
        assert watched.engine.status().state == "failed"
        assert [(each.model, each.state) for each in watched.engine.status().offers] == [("llama-3", "crashed")]
        with pytest.raises(EngineFailed, match="was lost"):
            await watched.run("say x")
        again = await server()
        await watched.ready()
        assert (await watched.run("say again", stream=False))[0].text == "again"
        await again.asked()
        assert [each["messages"][0]["content"] for each in again.said] == ["say again"]


async def test_a_server_that_tells_its_status_now_and_then_stays_ready(domain: int, server: Start) -> None:
    """As existing servers do: every few seconds, the first after the first of these, and on no change."""
    process = await server("llama-dds-server", 8, 3.0)
    async with running(domain) as watched:
        states: list[str] = []
        watched.engine._changed = lambda: (states.append(watched.engine.status().state), watched.changed.set())  # type: ignore[assignment,func-returns-value]
        await watched.ready()
        answers = await asyncio.gather(*(watched.run("count 36 0.1") for _ in range(8)))
        assert ["".join(delta.text for delta in each) for each in answers] == ["".join(f"{n} " for n in range(36))] * 8
        assert states == ["ready"]
        hanging = asyncio.create_task(watched.run("hang"))
        await process.asked(9)
        await process.kill()
        with pytest.raises(EngineFailed, match=r"llama-dds-server was lost: it (is not alive|has gone)"):
            await hanging


async def test_a_server_that_falls_silent_is_lost_but_not_while_it_answers(domain: int, server: Start) -> None:
    await server()
    async with running(domain) as watched:
        await watched.ready()
        while not all(each.gaps for each in watched.engine._servers):  # how long it is silent is not known before
            await watched.run("say x")
        hanging = asyncio.create_task(watched.run("hang"))
        await watched.run("mute x")
        count = 30
        deltas = await watched.run(f"count {count} 0.1")
        assert "".join(delta.text for delta in deltas) == "".join(f"{number} " for number in range(count))
        assert watched.engine.status().state == "ready"
        with pytest.raises(EngineFailed, match="no status and no answer came"):
            await hanging
        assert watched.engine.status().state == "failed"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[Error: the context is full]", "the server says: the context is full"),
        ("[DDS] Internal error: what", re.escape("the server says: [DDS] Internal error: what")),
        ("", "failed, and not why"),
        ("[Error: it: broke (a [b])]", re.escape("the server says it: broke (a [b])")),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_server_calls_an_error_is_one(
    domain: int, server: Start, said: str, told: str, stream: bool
) -> None:
    await server()
    async with running(domain) as watched:
        await watched.ready()
        with pytest.raises(EngineFailed, match=told):
            await watched.run(f"fail {said}", stream=stream)


async def test_an_error_of_the_server_is_one_for_clients_of_http(domain: int, server: Start) -> None:
    await server()
    async with serving(LlamaDdsEngine(LlamaDdsEngineConfig(domain=domain))) as served:
        await served.orchestrator.agents_until(lambda agents: agents[0].status.state == "ready")
        async with served.client() as client:
            failing: list[Any] = [{"role": "user", "content": "fail [Error: the context is full]"}]
            for stream in (True, False):
                with pytest.raises(openai.InternalServerError, match="the context is full"):
                    await client.chat.completions.create(model="llama-3", messages=failing, stream=stream)


async def test_a_character_in_two_responses_is_one(domain: int, server: Start) -> None:
    """Models give tokens that are part of a character, and servers pass them on."""
    await server()
    said = "a 漢字 🙂 é".encode()
    async with running(domain) as watched:
        await watched.ready()
        for cut in range(1, 4):
            pieces = [said[at : at + cut] for at in range(0, len(said), cut)]
            deltas = await watched.run("bytes " + " ".join(piece.hex() for piece in pieces))
            assert "".join(delta.text for delta in deltas) == said.decode()
        deltas = await watched.run("bytes 61ff 62 e282")
        assert "".join(delta.text for delta in deltas) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
        (whole,) = await watched.run("bytes 61ff", stream=False)
        assert whole.text == "a\N{REPLACEMENT CHARACTER}"


async def test_a_temperature_of_0_is_not_left_to_the_server(domain: int, server: Start) -> None:
    process = await server()
    async with running(domain) as watched:
        await watched.ready()
        await watched.run("say x", temperature=0)
        await process.asked()
        assert process.said[0]["temperature"] == pytest.approx(1e-4)


async def test_a_cancelled_task_keeps_its_slot_until_the_server_has_ended_it(domain: int, server: Start) -> None:
    process = await server(slots=2)
    async with running(domain) as watched:
        await watched.ready()
        deltas = watched.engine.run(task("count 40 0.05"))
        await anext(deltas)
        await process.asked()
        await deltas.aclose()
        assert watched.engine.status().slots == 1
        await watched.until(lambda status: status.slots == 2, "the slot")


async def test_of_two_servers_that_answer_one_is_heard(domain: int, server: Start, caplog: Any) -> None:
    first, second = await server("server-1"), await server("server-2")
    async with running(domain) as watched:
        await watched.ready()
        while not (first.said and second.said and "several servers are in this domain" in caplog.text):
            await watched.run("say x")
        for number in range(5):
            said = " ".join(f"{number}.{each}" for each in range(20))
            assert "".join(delta.text for delta in await watched.run(f"say {said}")) == said


async def test_the_server_named_is_the_one_used(domain: int, server: Start) -> None:
    await server("server-1")
    async with running(domain, server_id="server-2", model="small") as watched:
        second = await server("server-2", 7)
        await watched.ready()
        assert (watched.engine.status().slots, watched.engine.status().models) == (7, ("small",))
        await watched.run("say x")
        await second.asked()
        assert second.said[0]["model"] == "llama-3"


async def test_client_gateway_pipeline_engine_server(dds_domain: int, domain: int, server: Start) -> None:
    """The whole way, plain DDS at both ends."""
    await server()
    said = " ".join(f"{each} é" for each in range(200))
    engine = LlamaDdsEngine(LlamaDdsEngineConfig(domain=domain))
    client: ClientProcess = await ClientProcess.start("client", dds_domain)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.end)
        served = await stack.enter_async_context(serving(engine, slots=4))
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(domain=dds_domain, shutdown_grace=0.2, reader_pause=0.25))
        stack.push_async_callback(front.close)
        await front.start(served.context)
        await client.served()
        for number in range(8):
            client.ask(f"{number}", f"say {said}", model="llama-3", stream=bool(number % 2))
        for number in range(8):
            responses = await client.answer(f"{number}")
            assert text(responses) == said
            assert responses[-1]["prompt_tokens"] == 5


async def test_an_error_crosses_gateway_and_engine_as_one(domain: int) -> None:
    """Two pipelines, the engine of one asking the gateway of the other."""
    async with (
        serving(says("x", then=EngineFailed("it broke"))) as behind,
        serving(LlamaDdsEngine(LlamaDdsEngineConfig(domain=domain))) as served,
    ):
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(domain=domain, shutdown_grace=0.2))
        await front.start(behind.context)
        await served.orchestrator.agents_until(lambda agents: agents[0].status.state == "ready")
        async with served.client() as client:
            with pytest.raises(openai.APIStatusError, match="engine_failed: it broke"):
                await client.chat.completions.create(model="m", messages=MESSAGES)
        await front.close()


async def test_a_gateway_and_an_engine_in_one_circle_are_told(domain: int) -> None:
    async with serving(says("x")) as served:
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(domain=domain, shutdown_grace=0.2))
        await front.start(served.context)
        async with running(domain) as watched:
            await watched.ready()
            with pytest.raises(EngineFailed, match="different domains"):
                await watched.run("say x", hub_id=served.orchestrator.info.hub_id)
        await front.close()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        Plugins().create("engines", "llama_dds", {"temperature": 3})
