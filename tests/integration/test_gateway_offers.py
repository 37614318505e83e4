"""What the OpenAI gateway tells of offers and progress, with the real pipeline behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, get_args

import aiohttp
import openai
import pytest
from tests.integration.gateway_serving import MESSAGES, ScriptedEngine, Served, says, serving

from anywire.builtin.least_loaded import LeastLoaded
from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, SelectorConfig
from anywire.submission import Submission
from anywire_gateway_openai import request_headers
from anywire_gateway_openai.catalogue import CatalogueHandlers, _Offered

PROGRESS = {"x-anywire-progress": "true"}


async def get(served: Served, path: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(served.url + path) as response:
        return response.status, await response.json()


def talking(*steps: Delta | EngineProgress | str, then: Exception | None = None) -> ScriptedEngine:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        for step in steps:
            yield Delta(step) if isinstance(step, str) else step
        if then is not None:
            raise then

    return ScriptedEngine(script)


# Offers


async def test_models_tell_what_is_offered() -> None:
    engine = SyntheticEngine(SyntheticConfig())
    engine.offer(
        Offer("big", features={"tools": True, "vision": False}, context=8192, digest="d"),
        Offer("cold", state="stopped", on_demand=True),
        Offer("off", state="stopped", detail="asked to"),
    )
    async with serving(engine) as served:
        _, listed = await get(served, "/v1/models")
        models = {each.pop("id"): each for each in listed["data"]}
        assert list(models) == ["big", "cold", "off"]
        for each in models.values():
            assert (each.pop("object"), each.pop("owned_by"), each.pop("agents")) == ("model", "anywire", 1)
            assert each.pop("created") > 0
        assert models["big"] == {
            "state": "ready",
            "context_length": 8192,
            "max_model_len": 8192,
            "digest": "d",
            "kinds": list(get_args(Kind)),
            "features": {"tools": True, "vision": False},
            "on_demand": False,
        }
        unknown: dict[str, Any] = {
            "context_length": None,
            "max_model_len": None,
            "digest": None,
            "kinds": list(get_args(Kind)),
            "features": {},
        }
        assert models["cold"] == {"state": "stopped", "on_demand": True} | unknown
        assert models["off"] == {"state": "stopped", "on_demand": False} | unknown
        assert (await get(served, "/v1/models/cold"))[1]["state"] == "stopped"
        _, agents = await get(served, "/v1/agents")
        (agent,) = agents["data"]
        assert agent["models"] == ["big", "cold", "off"]
        assert agent["offers"][0]["digest"] == "d"
        assert agent["offers"][2] | {"state": "stopped", "detail": "asked to"} == agent["offers"][2]


def test_what_several_agents_offer_is_told_together() -> None:
    offered = [
        Offer("m", features={"tools": False, "vision": False}, state="crashed", context=10),
        Offer("m", features={"tools": True}, state="starting", context=20, owner="them"),
        Offer("m", features={"json": True, "tools": False, "vision": False}, state="stopped", on_demand=True),
    ]
    kinds = [("chat",), ("chat", "resume"), ("embedding",)]
    together = [_Offered(offer, each, True) for offer, each in zip(offered, kinds, strict=True)]
    told = CatalogueHandlers(None, None)._model("m", together)  # type: ignore[arg-type]
    assert (told["owned_by"], told["kinds"]) == ("them", ["chat", "embedding"])
    assert (told["state"], told["context_length"], told["on_demand"], told["agents"]) == ("starting", 20, True, 3)
    assert told["features"] == {"json": True, "tools": True, "vision": False}


async def test_an_agent_that_has_failed_offers_nothing() -> None:
    engine = says("x")
    engine.state = "failed"
    async with serving(engine) as served:
        assert (await get(served, "/v1/models"))[1]["data"] == []
        assert (await get(served, "/v1/models/m"))[0] == 404
        assert (await get(served, "/v1/agents"))[1]["data"][0]["models"] == ["m"]


async def test_a_stopped_model_is_a_conflict_and_not_tried_again() -> None:
    engine = SyntheticEngine(SyntheticConfig(models=["m", "off"]))
    engine.offer(Offer("m"), Offer("off", state="stopped"))
    async with serving(engine) as served, served.client() as client:
        with pytest.raises(openai.ConflictError, match="stopped") as caught:
            await client.chat.completions.create(model="off", messages=MESSAGES)
        assert caught.value.code == "model_stopped"
        assert caught.value.response.headers["x-should-retry"] == "false"


async def test_of_several_models_one_that_is_offered_answers_and_is_named() -> None:
    engine = says("x")
    async with serving(engine) as served, served.client() as client:
        create = client.chat.completions.create
        further = {"models": ["none", "m"]}
        assert (await create(model="other", messages=MESSAGES, extra_body=further)).model == "m"
        events = await create(model="other", messages=MESSAGES, extra_body=further, stream=True)
        assert {event.model async for event in events} == {"m"}
        assert [task.model for task in engine.tasks] == ["m", "m"]


async def test_a_priority_that_the_scheduler_ignores_is_said() -> None:
    async with serving(says("x")) as served, served.client() as client:
        create = client.chat.completions.with_raw_response.create
        raw = await create(model="m", messages=MESSAGES, extra_headers={"x-anywire-priority": "5"})
        assert raw.headers["x-anywire-ignored"] == "priority"
        assert "x-anywire-ignored" not in (await create(model="m", messages=MESSAGES)).headers


async def test_a_policy_that_the_selector_ignores_is_said() -> None:
    async with serving(says("x")) as served, served.client() as client:
        create = client.chat.completions.with_raw_response.create
        headers = {"x-anywire-policy": "fast", "x-anywire-priority": "5"}
        raw = await create(model="m", messages=MESSAGES, extra_headers=headers)
        assert raw.headers["x-anywire-ignored"] == "priority, policy"


async def test_a_policy_is_chosen_by_header_and_an_unknown_one_is_refused() -> None:
    asked: list[str] = []

    class Noting(LeastLoaded):
        policies = ("fast", "cached")

        def select(self, task: QueuedTask, candidates: Candidates) -> AgentView:
            asked.append(task.policy)
            return super().select(task, candidates)

    async with serving(says("x"), selector=Noting(SelectorConfig())) as served, served.client() as client:
        create = client.chat.completions.with_raw_response.create
        raw = await create(model="m", messages=MESSAGES, extra_headers={"x-anywire-policy": "fast"})
        assert "x-anywire-ignored" not in raw.headers
        await create(model="m", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match=r"no policy 'fst'; policies: fast, cached") as caught:
            await create(model="m", messages=MESSAGES, extra_headers={"x-anywire-policy": "fst"})
        assert caught.value.param == "policy"
        # One from another orchestrator, which knows the name, is not refused here.
        passed_on = Submission("chat", "m", '{"messages": []}', policy="fst", hops=1)
        stream = served.orchestrator.submit(passed_on)
        assert stream.ignored == ()
        stream.cancel("test")
    assert asked == ["fast", "", "fst"]


async def test_headers_reach_the_agent() -> None:
    engine = says("x")
    headers = {
        "x-anywire-session": "talk",
        "x-anywire-hints": "urgency=0.5",
        "x-anywire-policy": "cheap",
        "x-anywire-prefer": "agent-1",
        "x-anywire-attempts": "2",
    }
    async with serving(engine) as served, served.client() as client:
        await client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=headers)
        (task,) = engine.tasks
        assert (task.session, task.policy, task.prefer, task.attempts_left) == ("talk", "cheap", ("agent-1",), 2)
        assert json.loads(task.hints) == {"urgency": 0.5}


# Progress


async def events(served: Served, headers: dict[str, str], **fields: Any) -> tuple[int, list[str]]:
    body = {"model": "m", "messages": MESSAGES, "stream": True} | fields
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        return response.status, (await response.text()).split("\n\n")


async def test_progress_is_told_in_comments_to_those_who_ask() -> None:
    loading = EngineProgress("loading", "50 %\n\ndata: {}\u2028\r")
    async with serving(talking(EngineProgress("queued"), loading, EngineProgress("running"), "Hel", "lo")) as served:
        _, told = await events(served, PROGRESS)
        assert told[:3] == [": progress queued", ": progress loading 50 %  data: {}", ": progress running"]
        _, plain = await events(served, {})
        assert not any("progress" in each for each in plain)

    def texts(lines: list[str]) -> list[str]:
        chunks = [json.loads(each[6:]) for each in lines if each.startswith("data: {")]
        return [chunk["choices"][0]["delta"].get("content") for chunk in chunks]

    assert texts(told) == texts(plain)
    assert "".join(filter(None, texts(told))) == "Hello"


async def test_the_official_client_passes_over_progress() -> None:
    engine = talking(EngineProgress("loading", "m"), "Hel", EngineProgress("tool", "search"), "lo")
    async with serving(engine) as served, served.client() as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_headers=PROGRESS)
        assert "".join([event.choices[0].delta.content or "" async for event in stream]) == "Hello"


async def test_progress_comes_while_the_answer_is_waited_for() -> None:
    go_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield EngineProgress("loading", "m")
        await go_on.wait()
        yield Delta("x")

    async with serving(ScriptedEngine(script)) as served, aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": MESSAGES, "stream": True}
        async with session.post(f"{served.url}/v1/chat/completions", json=body, headers=PROGRESS) as response:
            assert await response.content.readline() == b": progress loading m\n"
            go_on.set()
            assert b"[DONE]" in await response.read()


async def test_an_error_before_any_progress_has_a_status_of_its_own_and_after_it_is_an_event() -> None:
    async with serving(talking(then=EngineFailed("no memory"))) as served:
        assert (await events(served, PROGRESS))[0] == 502
    async with serving(talking(EngineProgress("loading"), then=EngineFailed("no memory"))) as served:
        status, told = await events(served, PROGRESS)
        assert (status, told[0]) == (200, ": progress loading")
        assert json.loads(told[1].removeprefix("data: "))["error"]["code"] == "engine_failed"


async def test_a_client_that_leaves_while_it_hears_of_progress_cancels_its_task() -> None:
    async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        yield EngineProgress("loading", "m")
        await asyncio.Event().wait()
        yield Delta("x")

    engine = ScriptedEngine(script)
    async with serving(engine) as served, aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": MESSAGES, "stream": True}
        async with session.post(f"{served.url}/v1/chat/completions", json=body, headers=PROGRESS) as response:
            await response.content.readline()
        await engine.cancelled.wait()


def test_the_tables_of_headers_are_complete() -> None:
    readme = (Path(__file__).parents[2] / "plugins/gateways/openai/README.md").read_text()
    for name, _, _ in request_headers._READERS:
        assert f"``{name}``" in str(request_headers.__doc__)
        assert f"`{name}`" in readme
