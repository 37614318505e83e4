"""The load generator: when it sends, what it writes down of answers good and bad, and that a stall cannot hide."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from tests.experiment.answering import HEADERS, USAGE, Handler, events, gateway, measured, piece, streamed, whole

from anywire.errors import AgentUnavailable, ConfigError
from anywire_experiment.load.arrivals import arrivals
from anywire_experiment.load.generator import Generator
from anywire_experiment.load.openai_http import HttpTarget
from anywire_experiment.load.prompts import PromptMaker
from anywire_experiment.load.rows import Rows
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traces import read_trace
from anywire_experiment.plan.workload import Bursts, Poisson, Prompts, Trace, Workload


async def outcomes(tmp_path: Path, handler: Handler, **workload: Any) -> list[str]:
    table = await measured(tmp_path, handler, {"requests": 3} | workload)
    return [str(each) for each in table["outcome"].to_pylist()]


async def test_a_whole_answer_is_written_down(tmp_path: Path) -> None:
    table = await measured(tmp_path, whole, {"requests": 4}, warm_up=2)
    assert table["phase"].to_pylist() == ["measured"] * 4 + ["warm_up"] * 2
    row = table.to_pylist()[0]
    assert (row["outcome"], row["status"], row["tokens"], row["transport"]) == ("ok", 200, 2, "dds")
    assert (row["agent"], row["task_id"], row["attempts"]) == ("a1", "t1", 2)
    assert row["intended_ns"] <= row["sent_ns"] <= row["first_ns"] == row["done_ns"]
    assert len(set(table["text_hash"].to_pylist())) == 1


async def test_a_stream_has_the_time_of_each_piece(tmp_path: Path) -> None:
    row = (await measured(tmp_path, streamed, {"requests": 1, "stream": True})).to_pylist()[0]
    assert (row["outcome"], row["tokens"], len(row["piece_ns"])) == ("ok", 2, 2)
    assert row["sent_ns"] <= row["first_ns"] == row["piece_ns"][0] <= row["piece_ns"][1] <= row["done_ns"]


async def test_a_stream_that_began_before_its_transport_was_known_is_not_judged_by_it(tmp_path: Path) -> None:
    async def begun(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"data: {piece('hello')}\n\ndata: [DONE]\n\n".encode())
        return response

    assert await outcomes(tmp_path, begun, stream=True) == ["ok"] * 3


async def test_every_failure_is_a_row_with_its_cause(tmp_path: Path) -> None:
    async def refused(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": "queue_full", "message": "", "type": "x"}}, status=429)

    async def plain(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="bad gateway")

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        answer = await whole(request)
        answer.headers["x-anywire-transport"] = "http"
        return answer

    async def unnamed(request: web.Request) -> web.StreamResponse:
        answer = await whole(request)
        del answer.headers["x-anywire-transport"]
        return answer

    async def empty(request: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": ""}}]}, headers=HEADERS)

    async def dropped(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async def broken_off(request: web.Request) -> web.StreamResponse:
        return await events(request, piece("hel"), json.dumps({"error": {"code": "agent_lost", "message": "x"}}))

    async def cut(request: web.Request) -> web.StreamResponse:
        return await events(request, piece("hel"), piece("lo"))

    assert await outcomes(tmp_path, refused) == ["queue_full"] * 3
    assert await outcomes(tmp_path, plain) == ["http_502"] * 3
    assert await outcomes(tmp_path, elsewhere) == ["wrong_transport"] * 3
    assert await outcomes(tmp_path, unnamed) == ["wrong_transport"] * 3
    assert await outcomes(tmp_path, empty) == ["no_tokens"] * 3
    assert await outcomes(tmp_path, dropped) == ["connection"] * 3
    assert await outcomes(tmp_path, never, timeout=0.05) == ["timeout"] * 3
    assert await outcomes(tmp_path, broken_off, stream=True) == ["agent_lost"] * 3
    assert await outcomes(tmp_path, cut, stream=True) == ["cut"] * 3


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + "\n\n", "ok"),
        ("[DONE]\n\n", "ok"),
        ("[DONE]\n", "ok"),
        ("[DONE]", "ok"),
        (piece("you") + "\n\n", "cut"),
        (piece("you"), "cut"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_may_end_with_its_connection(tmp_path: Path, version: str, last: str, outcome: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = f"data: {piece('hello')}\n\ndata: {last}"
        if head.startswith("GET"):
            body = json.dumps({"data": [{"id": "m"}]})
        writer.write(f"HTTP/{version} 200 OK\r\nx-anywire-transport: dds\r\n\r\n{body}".encode())
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()

    workload = Workload.model_validate({"requests": 2, "stream": True, "warm_up": {"requests": 0, "limit": 0}})
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        target, rows = HttpTarget(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Rows()
        generator = Generator("w", workload, target, rows, seed=1, transports=frozenset({"dds"}))
        await generator.warm_up()
        await generator.measure(lambda at_ns: None)
        await target.close()
        rows.write(tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet")["outcome"].to_pylist() == [outcome] * 2


async def test_a_stall_of_the_system_shows_in_every_request_meant_for_that_time(tmp_path: Path) -> None:
    """Coordinated omission: 100 requests are due in one second, and for the first half the server answers nobody. A
    generator that measures from when it got round to sending would find a handful of slow ones."""
    stall, began = 0.5, 0.0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal began
        began = began or time.monotonic()
        await asyncio.sleep(max(0.0, began + stall - time.monotonic()))
        return await whole(request)

    table = await measured(tmp_path, handler, {"arrivals": {"kind": "poisson", "rate": 100}, "seconds": 1.0})
    late = (table["done_ns"].to_numpy() - table["intended_ns"].to_numpy()) / 1e9
    since = (table["intended_ns"].to_numpy() - table["intended_ns"].to_numpy().min()) / 1e9
    early = since < stall * 0.9
    assert early.sum() > 20
    assert (late[early] >= stall - since[early] - 0.01).all()


async def test_clients_of_a_closed_loop_share_the_requests(tmp_path: Path) -> None:
    under_way = most = 0
    seven = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 7:
            seven.set()
        await seven.wait()
        under_way -= 1
        return await whole(request)

    table = await measured(tmp_path, handler, {"requests": 50, "arrivals": {"kind": "closed", "clients": 7}})
    assert most == 7
    assert sorted(table["index"].to_pylist()) == list(range(50))
    assert set(table["client"].to_pylist()) == set(range(7))


async def test_equal_seeds_ask_the_same(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked[-1].append((await request.json())["messages"][0]["content"])
        return await whole(request)

    for _ in range(2):
        asked.append([])
        await measured(tmp_path, handler, {"requests": 5, "prompts": {"kind": "medium"}})
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 5


@pytest.mark.parametrize(("workload", "sent"), [({}, 0), ({"temperature": 0.7}, 0.7)])
async def test_answers_are_not_drawn_unless_asked_for(tmp_path: Path, workload: dict[str, Any], sent: float) -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await whole(request)

    await measured(tmp_path, handler, {"requests": 1, "max_tokens": 7} | workload)
    assert [(each["temperature"], each["max_tokens"]) for each in bodies] == [(sent, 7)]


def test_poisson_arrivals_have_their_rate_and_are_memoryless() -> None:
    process = arrivals(Poisson(rate=50), np.random.default_rng(1), Path())
    times = np.array([next(process).at for _ in range(20_000)])
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03


def test_bursts_come_together() -> None:
    process = arrivals(Bursts(size=3, every=0.5), np.random.default_rng(1), Path())
    assert [next(process).at for _ in range(7)] == [0, 0, 0, 0.5, 0.5, 0.5, 1.0]


def test_a_public_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.2299600,100,3\n"
    )
    first, second = read_trace(path, Trace(file=path, speed=2.0))
    assert first == Arrival(0.0, 4808, 10)
    assert second.at == pytest.approx(0.125)
    assert second._replace(at=0.0) == Arrival(0.0, 100, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "the header must name the columns of its format .anywire: arrival_s"),
        ("arrival_s,input_tokens,output_tokens\n", "no requests"),
        ("arrival_s,input_tokens,output_tokens\n0,1,2\nsoon,1,2\n", "line 3"),
        ("arrival_s,input_tokens,output_tokens\n0,-1,2\n", "line 2: input_tokens is from 0 to 1000000, not -1"),
        ("arrival_s,input_tokens,output_tokens\n0,1\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens,deadline_s\n0,1,1,-2\n", "line 2: a deadline is from 0"),
        ("arrival_s,input_tokens,output_tokens,tenant\n0,1,1,a b\n", "line 2: a tenant has"),
        ("arrival_s,input_tokens,output_tokens,priority\n0,1,1,high\n", "line 2"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_trace(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


def test_shared_beginnings_follow_their_law() -> None:
    prompts = Prompts(kind="chars", chars=400, shared_prefix_chars=200, prefixes=4, skew=1.0)
    maker = PromptMaker(prompts, seed=2, shared=1)
    texts = [maker.messages()[0]["content"] for _ in range(2000)]
    assert {len(text) for text in texts} == {400}
    assert len(set(texts)) == 2000
    counts = sorted(sum(text[:200] == prefix for text in texts) for prefix in {text[:200] for text in texts})
    expected = 2000 / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    assert len(counts) == 4
    assert counts[-1] == pytest.approx(expected, rel=0.1)


def test_beginnings_are_the_same_in_all_phases_and_take_turns_in_the_warm_up() -> None:
    prompts = Prompts(kind="simple", shared_prefix_chars=50, prefixes=3)

    def beginnings(maker: PromptMaker, numbers: list[int]) -> list[str]:
        return [maker.messages(prefix_number=number)[0]["content"][:50] for number in numbers]

    warm = beginnings(PromptMaker(prompts, 1, shared=7, in_turn=True), [0] * 6)
    assert warm[:3] == warm[3:]
    assert len(set(warm)) == 3
    other = PromptMaker(prompts, 2, shared=7)
    assert set(beginnings(other, [0] * 30)) == set(warm)
    assert beginnings(other, [1, 2, 3, 4]) == [*warm[:3], warm[0]]
    assert not set(beginnings(PromptMaker(prompts, 1, shared=8), [1, 2, 3])) & set(warm)


async def test_the_warm_up_reads_each_beginning_once_and_each_client_asks_for_its_tenant(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        text = (await request.json())["messages"][0]["content"]
        asked.append((text[:60], request.headers["x-anywire-tenant"]))
        return await whole(request)

    prompts = {"kind": "simple", "shared_prefix_chars": 60, "prefixes": 4}
    loop = {"arrivals": {"kind": "closed", "clients": 3}, "tenants": {"greedy": 2, "modest": 1}}
    await measured(tmp_path, handler, {"requests": 30, "prompts": prompts, **loop}, warm_up=4)
    assert len({beginning for beginning, _ in asked[:4]}) == 4
    assert {beginning for beginning, _ in asked[4:]} <= {beginning for beginning, _ in asked[:4]}
    assert {tenant for _, tenant in asked} == {"greedy", "modest"}


async def test_what_a_trace_says_of_a_request_is_sent_with_it(tmp_path: Path) -> None:
    headers: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        told = ("x-anywire-priority", "x-anywire-timeout", "x-anywire-tenant")
        headers.append({name: request.headers.get(name, "") for name in told})
        return await whole(request)

    path = tmp_path / "trace.csv"
    path.write_text(
        "arrival_s,input_tokens,output_tokens,priority,deadline_s,tenant\n0,10,2,4,2.5,a\n0.01,10,2,,,\n0.02,10,2,0,0,b\n"
    )
    given = {"priorities": {1: 1}, "deadlines": {9: 1}, "tenants": {"c": 1}}
    table = await measured(tmp_path, handler, {"arrivals": {"kind": "trace", "file": str(path)}} | given)
    assert [tuple(each.values()) for each in headers] == [("4", "2.5", "a"), ("1", "9", "c"), ("", "9", "b")]
    assert table["deadline_s"].to_pylist() == [2.5, 9.0, 9.0]
    assert table["priority"].to_pylist() == [4, 1, 0]


async def test_the_process_runs_what_it_is_told_and_writes_the_file(tmp_path: Path) -> None:
    spec, out = tmp_path / "spec.json", tmp_path / "out.parquet"
    async with gateway(whole) as url:
        workload = {"requests": 5, "warm_up": {"requests": 2, "limit": 2}}
        told = {"workloads": {"b0": workload}, "out": str(out), "seed": 1, "url": url, "transports": ["dds"]}
        spec.write_text(json.dumps(told))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "anywire_experiment.load", str(spec)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        said = [json.loads(await process.stdout.readline())]
        for command in ("warm_up", "measure", "finish"):
            process.stdin.write(json.dumps({"do": command, "workload": "b0"}).encode() + b"\n")
        said += [json.loads(line) async for line in process.stdout]
        assert await process.wait() == 0
        process.stdin.close()
    assert [each["event"] for each in said] == ["ready", "warmed_up", "began", "ended", "written"]
    assert said[1] == {"event": "warmed_up", "workload": "b0", "requests": 2, "steady": None}
    assert (said[3]["requests"], said[3]["failed"]) == (5, 0)
    assert said[2]["at_ns"] <= said[3]["at_ns"]
    assert pq.read_table(out).num_rows == 7


async def test_the_process_says_what_keeps_it_from_working(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"workloads": {"b0": {"requests": 1}}, "out": "o", "seed": 1, "url": ""}))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "anywire_experiment.load", str(spec)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(b'{"do": "warm_up", "workload": "b0"}\n')
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "error"
    assert "the spec has no url" in last["message"]
    assert process.returncode == 1


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("field", ["data: ", "data:", "event: message\ndata: ", ": comment\n\ndata: "])
async def test_streams_are_read_as_any_server_writes_them(tmp_path: Path, end: str, field: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        await response.prepare(request)
        text = "".join(
            f"{field}{said}{end}" for said in (piece("hel"), piece("lo"), json.dumps({"usage": USAGE}), "[DONE]")
        )
        for at in range(0, len(text), 7):  # in parts that end anywhere
            await response.write(text[at : at + 7].encode())
        return response

    row = (await measured(tmp_path, handler, {"requests": 1, "stream": True})).to_pylist()[0]
    assert (row["outcome"], row["tokens"], len(row["piece_ns"])) == ("ok", 2, 2)


async def test_a_connection_that_the_server_closes_is_not_used_again(tmp_path: Path) -> None:
    async def closing(request: web.Request) -> web.StreamResponse:
        answer = await whole(request)
        answer.force_close()
        return answer

    assert await outcomes(tmp_path, closing, requests=5) == ["ok"] * 5


async def test_what_a_server_claims_of_its_tokens_breaks_nothing(tmp_path: Path) -> None:
    async def boasting(request: web.Request) -> web.StreamResponse:
        choice = {"message": {"content": "hello"}}
        usage = {"completion_tokens": 2**40}
        return web.json_response(
            {"choices": [choice], "usage": usage}, headers=HEADERS | {"x-anywire-attempts": "9" * 30}
        )

    row = (await measured(tmp_path, boasting, {"requests": 1})).to_pylist()[0]
    assert (row["outcome"], row["tokens"]) == ("ok", 0)


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"data": ["m"]}', '{"data": [{}]}', '{"data": 3}', '{"data": []}', "[" * 100_000, "no JSON"]
)
async def test_a_server_that_does_not_tell_its_models_is_told_of(body: str) -> None:
    async def models(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        target = HttpTarget(f"http://127.0.0.1:{runner.addresses[0][1]}")
        with pytest.raises(AgentUnavailable, match="model"):
            await target.first_model()
        await target.close()
    finally:
        await runner.cleanup()
