"""The service ``deliberation``: what it takes in, shows, and answers as a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.deliberation.deliberation_bench import (
    ANN,
    BOB,
    RUBRIC,
    Council,
    asked,
    bench,
    ended,
    request,
)
from tests.long_form import examples

from anywire import errors
from anywire.caller import OPERATOR, Caller, Limits
from anywire.context import Context
from anywire.offers import Offer
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_deliberation import deliberations, offered, runs
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.question import Question
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.request import Requests
from anywire_service_deliberation.request_form import DeliberationRequest
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_deliberation.service import DeliberationService
from anywire_service_deliberation.statistics import statistics


class TestDeliberation(ServiceConformance):
    service = "deliberation"


def wrong(kept: KeptDeliberations, **members: Any) -> errors.InvalidRequest:
    with pytest.raises(errors.InvalidRequest) as raised:
        kept.question(request(**members), ANN)
    return raised.value


async def test_its_tasks_have_its_trace_and_priority_also_after_a_restart(tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    engine = Council()
    engine.hold("score")
    async with bench(tmp_path, engine=engine) as (_, kept):
        question = kept.question(request(rounds=0), ANN)
        await kept.submit(msgspec.structs.replace(question, trace=trace, priority=4))
        await engine.all_asked("score", 6)
    again = Council()
    async with bench(tmp_path, engine=again) as (_, kept):
        assert (await ended(kept)).status == "completed"
    tasks = [event[3] for each in (engine, again) for event in each.recorder.named("asked")]
    assert {(task.trace, task.priority) for task in tasks} == {(trace, 4)}


async def test_a_listener_is_told_of_each_state_that_is_kept_to_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Deliberation] = []
    left: list[tuple[str, bool]] = []

    def fails(state: Deliberation, resumed: bool) -> None:
        raise RuntimeError("its own failure")

    engine = Council()
    async with bench(tmp_path, engine=engine) as (_, kept):
        unlisten = kept.listen(lambda state, resumed: told.append(state))
        kept.listen(fails)
        await asked(kept)
        last = await ended(kept)
        unlisten()
        unlisten()
        await asked(kept, id="q-2")
        await ended(kept, "q-2")
        engine.hold("score")
        await asked(kept, id="q-3")
        await engine.all_asked("score", 18)
    async with bench(tmp_path) as (_, kept):
        kept.listen(lambda state, resumed: left.append((state.question.id, resumed)))
        await asked(kept, id="q-4")
        await ended(kept, "q-4")
        await ended(kept, "q-3")
    assert set(left) == {("q-3", True), ("q-4", False)}
    assert told[0].status == "submitted"
    assert told[-1] == last
    assert [state.is_final for state in told] == [False] * (len(told) - 1) + [True]
    assert all(earlier.answers.items() <= later.answers.items() for earlier, later in pairwise(told))
    assert {state.question.id for state in told} == {"q-1"}
    assert "a listener could not deal with the deliberation q-1" in caplog.messages


# Requests


async def test_a_request_that_is_wrong_says_what_and_where(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        for members, param, words in (
            ({"task": ""}, "task", "at least 1 character"),
            ({"task": "  "}, "task", "blank"),
            ({"task": "x" * 200_001}, "task", "at most 200000"),
            ({"members": 0}, "members", "1 to 64"),
            ({"members": "three"}, "members", "a list of 1 to 64 objects"),
            ({"members": True}, "members", "a list"),
            ({"members": []}, "members", "a list"),
            ({"members": [{"rolle": "QA"}]}, "members.0", "did you mean 'role'"),
            ({"members": [{}, {"temperature": 3}]}, "members.1", "less than or equal to 2"),
            ({"members": [{"name": "a/b"}]}, "members.0", "match"),
            ({"members": [{"name": "a"}, {"name": "a"}]}, "members", "two members have the name 'a'"),
            ({"members": [{"model": "deliberate:QA"}]}, "members", "cannot be a deliberation itself"),
            ({"members": [{"role": "DEVV"}]}, "role", "did you mean"),
            ({"role": "nobody"}, "role", "there is no role"),
            ({"rubric": "nothing"}, "rubric", "there is no rubric"),
            ({"rubric": {"criteria": []}}, "rubric.criteria", "at least 1"),
            ({"rubric": {}}, "rubric.criteria", "criteria"),
            ({"rounds": 11}, "rounds", "less than or equal to 10"),
            ({"members": 60, "rounds": 3}, "members", "max_works"),
            ({"quorum": 4}, "quorum", "there are 3 members"),
            ({"timeout": 0}, "timeout", "greater than 0"),
            ({"timeout": 4000}, "timeout", "max_timeout"),
            ({"timeout": float("nan")}, "timeout", "finite"),
            ({"aggregation": "luck"}, "aggregation", "borda"),
            ({"id": "a\nb"}, "id", "printable"),
            ({"id": ""}, "id", "at least 1"),
            ({"council": "nobody"}, "council", "there is no council"),
            ({"metadata": {"a": "x" * 17_000}}, "metadata", "16384"),
            ({"sunthesis": True}, "sunthesis", "did you mean 'synthesis'"),
        ):
            error = wrong(kept, **members)
            assert error.param == param, (members, error)
            assert words in str(error), (members, error)
        assert "no JSON in UTF-8" in str(wrong(kept, metadata={"a": "\ud800"}))
        assert wrong(kept, task="\ud800").param == "task"


async def test_a_request_is_completed_by_what_is_configured(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"members": 2, "rounds": 2, "timeout": 60, "aggregation": "median", "max_tokens": 99}
    async with bench(tmp_path, role="QA", rubric="design", **settings) as (_, kept):
        made = kept.question({"task": "Why?"}, ANN)
        assert len(made.members) == 2
        assert {member.role for member in made.members} == set(made.roles) == {"QA"}
        assert (made.rounds, made.timeout, made.aggregation, made.max_tokens) == (2, 60, "median", 99)
        assert (made.rubric.name, made.quorum, made.caller) == ("design", 1, ANN)
        assert made.id
        assert made.id != kept.question({"task": "Why?"}, ANN).id


async def test_members_differ_by_model_where_there_are_several(tmp_path: Path) -> None:
    async with bench(tmp_path, engine=Council(models=("a", "b", "deliberation"))) as (_, kept):
        named = kept.question(request(members=[{}, {"model": "z"}, {}]), ANN).members
        assert [member.model for member in named] == ["a", "z", "b"]
        assert [member.temperature for member in named] == [None] * 3
        members = kept.question(request(members=6), ANN).members
        assert [member.model for member in members] == ["a", "b", "deliberation"] * 2
        allowed = Caller("ann", "lab", limits=Limits(models=("b", "deliberate*")))
        assert {member.model for member in kept.question(request(), allowed).members} == {"b"}
    async with bench(tmp_path, models=["x", "y"]) as (_, kept):
        assert [member.model for member in kept.question(request(), ANN).members] == ["x", "y", "x"]


async def test_members_of_one_model_differ_by_temperature_seed_and_style(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        members = kept.question(
            request(members=[{}, {"temperature": 0, "seed": 5, "style": "Be brief."}, {}]), ANN
        ).members
        assert [member.temperature for member in members] == [0.3, 0, 1.0]
        assert [member.seed for member in members] == [1, 5, 3]
        assert len({member.style for member in members}) == 3
        assert [member.name for member in members] == ["member-1", "member-2", "member-3"]


async def test_without_a_model_it_says_what_to_do(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        await asked(kept)
        state = await ended(kept)
    async with bench(tmp_path, engine=Council(models=())) as (_, kept):
        with pytest.raises(errors.InvalidRequest, match=r"services\.deliberation\.models"):
            await asked(kept, id="q-2")
        assert await asked(kept) == state, "one that is there needs no model"


async def test_roles_and_rubrics_of_ones_own(tmp_path: Path) -> None:
    (roles := tmp_path / "roles").mkdir()
    (roles / "BAKER.yaml").write_text("prompt: You bake bread.\n")
    async with bench(tmp_path, roles=roles) as (served, kept):
        assert kept.question(request(role="baker"), ANN).roles["BAKER"].prompt == "You bake bread."
        assert "deliberate:BAKER" in served.context("x").models()
    (roles / "BAKER.yaml").write_text("prompt: [no text]\n")
    with pytest.raises(errors.ConfigError, match=r"BAKER\.yaml"):
        async with bench(tmp_path, roles=roles):
            pass


# Taking in


async def test_the_same_id_is_the_same_deliberation(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        taken = await asyncio.gather(*[asked(kept) for _ in range(5)])
        assert len({state.submitted for state in taken}) == 1
        with pytest.raises(errors.InvalidRequest, match="asked for something else") as raised:
            await asked(kept, task="Another one.")
        assert raised.value.status == 409
        await asked(kept, BOB, task="Another one.")
        engine.release("proposal")
        state = await ended(kept)
        assert await asked(kept) == state
        assert len(engine.asked("proposal")) == 6
    async with bench(tmp_path, engine=(engine := Council())) as (_, kept):
        assert await asked(kept) == state
        with pytest.raises(errors.InvalidRequest, match="asked for something else"):
            await asked(kept, rounds=3)
        assert not engine.asked()


async def test_an_id_that_was_made_here_is_found_again_though_no_model_is_served(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        name = (await asked(kept, id=None)).question.id
        state = await ended(kept, name)
    async with bench(tmp_path, engine=Council(models=())) as (_, kept):
        assert await asked(kept, id=name) == state


async def test_it_is_kept_before_it_is_acknowledged(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        assert [state.question.id for state in await kept._store.unfinished()] == ["q-1"]


async def test_what_is_refused_is_not_kept(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine, max_running=2) as (served, kept):
        with pytest.raises(errors.Forbidden, match="deliberate:DEV"):
            await asked(kept, Caller("cid", "cid", limits=Limits(models=("other",))), members=[{"model": "other"}])
        for number in range(2):
            await asked(kept, id=f"q-{number}")
        with pytest.raises(errors.QueueFull, match="max_running"):
            await asked(kept, id="q-2")
        assert await asked(kept, id="q-0"), "one that is there is found all the same"
        await kept.cancel("q-0", ANN)
        await asked(kept, id="q-3")
        served.orchestrator.close_gate()
        served.host.gate_closed()
        with pytest.raises(errors.ShuttingDown):
            await asked(kept, id="q-4")
    async with bench(tmp_path) as (_, kept):
        assert {state.question.id for state in await kept.list(OPERATOR)} == {"q-0", "q-1", "q-3"}


async def test_an_id_that_is_found_only_while_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "is_made_here", lambda question_id: True)
    clock = SimulatedClock()
    async with bench(tmp_path, clock, retention=100) as (served, kept):
        await asked(kept)
        state = await ended(kept)
        assert await asked(kept) == state
        with pytest.raises(errors.InvalidRequest, match="asked for something else"):
            await asked(kept, rounds=0)
        await polled(lambda: not served.orchestrator.tasks(), "the task that stood for it has ended")
        assert await kept.get("q-1", ANN) == state
        clock.advance(101)
        again = await asked(kept)
        assert again.submitted > state.ended
        assert (await ended(kept)).status == "completed"


async def test_it_is_cancelled_while_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Council()
    async with bench(tmp_path, engine=engine) as (served, kept):
        add, goes_on = kept._store.add, asyncio.Event()

        async def slow(state: Deliberation) -> Deliberation:
            await goes_on.wait()
            return await add(state)

        monkeypatch.setattr(kept._store, "add", slow)
        submitting = asyncio.ensure_future(asked(kept))
        await polled(served.orchestrator.tasks, "its task is there")
        (task,) = served.orchestrator.tasks()
        assert served.orchestrator.cancel(task.task_id, "enough", ANN)
        await asyncio.sleep(0)
        goes_on.set()
        await submitting
        assert (await ended(kept)).status == "cancelled"
        assert not engine.asked()


async def test_a_disk_that_fails_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, engine=(engine := Council())) as (served, kept):

        async def failing(state: Deliberation) -> Deliberation:
            raise errors.PluginFailed("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(kept._store, "add", failing)
            with pytest.raises(errors.PluginFailed):
                await asked(kept)
        await polled(lambda: not served.orchestrator.tasks(), "the task that stood for it has ended")
        assert await kept.get("q-1", ANN) is None
        assert not engine.asked()
        await asked(kept)
        assert (await ended(kept)).status == "completed"


async def test_a_client_that_goes_away_while_it_is_taken_in(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        submitting = asyncio.ensure_future(kept.submit(kept.question(request(), ANN)))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.wait((submitting,))
        await asked(kept)
        assert (await ended(kept)).status == "completed"


# Who sees what


async def test_it_is_seen_and_ended_by_its_own_tenant_and_by_operators(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    observer = Caller("eve", "eve", role="observe")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        await engine.all_asked("critique", 6)
        assert await kept.get("q-1", BOB) is None
        assert await kept.cancel("q-1", BOB) is None
        assert await kept.list(BOB) == []
        for sees in (Caller("other key", "lab"), observer, OPERATOR):
            found = await kept.get("q-1", sees)
            assert found is not None
            assert found.question.caller == ANN
            assert [state.question.id for state in await kept.list(sees)] == ["q-1"]
        with pytest.raises(errors.Forbidden):
            await kept.cancel("q-1", observer)
        with pytest.raises(errors.InvalidRequest, match="no deliberation") as raised:
            await anext(kept.updates("q-1", BOB))
        assert raised.value.status == 404
        found = await kept.cancel("q-1", OPERATOR, "an operator says so")
        assert found is not None
        assert found.reason == "an operator says so"
        for sees in (observer, OPERATOR):
            assert await kept.get("q-1", sees) == found
        assert await kept.get("q-1", BOB) is None


async def test_lists_are_filtered(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, kept):
        for number, role in enumerate(("QA", "DEV", "QA")):
            await asked(kept, id=f"q-{number}", role=role)
            await ended(kept, f"q-{number}")
        await kept.cancel("q-2", ANN)
        assert [state.question.id for state in await kept.list(ANN)] == ["q-2", "q-1", "q-0"]
        assert [state.question.id for state in await kept.list(ANN, role="QA")] == ["q-2", "q-0"]
        assert [state.question.id for state in await kept.list(ANN, status="completed", limit=1)] == ["q-2"]
        assert await kept.list(ANN, status="failed") == []


async def test_waiting_ends_with_the_deliberation_or_the_time(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        found = await kept.get("q-1", ANN, 0.01)
        assert found is not None
        assert not found.is_final
        waiting = asyncio.ensure_future(kept.get("q-1", ANN, 60))
        await asyncio.sleep(0)
        engine.release("proposal")
        found = await expect(waiting, "it has ended")
        assert found is not None
        assert found.status == "completed"
        assert await kept.get("unknown", ANN, 60) is None


async def test_it_goes_after_its_retention(tmp_path: Path) -> None:
    clock = SimulatedClock()
    async with bench(tmp_path, clock, retention=100) as (_, kept):
        await asked(kept)
        state = await ended(kept)
        assert state.expires == pytest.approx(state.ended + 100)
        clock.advance(99)
        assert await kept.get("q-1", ANN) == state
        clock.advance(2)
        assert await kept.get("q-1", ANN) is None
        assert await kept.list(ANN) == []
        again = await asked(kept, rounds=0)
        assert again.submitted > state.ended
        await ended(kept)


# As a model


async def chat(served: ServiceBench, model: str = "deliberate:QA", stream: bool = False, **members: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}], **members}
    return served.submit(msgspec.json.encode(body).decode(), model=model, stream=stream, caller=ANN)


async def test_the_winner_is_the_answer_of_a_model(tmp_path: Path) -> None:
    async with bench(tmp_path) as (served, kept):
        stream = await chat(served, deliberation={"rubric": RUBRIC, "members": 4, "rounds": 0}, max_tokens=77)
        chunk = await expect(stream.result(), "the answer")
        state = await ended(kept, stream.task_id)
        assert chunk.deltas == (newest(state, state.winner).text,)
        assert '"completion_tokens":' in chunk.usage
        assert state.question.task == "Why is the sky blue?"
        assert {member.role for member in state.question.members} == {"QA"}
        assert (len(state.question.members), state.question.rounds, state.question.max_tokens) == (4, 0, 77)


async def test_a_stream_tells_how_it_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as (served, kept):
        stream = await chat(served, stream=True, deliberation={"rubric": RUBRIC})
        chunks = [chunk async for chunk in stream]
        state = await ended(kept, stream.task_id)
        text = "".join(delta for chunk in chunks for delta in chunk.deltas)
        assert text == newest(state, state.winner).text
        told = [msgspec.json.decode(chunk.extra)["deliberation"] for chunk in chunks if chunk.extra]
        assert {each["id"] for each in told} == {stream.task_id}
        stages = [each["status"] for each in told if each["event"] == "stage"]
        assert stages == ["submitted", "generating", "critiquing", "revising", "scoring"]
        assert sum(each["event"] == "answered" for each in told) == len(state.answers)


async def test_a_chat_whose_client_goes_away_ends_its_deliberation(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with bench(tmp_path, engine=engine) as (served, kept):
        for streams in (False, True):
            stream = await chat(served, stream=streams)
            await engine.all_asked("critique", 6)
            stream.cancel("the client has gone")
            state = await ended(kept, stream.task_id)
            assert (state.status, len(state.answers)) == ("cancelled", 3)
            assert "client has gone" in state.reason
            assert not served.orchestrator.tasks()
            engine.recorder.events.clear()


async def test_a_chat_that_is_wrong_or_fails(tmp_path: Path) -> None:
    async with bench(tmp_path, engine=Council(lambda member, kind, asked: "fail")) as (served, _):
        for members, param in (
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
            ({"deliberation": 3}, "deliberation"),
            ({"deliberation": {"task": "another"}}, "deliberation"),
            ({"deliberation": {"roundz": 3}}, "roundz"),
        ):
            with pytest.raises(errors.InvalidRequest) as raised:
                await expect((await chat(served, **members)).result(), "it is refused")
            assert raised.value.param == param
        with pytest.raises(errors.EngineFailed, match="the member says so"):
            await expect((await chat(served)).result(), "it fails")


async def test_a_conversation_is_the_task(tmp_path: Path) -> None:
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": None},
    ]
    async with bench(tmp_path) as (served, kept):
        stream = await chat(served, "deliberate", messages=said, deliberation={"rubric": RUBRIC})
        await expect(stream.result(), "the answer")
        assert (await ended(kept, stream.task_id)).question.task == "system: Be brief.\n\nuser: Hello"


# Councils and numbers


async def test_councils(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("proposal")
    council = offered.Council("builders", "QA", ({"temperature": 0.1}, {"model": MODEL}), 0, "design")
    async with bench(tmp_path, engine=engine) as (_, kept):
        made = await kept.put_council(council, ANN)
        assert made.created
        assert await kept.councils(ANN) == [made]
        assert await kept.councils(BOB) == []
        asks = {"task": "Why?", "council": "builders"}
        question = kept.question(asks, ANN)
        assert [member.role for member in question.members] == ["QA", "QA"]
        assert (question.rounds, question.rubric.name, question.council) == (0, "design", "builders")
        assert kept.question({**asks, "members": 3, "rounds": 1}, ANN).rounds == 1
        with pytest.raises(errors.InvalidRequest, match="no council"):
            kept.question(asks, BOB)
        await kept.submit(question)
        assert (await kept.councils(ANN))[0].in_use == 1
        with pytest.raises(errors.InvalidRequest, match="in use") as raised:
            await kept.delete_council("builders", ANN)
        assert raised.value.status == 409
        faults: tuple[dict[str, Any], ...] = (
            {"role": "nobody"},
            {"rubric": "none"},
            {"members": ()},
            {"members": ({"x": 1},)},
            {"members": ({"name": "ann"}, {"name": "ann"})},
            {"name": ""},
        )
        for changes in faults:
            with pytest.raises(errors.InvalidRequest):
                await kept.put_council(msgspec.structs.replace(council, **changes), ANN)
    async with bench(tmp_path) as (_, kept):
        await ended(kept, question.id)
        assert await kept.councils(ANN) == [made]
        assert await kept.delete_council("builders", ANN) == made
        assert await kept.delete_council("builders", ANN) is None
        assert await kept.councils(ANN) == []


async def test_statistics_are_not_computed_where_everybody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = list[threading.Thread]()

    def noted(found: object, now: float) -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {}

    monkeypatch.setattr(deliberations, "statistics", noted)
    async with bench(tmp_path) as (_, kept):
        await kept.statistics(ANN)
    assert threads
    assert threading.main_thread() not in threads


async def test_statistics(tmp_path: Path) -> None:
    engine = Council(lambda member, kind, asked: "fail" if member == "member-3" else "answer")
    async with bench(tmp_path, engine=engine) as (served, kept):
        for number in range(2):
            await asked(kept, id=f"q-{number}", rounds=0)
            await ended(kept, f"q-{number}")
        told = await kept.statistics(ANN)
        assert (told["count"], told["by_status"], told["by_role"]) == (2, {"degraded": 2}, {"DEV": 2})
        assert told["seconds"]["p99"] >= told["seconds"]["p50"] > 0
        for of in (told["roles"]["DEV"], told["models"][MODEL], told["agents"]["agent"]):
            assert (of["proposals"], of["wins"]) == (4, 2)
            assert of["works"] == sum(len(state.answers) for state in await kept.list(ANN))
            assert of["tokens"] == 15 * of["works"]
            assert of["failures"] == 4
            assert 1 <= of["mean_score"] <= 5
        assert (await kept.statistics(BOB))["count"] == 0
        shown = {metric.name: metric for _, metric in served.host.metrics()}
        assert shown["ended_deliberations"].value == 2
        msgspec.json.encode(told)


async def test_statistics_are_made_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def noted(found: Sequence[Deliberation], now: float) -> dict[str, Any]:
        made.append(threading.get_ident())
        return statistics(found, now)

    monkeypatch.setattr(deliberations, "statistics", noted)
    async with bench(tmp_path) as (_, kept):
        assert (await kept.statistics(ANN))["count"] == 0
    assert made
    assert threading.get_ident() not in made


# Two processes


async def test_a_second_process_takes_over_when_the_first_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliberations, "LOCK_PAUSE", 0.01)
    engine = Council()
    engine.hold("proposal")
    second = DeliberationService(DeliberationConfig(folder=tmp_path / "kept"))
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept)
        other = service_bench(second, state=tmp_path, engine=Council())
        await other.__aenter__()
        with pytest.raises(errors.ShuttingDown):
            await second.offered.get("q-1", ANN)
    try:
        await polled(lambda: second.offered._is_open, "it has taken over")
        assert (await ended(second.offered)).status == "completed"
    finally:
        await other.__aexit__(None, None, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*DeliberationRequest.model_fields, "other"], json_values)
) | st.dictionaries(st.sampled_from(sorted(DeliberationRequest.model_fields)), json_values)


@given(requests, st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_any_request_is_a_question_or_refused_with_a_sentence(
    completing: Requests, given_request: dict[str, Any], asks: bool
) -> None:
    try:
        made = completing.question(given_request | ({"task": "Why?"} if asks else {}), ANN)
    except errors.InvalidRequest as error:
        event(error.param)
        return
    event("asked")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Question) == made
    assert 1 <= made.quorum <= len(made.members) == len({member.name for member in made.members})
    assert {member.role for member in made.members} == set(made.roles)


@pytest.fixture(scope="module")
def completing() -> Requests:
    class Served:
        def offers(self, caller: Caller) -> dict[str, list[tuple[str, Offer]]]:
            return {MODEL: [("agent", Offer(MODEL))]}

    return Requests(cast("Context", Served()), DeliberationConfig(), Library.load(), lambda name, caller: None)
