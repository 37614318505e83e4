"""Deliberations over REST, as any HTTP client has them."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.deliberation.acted import SUBMITTED
from tests.deliberation.front_bench import Front, degraded, front, submitted, update

from anywire.access import OpenAccess
from anywire.caller import Caller
from anywire.testing.patience import PATIENCE, expect, polled
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.update_stream import update_events


def http(served: Front, base: str = "/v1") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{served.url}{base}", timeout=PATIENCE)


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    told = answer.json()["error"]
    return answer.status_code, told["code"], told["param"]


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_a_question_is_taken_with_its_id_and_links(tmp_path: Path, base: str) -> None:
    async with front(tmp_path) as served, http(served, base) as client:
        body = {"id": "a b", "task": "Reverse a list.\nShort.", "members": 5}
        answer = await client.post("/deliberations", json=body)
        assert answer.status_code == 202
        assert answer.headers["location"] == f"{base}/deliberations/a%20b"
        assert answer.headers["retry-after"] == "1"
        told = answer.json()
        assert (told["id"], told["object"], told["status"], told["members"]) == ("a b", "deliberation", "submitted", 5)
        assert told["title"] == "Reverse a list. Short."
        links = {"deliberation": f"{base}/deliberations/a%20b", "events": f"{base}/deliberations/a%20b/events"}
        assert told["links"] == links
        assert served.double.asked == [body]
        for link in links.values():
            path = link.removeprefix(base)
            async with client.stream("GET", path) as found:
                assert found.status_code == 200, link


async def test_a_client_may_wait_for_the_end(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        asking = asyncio.create_task(
            client.post("/deliberations", json={"id": "q-1", "task": "?"}, headers={"Prefer": "respond-async, wait=10"})
        )
        await polled(lambda: served.double.waits, "the request waits")
        await served.double.say(ends=degraded())
        answer = await expect(asking, "the answer")
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["answer"]) == ("degraded", "[].reverse()")
        assert answer.headers["preference-applied"] == "wait=10"
        again = await client.get("/deliberations/q-1", headers={"Prefer": "wait=100000"})
        assert again.headers["preference-applied"] == "wait=60"
        assert served.double.waits == [10.0, 60.0]


@pytest.mark.parametrize("preference", ["wait=x", "wait=-1", "wait=nan", "wait", "handling=lenient", ""])
async def test_a_preference_that_says_nothing_is_passed_over(tmp_path: Path, preference: str) -> None:
    async with front(tmp_path) as served, http(served) as client:
        headers = {"Prefer": preference}
        answer = await client.post("/deliberations", json={"id": "q-1", "task": "?"}, headers=headers)
        assert (answer.status_code, served.double.waits) == (202, [])
        assert "preference-applied" not in answer.headers


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "trace", "priority"),
    [
        ({"traceparent": TRACE, "x-anywire-priority": "-3"}, TRACE, -3),
        ({"traceparent": "no such"}, "", 0),
        ({}, "", 0),
    ],
)
async def test_a_question_has_the_trace_and_the_priority_of_its_request(
    tmp_path: Path, headers: dict[str, str], trace: str, priority: int
) -> None:
    async with front(tmp_path) as served, http(served) as client:
        await client.post("/deliberations", json={"id": "q-1", "task": "?"}, headers=headers)
        question = served.double.kept["q-1"].question
        assert (question.trace, question.priority) == (trace, priority)


@pytest.mark.parametrize("priority", ["high", "1001", "", "1.5"])
async def test_a_priority_that_is_none_is_refused(tmp_path: Path, priority: str) -> None:
    async with front(tmp_path) as served, http(served) as client:
        answer = await client.post("/deliberations", json={"task": "?"}, headers={"x-anywire-priority": priority})
        assert error(answer) == (400, "invalid_request", "x-anywire-priority")
        assert not served.double.kept


async def test_the_same_question_again_is_the_same_one(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        body = {"id": "q-1", "task": "?"}
        first, second = [await client.post("/deliberations", json=body) for _ in range(2)]
        assert first.json() == second.json()
        assert error(await client.post("/deliberations", json=body | {"task": "!"})) == (409, "invalid_request", "id")
        await served.double.say(ends=degraded())
        ended = await client.post("/deliberations", json=body)
        assert (ended.status_code, ended.json()["winner"]) == (200, "member-2")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"task": "?"', None),
        (b'"\xff"', None),
        (b"[" * 100_000, None),
        (b'{"members": 3}', "task"),
        (b'{"task": "?", "rubric": "none"}', "rubric"),
        (b'{"task": "?", "id": "statistics"}', "id"),
        (b'{"task": "?", "id": "a/b"}', "id"),
        (b'{"task": "?", "id": ".."}', "id"),
    ],
)
async def test_a_request_at_fault_is_told_where(tmp_path: Path, body: bytes, param: str | None) -> None:
    async with front(tmp_path) as served, http(served) as client:
        answer = await client.post("/deliberations", content=body)
        assert error(answer) == (400, "invalid_request", param)
        assert not served.double.kept


async def test_all_that_has_come_of_it_is_told(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        await served.double.say(ends=degraded())
        told: dict[str, Any] = (await client.get("/deliberations/q-1")).json()
    assert (told["status"], told["reason"]) == ("degraded", "member-3: no critique (agent_lost: it went)")
    assert (told["winner"], told["answer"], told["synthesis"]) == ("member-2", "[].reverse()", "All of it.")
    assert (told["submitted"], told["ended"], told["expires"]) == (SUBMITTED, SUBMITTED + 12.5, SUBMITTED + 3612.5)
    winner = next(each for each in told["proposals"] if each["member"] == "member-2")
    assert [(each["round"], each["agent"], each["attempts"]) for each in winner["versions"]] == [
        (0, "agent-2", 1),
        (1, "agent-9", 2),
    ]
    assert winner["versions"][1]["checks"] == [{"kind": "lint", "passed": False, "message": "no tests"}]
    assert (winner["rank"], winner["role"], winner["text"]) == (1, "DEV", "[].reverse()")
    (critique,) = told["critiques"]
    assert (critique["round"], critique["member"], critique["about"]) == (1, "member-2", "member-1")
    scores = {(each["member"], each["about"]): (each["score"], each["points"]) for each in told["scores"]}
    assert len(scores) == 4
    assert scores["member-1", "member-2"] == (5.0, {"clarity": 5.0})
    assert [(each["rank"], each["member"]) for each in told["ranking"]] == [
        (1, "member-2"),
        (2, "member-1"),
        (3, "member-3"),
    ]
    (missing,), (retried,), (late,) = told["missing"], told["retried"], told["late"]
    assert (missing["member"], missing["about"], missing["code"], missing["tries"]) == (
        "member-3",
        "member-2",
        "agent_lost",
        2,
    )
    assert (retried["code"], retried["agent"]) == ("hanging", "agent-8")
    assert (late["work"], late["text"]) == ("critique/1/member-3/member-2", "Late.")
    member = told["members"][1]
    assert (member["agents"], member["transports"], member["attempts"]) == (
        ["agent-2", "agent-9", "agent-1"],
        ["memory"],
        6,
    )
    assert (member["state"], member["score"], member["rank"]) == ("proposed", 5.0, 1)
    cost = told["cost"]
    assert (cost["prompt_tokens"], cost["completion_tokens"], cost["total_tokens"]) == (100, 50, 150)
    assert (cost["tasks"], cost["attempts"], cost["seconds"], cost["agent_seconds"]) == (11, 11, 12.5, 5.0)
    assert told["dissent"] == []
    assert (told["dropped"], told["spared"]) == (1, 0)


async def test_how_far_a_stage_is_is_told(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        ended = degraded()
        answers = {text: each for text, each in ended.answers.items() if text.startswith("proposal")}
        critiquing = msgspec.structs.replace(submitted(), status="critiquing", round=1, answers=answers)
        await served.double.say(ends=msgspec.structs.replace(critiquing, failures=ended.failures))
        told = (await client.get("/deliberations/q-1")).json()
        assert told["progress"] == {"stage": "critiquing", "round": 1, "works": 6, "done": 0, "failed": 1}
        assert (told["winner"], told["answer"], told["ended"], told["cost"]["seconds"]) == ("", "", 0, 0)


async def test_deliberations_are_listed_by_status_and_role(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        for name in ("a", "b"):
            await served.double.say(ends=submitted(name))
        await served.double.say(ends=degraded("c", task="x" * 100_000))
        listed = (await client.get("/deliberations")).json()
        assert (listed["object"], [each["id"] for each in listed["data"]]) == ("list", ["a", "b", "c"])
        assert len(json.dumps(listed)) < 10_000, "a list has no texts"
        assert "proposals" not in listed["data"][2]
        for query, names in (("status=degraded", "c"), ("role=QA", ""), ("limit=1", "a"), ("status=submitted", "ab")):
            found = (await client.get(f"/deliberations?{query}")).json()["data"]
            assert "".join(each["id"] for each in found) == names
        for query, param in (
            ("status=done", "status"),
            ("limit=0", "limit"),
            ("limit=x", "limit"),
            ("limit=²", "limit"),
        ):
            assert error(await client.get(f"/deliberations?{query}")) == (400, "invalid_request", param)


async def test_a_deliberation_is_cancelled_and_one_that_has_ended_stays(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        await served.double.say(ends=submitted("a"))
        await served.double.say(ends=degraded("b"))
        told = (await client.delete("/deliberations/a")).json()
        assert (told["status"], told["reason"]) == ("cancelled", "cancelled by DELETE")
        assert (await client.delete("/deliberations/b")).json()["status"] == "degraded"
        assert served.double.cancelled == ["a"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/deliberations/nope", "deliberation_not_found"),
        ("DELETE", "/deliberations/nope", "deliberation_not_found"),
        ("GET", "/deliberations/nope/events", "deliberation_not_found"),
        ("GET", "/councils/nope", "council_not_found"),
        ("DELETE", "/councils/nope", "council_not_found"),
    ],
)
async def test_what_is_not_there_is_told(tmp_path: Path, method: str, path: str, code: str) -> None:
    async with front(tmp_path) as served, http(served) as client:
        assert error(await client.request(method, path)) == (404, code, None)


async def test_events_come_as_they_happen_and_end(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        double = served.double
        await double.say(update(1, "stage", status="generating", round=0), ends=submitted())
        async with client.stream("GET", "/deliberations/q-1/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            read = [await expect(anext(lines), "a line") for _ in range(5)]
            assert read[:4] == [": begin", "", "event: stage", "id: 1"]
            told = json.loads(read[4].removeprefix("data: "))
            assert told == {
                "number": 1,
                "name": "stage",
                "at": SUBMITTED + 1,
                "data": {"status": "generating", "round": 0},
            }
            await double.say(update(2, "ended", status="degraded", winner="member-2"), ends=degraded())
            rest = [line async for line in lines]
            assert [line for line in rest if line.startswith("event")] == ["event: ended"]
        await polled(lambda: not double.readers, "nobody reads any more")


@pytest.mark.parametrize("by_header", [True, False])
async def test_events_are_resumed(tmp_path: Path, by_header: bool) -> None:
    async with front(tmp_path) as served, http(served) as client:
        said = [update(number, "asked", work="proposal/0/member-1") for number in range(1, 4)]
        await served.double.say(*said, update(4, "ended", status="degraded"), ends=degraded())
        options: dict[str, Any] = {"headers": {"Last-Event-ID": "2"}} if by_header else {"params": {"after": "2"}}
        text = (await client.get("/deliberations/q-1/events", **options)).text
        assert [line for line in text.splitlines() if line.startswith("id: ")] == ["id: 3", "id: 4"]
        assert error(await client.get("/deliberations/q-1/events?after=x")) == (400, "invalid_request", "after")
        far = {"Last-Event-ID": "9" * 100}
        assert error(await client.get("/deliberations/q-1/events", headers=far)) == (400, "invalid_request", "after")


async def test_the_reader_of_updates_goes_with_its_client(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        await served.double.say(ends=submitted())
        async with client.stream("GET", "/deliberations/q-1/events"):
            await polled(lambda: served.double.readers, "somebody reads")
        await polled(lambda: not served.double.readers, "nobody reads any more")


@pytest.mark.parametrize("turns", range(6))
async def test_a_reader_that_goes_as_the_updates_end_leaves_no_error_behind(turns: int) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    over = asyncio.Event()

    async def updates() -> AsyncGenerator[Update, None]:
        yield update(1, "ended", status="completed")
        await over.wait()

    events = update_events(updates())
    assert (await anext(events)).id == "1"
    waiting = asyncio.ensure_future(anext(events, None))
    await asyncio.sleep(0.01)
    over.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await events.aclose()
    del waiting, events
    gc.collect()
    await asyncio.sleep(0)
    assert faults == []


async def test_a_silent_stream_gets_a_ping() -> None:
    closed = asyncio.Event()

    async def updates() -> AsyncGenerator[Update, None]:
        try:
            await asyncio.Event().wait()
            yield Update(1, "stage", 0.0, {})
        finally:
            closed.set()

    events = update_events(updates(), ping=0.0)
    assert [(await expect(anext(events), "a ping")).event for _ in range(3)] == ["ping"] * 3
    await events.aclose()
    assert closed.is_set()


async def test_updates_are_closed_between_two_of_them() -> None:
    closed = asyncio.Event()

    async def updates() -> AsyncGenerator[Update, None]:
        try:
            yield Update(1, "stage", 0.0, {})
            yield Update(2, "stage", 0.0, {})
        finally:
            closed.set()

    events = update_events(updates())
    assert (await expect(anext(events), "an event")).id == "1"
    await events.aclose()
    assert closed.is_set()


async def test_councils_are_kept_shown_and_forgotten(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        body = {"role": "DEV", "members": [{"model": "a"}, {"seed": 7}], "rounds": 2, "rubric": "answer"}
        put = await client.put("/councils/code", json=body)
        assert put.status_code == 200
        council = put.json()
        assert council == body | {
            "name": "code",
            "object": "council",
            "created": SUBMITTED,
            "in_use": 0,
            "metadata": {},
        }
        assert (await client.get("/councils/code")).json() == council
        await client.put("/councils/three", json={"members": 3})
        assert served.double.put["three"].members == ({}, {}, {})
        assert [each["name"] for each in (await client.get("/councils")).json()["data"]] == ["code", "three"]
        served.double.put["code"] = msgspec.structs.replace(served.double.put["code"], in_use=1)
        assert error(await client.delete("/councils/code")) == (409, "council_in_use", None)
        assert (await client.delete("/councils/three")).json() == {
            "name": "three",
            "object": "council",
            "deleted": True,
        }
        assert list(served.double.put) == ["code"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{}", None),
        ("[]", None),
        ('{"members": "3"}', "members"),
        ('{"members": 0}', "members"),
        ('{"members": 1000000000}', "members"),
        ('{"members": 3, "round": 1}', None),
        ('{"members": 3, "rubric": {"criteria": []}}', "rubric"),
        ('{"members": 3, "rubric": "none"}', "rubric"),
    ],
)
async def test_a_council_at_fault_is_told_where(tmp_path: Path, body: str, param: str | None) -> None:
    async with front(tmp_path) as served, http(served) as client:
        assert error(await client.put("/councils/c", content=body)) == (400, "invalid_request", param)
        assert not served.double.put


async def test_roles_rubrics_and_statistics_are_told(tmp_path: Path) -> None:
    async with front(tmp_path) as served, http(served) as client:
        roles = {each["name"]: each for each in (await client.get("/roles")).json()["data"]}
        assert {"DEV", "QA", "ARCHITECT", "DEVOPS", "DATA", "poet"} <= roles.keys()
        assert roles["poet"] == {"name": "poet", "object": "role", "description": "", "prompt": "You rhyme."}
        rubrics = {each["name"]: each for each in (await client.get("/rubrics")).json()["data"]}
        criterion = rubrics["clean-code"]["criteria"][0]
        assert criterion["name"]
        assert rubrics["clean-code"]["description"]
        assert all(isinstance(text, str) for text in criterion["anchors"].values())
        assert (await client.get("/deliberations/statistics")).json()["roles"] == {"DEV": {"deliberations": 0}}


async def test_every_route_says_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Caller("ann", "lab", "use")
    monkeypatch.setattr(OpenAccess, "caller", lambda self, presented: ann)
    async with front(tmp_path) as served, http(served) as client:
        double = served.double
        await double.say(update(1, "ended", status="degraded"), ends=degraded())
        asked: list[tuple[str, str, Any]] = [
            ("POST", "/deliberations", {"task": "?"}),
            ("GET", "/deliberations", None),
            ("GET", "/deliberations/statistics", None),
            ("GET", "/deliberations/q-1", None),
            ("GET", "/deliberations/q-1/events", None),
            ("DELETE", "/deliberations/q-1", None),
            ("PUT", "/councils/c", {"members": 3}),
            ("GET", "/councils", None),
            ("GET", "/councils/c", None),
            ("DELETE", "/councils/c", None),
        ]
        for method, path, body in asked:
            double.callers.clear()
            answer = await client.request(method, path, json=body)
            assert answer.is_success, (method, path, answer.text)
            assert set(double.callers) == {ann}, (method, path)
        assert double.kept["made-up"].question.caller == ann


async def test_a_large_one_is_told_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with front(tmp_path) as served, http(served) as client:
        await served.double.say(ends=degraded())
        small = (await client.get("/deliberations/q-1")).json()
        monkeypatch.setattr("anywire_service_deliberation.routes.LARGE", 1)
        assert (await client.get("/deliberations/q-1")).json() == small
        assert [each["id"] for each in (await client.get("/deliberations")).json()["data"]] == ["q-1"]
