"""Sessions of requests that depend on each other, requests of many sizes, and clients that give up."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiment.answering import Handler, measured, piece, whole
from tests.long_form import examples

from anywire_experiment.load.sessions import Session, Turn, sessions
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traffic import CANCELLED, NOT_ASKED
from anywire_experiment.plan.workload import Workload

TALK = {"turns": 3, "think": 0.02}


class Server:
    """Answers each request, and keeps what it was asked."""

    def __init__(self, handler: Handler = whole) -> None:
        self.asked: list[dict[str, Any]] = []
        self._handler = handler

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        return await self._handler(request)

    @property
    def messages(self) -> list[list[dict[str, Any]]]:
        return [each["messages"] for each in self.asked]


async def test_each_turn_sends_what_was_said_before_it(tmp_path: Path) -> None:
    server = Server()
    table = await measured(tmp_path, server.answer, {"requests": 6, "conversation": TALK})
    assert [[each["role"] for each in asked] for asked in server.messages[:3]] == [
        ["user"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user", "assistant", "user"],
    ]
    assert server.messages[2][:3] == server.messages[1][:3]
    assert server.messages[1][1]["content"] == "hello you", "the answer as it really came"
    assert server.messages[3][0] != server.messages[0][0], "another session"
    assert table["session"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert table["turn"].to_pylist() == [0, 1, 2] * 2
    assert table["prompt_chars"].to_pylist()[0] < table["prompt_chars"].to_pylist()[2]


async def test_a_turn_is_meant_for_the_end_of_the_answer_and_the_pause_after_it(tmp_path: Path) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.03)
        return await whole(request)

    rows = (await measured(tmp_path, Server(slow).answer, {"requests": 3, "conversation": TALK})).to_pylist()
    for before, after in pairwise(rows):
        assert after["intended_ns"] == before["done_ns"] + 20_000_000
        assert after["sent_ns"] >= after["intended_ns"]


async def test_without_history_a_turn_sends_its_text_alone(tmp_path: Path) -> None:
    server = Server()
    await measured(tmp_path, server.answer, {"requests": 3, "conversation": TALK | {"history": False}})
    assert [len(each) for each in server.messages] == [1, 1, 1]


async def test_branches_are_asked_at_once_and_the_next_turn_has_all_their_answers(tmp_path: Path) -> None:
    under_way = most = 0
    three = asyncio.Event()

    async def together(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if len(server.asked) >= 4:
            three.set()
        if len(server.asked) > 1:
            await three.wait()
        under_way -= 1
        return await whole(request)

    server = Server(together)
    talk = {"turns": 3, "fan_out": {"share": 1, "branches": 3}}
    table = await measured(tmp_path, server.answer, {"requests": 7, "conversation": talk})
    assert most == 3
    assert table["turn"].to_pylist() == [0, 1, 1, 1, 2, 2, 2]
    assert [len(each) for each in server.messages] == [1, 3, 3, 3, 9, 9, 9]
    assert len({each[-1]["content"] for each in server.messages}) == 7, "each branch has a question of its own"


async def test_sessions_of_an_open_loop_begin_at_their_times_however_slow_others_are(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if len(server.asked) == 1:
            await never.wait()
        return await whole(request)

    server = Server(handler)
    load = {"arrivals": {"kind": "poisson", "rate": 200}, "requests": 30, "conversation": {"turns": 3}, "timeout": 0.4}
    table = await measured(tmp_path, server.answer, load)
    outcomes = Counter(table["outcome"].to_pylist())
    assert outcomes == {"ok": 27, "timeout": 1, NOT_ASKED: 2}
    failed = [each for each in table.to_pylist() if each["outcome"] != "ok"]
    assert {each["session"] for each in failed} == {0}
    assert sorted(each["turn"] for each in failed) == [0, 1, 2], "what depends on it counts as failed"
    assert failed[1]["sent_ns"] == 0


async def test_a_workload_that_ends_by_time_sends_nothing_after_it(tmp_path: Path) -> None:
    server = Server()
    load = {"arrivals": {"kind": "poisson", "rate": 100}, "seconds": 0.3, "conversation": {"turns": 50, "think": 0.05}}
    table = await measured(tmp_path, server.answer, load)
    intended = table["intended_ns"].to_numpy()
    assert (intended.max() - intended.min()) / 1e9 < 0.3
    assert table.num_rows == len(server.asked)


async def test_clients_of_a_closed_loop_hold_sessions_one_after_the_other_for_their_tenants(tmp_path: Path) -> None:
    tenants: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        tenants.append((server.messages[-1][0]["content"], request.headers["x-anywire-tenant"]))
        return await whole(request)

    server = Server(handler)
    load = {"arrivals": {"kind": "closed", "clients": 3}, "tenants": {"a": 2, "b": 1}, "requests": 31}
    table = await measured(tmp_path, server.answer, load | {"conversation": {"turns": 4}})
    assert table.num_rows == 31
    assert set(table["client"].to_pylist()) == {0, 1, 2}
    of_session = {first: {tenant for begun, tenant in tenants if begun == first} for first, _ in tenants}
    assert all(len(each) == 1 for each in of_session.values())
    assert {tenant for _, tenant in tenants} == {"a", "b"}


async def test_what_sessions_ask_depends_on_the_seed_alone(tmp_path: Path) -> None:
    """However quick the answers are: a slower arm is asked the same."""

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.001 * (len(json_of(request)) % 7))
        return await whole(request)

    def json_of(request: web.Request) -> str:
        return str(request.content_length)

    asked = []
    load = {
        "arrivals": {"kind": "closed", "clients": 4},
        "requests": 40,
        "conversation": {"turns": {"kind": "uniform", "mean": 4, "spread": 3}},
        "sizes": {"prompt": {"kind": "lognormal", "mean": 20, "spread": 20}, "answer": 5},
        "priorities": {0: 1, 5: 1},
    }
    for handler in (whole, slow):
        server = Server(handler)
        await measured(tmp_path, server.answer, load)
        asked.append(sorted(str(each) for each in server.messages))
    assert asked[0] == asked[1]


async def test_sizes_are_drawn_for_each_request(tmp_path: Path) -> None:
    server = Server()
    sizes = {"prompt": {"kind": "uniform", "mean": 50, "spread": 40}, "answer": {"kind": "exponential", "mean": 30}}
    await measured(tmp_path, server.answer, {"requests": 60, "sizes": sizes})
    words = [len(each[0]["content"].split()) for each in server.messages]
    assert all(10 <= each <= 90 for each in words)
    assert np.std(words) > 10
    answers = [each["max_tokens"] for each in server.asked]
    assert min(answers) >= 1
    assert len(set(answers)) > 10


async def test_sizes_of_a_file_are_drawn_in_pairs(tmp_path: Path) -> None:
    path = tmp_path / "sizes.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,5,50\n1,50,5\n2,20,20\n")
    server = Server()
    await measured(tmp_path, server.answer, {"requests": 40, "sizes": {"file": str(path)}})
    pairs = {(len(each["messages"][0]["content"].split()), each["max_tokens"]) for each in server.asked}
    assert pairs == {(5, 50), (50, 5), (20, 20)}


async def test_requests_that_are_given_up_are_neither_answered_nor_failed(tmp_path: Path) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return await whole(request)

    load = {"requests": 30, "cancel": {"share": 0.5, "after": 0.005}}
    table = await measured(tmp_path, Server(slow).answer, load)
    found = Counter(table["outcome"].to_pylist())
    assert found.keys() == {"ok", CANCELLED}
    assert 8 <= found[CANCELLED] <= 22
    given_up = [each for each in table.to_pylist() if each["outcome"] == CANCELLED]
    assert all(each["done_ns"] - each["sent_ns"] >= 0.004e9 for each in given_up)
    quick = Counter((await measured(tmp_path, Server().answer, load))["outcome"].to_pylist())
    assert quick == found, "an arm that answers sooner has no other requests in its figures"


async def test_a_stream_is_given_up_after_so_many_pieces_and_its_connection_is_replaced(tmp_path: Path) -> None:
    broken_off = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal broken_off
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "x-anywire-transport": "dds"})
        await response.prepare(request)
        try:
            while True:
                await response.write(f"data: {piece('on ')}\n\n".encode())
                await asyncio.sleep(0.001)
        except (asyncio.CancelledError, ConnectionError):
            broken_off += 1
            raise

    load = {"requests": 4, "stream": True, "cancel": {"share": 1, "after_tokens": 5}}
    table = await measured(tmp_path, Server(endless).answer, load)
    assert table["outcome"].to_pylist() == [CANCELLED] * 4
    assert all(len(each) >= 5 for each in table["piece_ns"].to_pylist())
    assert broken_off == 4


async def test_a_cancel_that_nobody_asked_for_is_a_failure(tmp_path: Path) -> None:
    async def cancelled(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": "cancelled", "message": ""}}, status=499)

    table = await measured(tmp_path, Server(cancelled).answer, {"requests": 2})
    assert table["outcome"].to_pylist() == ["cancelled_by_server"] * 2


def drawn(load: dict[str, Any], limit: float, seed: str = "1") -> list[Session]:
    workload = Workload.model_validate({"requests": 1} | load)
    found = sessions(workload, (Arrival(float(at)) for at in range(10_000)), seed, limit, Path())
    assert found is not None
    return list(found)


@given(
    st.integers(1, 400),
    st.floats(1, 20),
    st.floats(0, 10),
    st.floats(0.01, 1),
    st.integers(2, 6),
    st.integers(0, 2**32),
)
@settings(max_examples=examples(40), deadline=None)
def test_sessions_have_exactly_as_many_requests_as_are_wanted(
    limit: int, mean: float, spread: float, share: float, branches: int, seed: int
) -> None:
    talk = {
        "turns": {"kind": "normal", "mean": mean, "spread": spread},
        "think": {"kind": "exponential", "mean": 3},
        "tools": {"share": share, "time": 0.1},
        "fan_out": {"share": share, "branches": branches},
    }
    found = drawn({"conversation": talk, "cancel": {"share": share, "after": 1}}, limit, str(seed))
    assert sum(each.requests for each in found) == limit
    assert [each.number for each in found] == list(range(len(found)))
    assert all(turn.asks for each in found for turn in each.turns)
    for each in found:
        given_up = [any(ask.cancel_s for ask in turn.asks) for turn in each.turns]
        assert not any(given_up[:-1]), "who gives up goes away"
    assert drawn({"conversation": talk, "cancel": {"share": share, "after": 1}}, limit, str(seed)) == found


def test_tools_and_people_take_their_own_time() -> None:
    talk = {"turns": 200, "think": 7, "tools": {"share": 0.5, "time": 0.25, "tokens": 90}}
    (found,) = drawn({"conversation": talk}, 200)
    pauses = Counter(each.pause_s for each in found.turns)
    assert pauses.keys() == {0.0, 7.0, 0.25}
    assert 70 <= pauses[0.25] <= 130
    assert {each.asks[0].input_tokens for each in found.turns if each.pause_s == 0.25} == {90}


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({"conversation": {"turns": 0}}, "turns: a mean of 0"),
        ({"conversation": {"turns": 3, "think": 1e6}}, "more than a day"),
        ({"conversation": {}}, "turns"),
        ({"sizes": {}}, "say `prompt`"),
        ({"sizes": {"prompt": 0}}, "it must be 1 or more"),
        ({"sizes": {"prompt": 3, "file": "x.csv"}}, "give either a file"),
        ({"cancel": {"share": 0.5}}, "give either `after`"),
        ({"sizes": {"prompt": {"kind": "lognormal", "mean": 1, "spread": 1e300}}}, "more than 1000 times the mean"),
        ({"cancel": {"share": 0.5, "after": 1, "after_tokens": 3}}, "give either `after`"),
        ({"cancel": {"share": 0.5, "after_tokens": 3}}, "only a stream comes in pieces"),
        ({"cancel": {"share": 0, "after": 3}}, "greater than 0"),
        ({"arrivals": {"kind": "trace", "file": "x.csv"}, "conversation": {"turns": 3}}, "a trace has sizes"),
        ({"exercises": {}, "cancel": {"share": 1, "after": 3}}, "asked once and whole"),
        ({"prompts": {"shared_prefix_chars": 5, "shared_prefix_tokens": 5}}, "give either shared_prefix_chars"),
    ],
)
def test_a_load_that_cannot_be_is_refused(load: dict[str, Any], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        Workload.model_validate({"requests": 5} | load)


def test_a_session_is_cut_within_a_turn() -> None:
    ask = Arrival(0.0)
    session = Session(0, 0.0, (Turn(0, (ask,)), Turn(1, (ask, ask, ask)), Turn(1, (ask,))))
    assert [len(each.asks) for each in session.cut_to(3).turns] == [1, 2]
    assert session.cut_to(9) == session


async def test_the_system_is_told_which_session_a_request_belongs_to(tmp_path: Path) -> None:
    names: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        names.append(request.headers.get("x-anywire-session", ""))
        return await whole(request)

    await measured(tmp_path, handler, {"requests": 6, "conversation": TALK}, warm_up=3)
    assert names == ["w-warm_up-0"] * 3 + ["w-measured-0"] * 3 + ["w-measured-1"] * 3
    names.clear()
    await measured(tmp_path, handler, {"requests": 2})
    assert names == ["", ""]


@pytest.mark.parametrize("arrivals", [{"kind": "closed", "clients": 3}, {"kind": "poisson", "rate": 50}])
async def test_a_workload_that_ends_by_time_waits_for_no_pause_and_begins_nothing(
    tmp_path: Path, arrivals: dict[str, Any]
) -> None:
    server = Server()
    load = {"arrivals": arrivals, "seconds": 0.2, "conversation": {"turns": 3, "think": 1000}}
    async with asyncio.timeout(60):
        table = await measured(tmp_path, server.answer, load)
    assert table.num_rows == len(server.asked) > 0
    assert set(table["turn"].to_pylist()) == {0}
