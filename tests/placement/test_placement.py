"""Placement beside an orchestrator: what is wanted is loaded, moved and unloaded, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.placement.model_agent import ModelAgent
from tests.placement.placement_bench import QUICK, Fleet, fleet

from anywire import errors
from anywire.submission import Submission
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_placement.config import PlacementConfig
from anywire_service_placement.keeper import TOGETHER
from anywire_service_placement.service import Placement
from anywire_service_placement.wanted_file import FILE

SIZES = dict.fromkeys("abcde", 1)


class TestPlacement(ServiceConformance):
    service = "placement"
    options = {"models": {"scripted": {"replicas": 1}}, "absence": 0}  # noqa: RUF012


def asked(model: str, tokens: int = 3, **more: Any) -> Submission:
    return Submission("chat", model, json.dumps({"model": model, "max_tokens": tokens, **more}))


async def answer(found: Fleet, model: str, **more: Any) -> str:
    stream = found.bench.orchestrator.submit(asked(model, **more))
    texts: list[str] = []
    while (chunk := await expect(anext(stream, None), f"an answer of {model}")) is not None:
        texts += chunk.deltas
    return "".join(texts)


async def test_five_models_are_spread_over_three_agents_and_restored_when_one_is_lost(tmp_path: Path) -> None:
    wanted = {model: {"replicas": 1 + (model in "ab")} for model in SIZES}
    async with fleet(tmp_path, wanted) as found:
        for number in range(3):
            await found.join(f"a{number}", models=SIZES, budget=4)
        full = {model: each["replicas"] for model, each in wanted.items()}
        await found.loaded(**full)
        assert [len(engine.log) for engine in found.engines.values()] == [3, 2, 2], "evenly"
        assert len(set(found.where("a"))) == len(set(found.where("b"))) == 2
        await found.leave("a1")
        await found.loaded(**full)
        assert sum(len(engine.log) for engine in found.engines.values()) == 7, (
            "the two that were lost were loaded, and no other"
        )
        report = await found.report()
        assert [each["missing"] for each in report["models"]] == [0] * 5
        assert report["swap_cost"]["loads"] == 9
        assert report["swap_cost"]["models"]["a"]["mean_s"] >= 0.02
        assert {each["agent_id"]: each["budget_bytes"] for each in report["agents"]} == {"a0": 4, "a2": 4}


async def test_requests_wait_for_the_only_replica_to_be_restored(tmp_path: Path) -> None:
    """Those that had not begun at the lost agent, and those that come while nobody serves the model."""
    async with fleet(tmp_path, {"a": {}}, absence=0.5) as found:
        first = await found.join("a1", models={"a": 1}, loaded=["a"], slots=1)
        await found.join("a2", models={"a": 1})
        held = asyncio.create_task(answer(found, "a", user="hold"))
        await polled(lambda: first.models["a"].serving, "the first request is at the agent")
        behind = asyncio.create_task(answer(found, "a"))
        await asyncio.sleep(0)
        found.engines["a2"].hold.set()
        await found.leave("a1")
        late = asyncio.create_task(answer(found, "a"))
        assert [*await asyncio.gather(held, behind, late)] == ["0 1 2 "] * 3
        assert found.where("a") == ["a2"]


async def test_what_cannot_be_restored_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}}, agent_wait=0.1, retry_min=30, retry_max=30) as found:
        await found.join("a1", models={"a": 1}, fails=["a"])
        await found.events.until(lambda: found.events.named("model.unmet"), "it is unmet")
        with pytest.raises(errors.NoAgent):
            await answer(found, "a")
        (event,) = found.events.named("load.failed")
        assert event[1]["error"] == "a did not start"
        told = (await found.report())["models"][0]
        assert (told["crashed"], told["missing"], told["why"]) == (["a1"], 1, "a1 is tried again later")
        found.engines["a1"].fails.clear()
        assert (await found.put(a={"replicas": 1}))["object"] == "placement"
        await found.loaded(a=1)
        await found.events.until(lambda: found.events.named("model.met"), "it is met")


async def test_a_short_break_moves_nothing_and_a_longer_one_does(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}}, absence=2.0) as found:
        await found.join("a1", models={"a": 1}, loaded=["a"])
        await found.join("a2", models={"a": 1})
        await polled(lambda: found.engines["a2"].listed, "the agents are known")
        await found.leave("a1")
        await asyncio.sleep(6 * TOGETHER)  # the fleet is looked at meanwhile, and nothing is to come of it
        again = await found.join("a1", models={"a": 1}, loaded=["a"])
        await polled(lambda: again.listed, "it is known again")
        assert found.where("a") == ["a1"]
        assert not found.engines["a2"].log
        await found.leave("a1")
        await found.loaded(a=1)
        assert found.where("a") == ["a2"]


async def test_what_serves_is_never_unloaded(tmp_path: Path) -> None:
    """The model that nobody wants gives way once it is idle, whatever the listing said."""
    async with fleet(tmp_path, {}) as found:
        engine = await found.join("a1", models={"a": 2, "c": 2}, budget=3, loaded=["c"])
        serving = asyncio.create_task(answer(found, "c", user="hold"))
        await polled(lambda: engine.models["c"].serving, "c serves")
        await found.put(a={"replicas": 1})
        await found.events.until(lambda: found.events.named("model.unmet"), "there is no room")
        assert found.where("c") == ["a1"]
        engine.hold.set()
        assert await serving == "0 1 2 "
        await found.put(a={"replicas": 1})
        await found.loaded(a=1, c=0)
        assert engine.log == [("unload", "c"), ("start", "a")]


async def test_pinned_models_and_groups_are_kept(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}, "b": {}}) as found:
        await found.join("a1", models={"a": 1, "p": 2}, budget=2, loaded=["p"], pinned=["p"])
        await found.join("a2", models={"a": 1, "b": 1, "c": 1}, groups={"a": "g", "b": "h"})
        await found.loaded(a=1, p=1, b=0)
        await found.events.until(lambda: found.events.named("model.unmet"), "b is unmet")
        why = (await found.report())["models"][1]["why"]
        assert why == "a2 has models of another group loaded that are wanted or in use"


async def test_fewer_are_unloaded_after_a_while_and_the_file_outlives_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    configured = {"a": {"replicas": 2}}
    async with fleet(tmp_path, configured) as found:
        for number in range(3):
            await found.join(f"a{number}", models=SIZES)
        await found.loaded(a=2)
        await found.put(a={"replicas": 1}, b={"replicas": 3, "agents": ["a1"]})
        await found.loaded(a=1, b=1)
        assert found.where("b") == ["a1"]
        told = {each["model"]: each for each in (await found.report())["models"]}
        assert told["b"]["agents"] == ["a1"]
        assert "why" in told["b"]
    kept = tmp_path / "placement" / FILE
    assert "asked for last counts" not in caplog.text
    async with fleet(tmp_path, configured) as found:
        assert f"what PUT /v1/placement asked for last counts, not the configuration: {kept}" in caplog.text
        assert [(each["model"], each["replicas"]) for each in (await found.report())["models"]] == [("a", 1), ("b", 3)]
    async with fleet(tmp_path, {"a": {"replicas": 3}}) as found:
        assert [(each["model"], each["replicas"]) for each in (await found.report())["models"]] == [("a", 3)]
    kept.write_text("{")
    async with fleet(tmp_path, configured) as found:
        assert [(each["model"], each["replicas"]) for each in (await found.report())["models"]] == [("a", 2)]


async def test_a_model_that_moves_to_other_agents_answers_until_it_is_loaded_there(tmp_path: Path) -> None:
    async with fleet(tmp_path, {}, settle=0.05) as found:
        await found.join("a1", models={"a": 1}, loaded=["a"])
        await found.join("a2", models={"a": 1}, loading=0.6)
        await found.put(a={"replicas": 1, "agents": ["a2"]})
        await found.events.until(lambda: found.events.named("unload.done"), "the first one is unloaded")
        told = [name for name, _ in found.events.events if name in ("load.done", "unload.begun")]
        assert told == ["load.done", "unload.begun"]
        assert found.where("a") == ["a2"]


async def test_an_agent_out_of_service_does_not_count(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}}) as found:
        await found.join("a1", models={"a": 1}, loaded=["a"])
        await found.join("a2", models={"a": 1})
        await polled(lambda: found.engines["a2"].listed, "the agents are known")
        found.bench.orchestrator.order_agent("a1", "drained")
        await found.loaded(a=2)
        found.bench.orchestrator.order_agent("a1", "")
        await found.loaded(a=1)


async def test_a_model_that_crashes_again_and_again_is_started_more_and_more_seldom(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}}, absence=0.1, retry_min=0.3, retry_max=10) as found:
        engine = await found.join("a1", models={"a": 1}, loading=0.0)
        began = asyncio.get_running_loop().time()
        for number in range(1, 4):
            await found.loaded(a=1)
            assert len(engine.log) == number
            engine.crash("a")
        took = asyncio.get_running_loop().time() - began
        assert took >= 0.3 + 0.6


async def test_agents_without_the_commands_are_left_alone_and_count(tmp_path: Path) -> None:
    """The bench's own agent has another engine, which has the model ready and knows no command for it."""
    async with fleet(tmp_path, {"scripted": {"replicas": 2}}) as found:
        await found.events.until(lambda: found.events.named("model.unmet"), "there is no second place")
        told = await found.report()
        assert told["models"][0]["loaded"] == ["agent"]
        assert told["agents"][0]["why_not"].startswith("the scripted engine has no command")
        assert told["models"][0]["why"] == "all 1 agents that have it have loaded it, or load it"


class Liar(ModelAgent):
    """Lists nonsense."""

    name = "liar"
    said: Any = None

    async def command(self, name: str, arguments: Any) -> Any:
        self.listed += 1
        yield self.said


@pytest.mark.parametrize(
    "said",
    [
        None,
        "text",
        {"models": 3},
        {"models": [{"state": "running"}]},
        {"models": [{"model": "a", "memory_bytes": "much"}]},
        {"models": [{"model": "a", "state": "dancing", "memory_bytes": -5}], "memory": {"budget_bytes": -1}},
        {"models": [{"model": f"m{number}"} for number in range(2000)]},
    ],
)
async def test_an_agent_that_talks_nonsense_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    monkeypatch.setattr("tests.placement.placement_bench.ModelAgent", Liar)
    monkeypatch.setattr(Liar, "said", said)
    async with fleet(tmp_path, {"a": {"replicas": 1}}) as found:
        liar = await found.join("liar", models={"a": 1})
        await polled(lambda: liar.listed, "it was asked")
        monkeypatch.setattr("tests.placement.placement_bench.ModelAgent", ModelAgent)
        await found.join("a1", models={"a": 1})
        first = (await found.report())["agents"][0]
        while not first.keys() & {"why_not", "budget_bytes"}:
            await asyncio.sleep(0)
            first = (await found.report())["agents"][0]
        assert first["agent_id"] == "liar"
        if "why_not" in first:
            await found.loaded(a=1)
            assert found.where("a") == ["a1"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "models: Field required"),
        (b'{"models": {"a": {"replicas": -1}}}', "models.a.replicas"),
        (b'{"models": {"a": {"replica": 1}}}', "models.a.replica"),
        (b'{"models": {"": {}}}', "models"),
    ],
)
async def test_a_wrong_wish_is_refused_and_changes_nothing(tmp_path: Path, body: bytes, says: str) -> None:
    async with fleet(tmp_path, {"a": {}}) as found:
        refused = await found.bench.call("PUT", "/placement", body)
        assert isinstance(refused, errors.InvalidRequest), refused
        assert says in str(refused)
        assert [each["model"] for each in (await found.report())["models"]] == ["a"]


async def test_a_wish_that_cannot_be_kept_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise errors.ConfigError("there is no room on the disk")

    monkeypatch.setattr("anywire_service_placement.wanted_file.change_private", full)
    async with fleet(tmp_path, {"a": {}}) as found:
        refused = await found.put(b={"replicas": 1})
        assert isinstance(refused, errors.PluginFailed)
        assert "no room on the disk" in str(refused)
        assert [each["model"] for each in (await found.report())["models"]] == ["a"]


async def test_moves_under_way_end_with_the_orchestrator(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"a": {}}) as found:
        await found.join("a1", models={"a": 1}, loading=3600.0)
        await found.events.until(lambda: found.events.named("load.begun"), "a is loaded")
        (moving,) = (await found.report())["under_way"]
        assert (moving["action"], moving["agent_id"], moving["model"]) == ("load", "a1", "a")
        names = {metric.name: metric.value for _, metric in found.bench.host.metrics()}
        assert names["moves_under_way"] == 1
    assert not [task for task in asyncio.all_tasks() if "placement" in repr(task.get_coro())]


async def test_it_begins_when_agents_of_before_may_be_back(tmp_path: Path) -> None:
    """Else the first agent that comes would be told to load everything."""
    service = Placement(PlacementConfig(**QUICK | {"absence": 2.0}, models={model: {} for model in "abcd"}))
    async with service_bench(service, state=tmp_path) as bench:
        found = Fleet(bench, service)
        await found.join("a1", models=SIZES)
        await found.join("a2", models=SIZES)
        await found.loaded(**dict.fromkeys("abcd", 1))
        assert [len(engine.log) for engine in found.engines.values()] == [2, 2]
        found.unsubscribe()
        for agent in found.agents.values():
            await agent.close()
