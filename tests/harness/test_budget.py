"""The budget of a request: what is read of the kernel's files and of the profilers' output, and what comes of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

import pytest
from tests.patience import PATIENCE

from budget_processes import LOOP, Use, read_uses, spent, together
from budget_profiles import KERNEL, NativeSample, PythonProfile, read_calls, read_perf, read_stacks
from budget_tables import Measured, area, overview, table, tables
from peers.engine import Connection
from peers.workload import PACED_TOKENS, Phase
from staged_load import PHASES, Found, ask_for, read_stages

UNARY, BURST = PHASES[0], PHASES[2]

PERF = """\
          python 100/100      7f2c01a2b3 _PyEval_EvalFrameDefault (/usr/bin/python3.11)
          python 100/100  ffffffff81a3c0 copy_user_generic (inlined) ([kernel.kallsyms])
        dq.user   100/104: 7f2c0177b3 ddsi_handle (part) (/lib/libddsc-1a2b.so.11)
            recv  200/203  7f2c0177b3 [unknown] (/lib/libddsc-1a2b.so.11)
warning: no sample
"""


def test_samples_of_perf() -> None:
    assert read_perf(PERF) == [
        NativeSample(100, LOOP, "python3.11", "_PyEval_EvalFrameDefault"),
        NativeSample(100, LOOP, KERNEL, "copy_user_generic (inlined)"),
        NativeSample(100, "dq.user", "libddsc-1a2b.so.11", "ddsi_handle (part)"),
        NativeSample(200, "recv", "libddsc-1a2b.so.11", "[unknown]"),
    ]


def test_stacks_of_py_spy() -> None:
    profile = read_stacks(
        [
            "run (asyncio/runners.py:118);take (anywire/task_stream.py:98) 3\n",
            "run (asyncio/runners.py:118);take (anywire/task_stream.py:98);take (anywire/task_stream.py:99) 2\n",
            "run (asyncio/runners.py:118) 5\n",
            "process 12 without a count\n",
            "Thread._bootstrap (threading.py:1002);_worker (concurrent/futures/thread.py:81) 9\n",
            "\n",
        ]
    )
    assert profile.samples == 10
    assert profile.own == {"take (anywire/task_stream.py)": 5, "run (asyncio/runners.py)": 5}
    assert profile.lines["take (anywire/task_stream.py:99)"] == 2
    assert profile.total["take (anywire/task_stream.py)"] == 5, "a function within itself counts once"
    assert profile.total["run (asyncio/runners.py)"] == 10


def test_calls_of_strace() -> None:
    summary = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.11    0.000110           1        88           sendto
 38.89    0.000070           2        35         4 epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000180           1       123         4 total
"""
    assert read_calls(summary) == {"sendto": 88, "epoll_wait": 35}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_threads_have_used() -> None:
    parts = {"client": [os.getpid()]}
    before = read_uses(parts)
    deadline = before["client", LOOP].seconds + 0.01
    while read_uses(parts)["client", LOOP].seconds < deadline:
        sum(range(1000))
    used = spent(before, read_uses(parts))
    assert used["client", LOOP].seconds >= 0.01
    assert all(use.slept >= 0 and use.displaced >= 0 for use in used.values())


def test_times_are_shares_of_what_was_measured() -> None:
    found = Found(2.0, 1000, [100.0] * 1000, [], {"sent-agent_received": [0.02, 0.04, 0.03]})
    uses = {("orchestrator", LOOP): Use(0.1, 500, 0), ("orchestrator", "recv"): Use(0.02, 2000, 10)}
    measured = Measured("dds", UNARY, found, uses)
    measured.native = Counter(
        {
            ("orchestrator", LOOP, KERNEL, "send"): 10,
            ("orchestrator", LOOP, "python3.11", "eval"): 30,
            ("orchestrator", "recv", "libddsc", "read"): 5,
        }
    )
    measured.python["orchestrator"] = PythonProfile(
        100, Counter({"a (x.py)": 75, "b (y.py)": 25}), Counter(), Counter({"a (x.py)": 100, "b (y.py)": 25})
    )
    assert measured.microseconds("orchestrator") == pytest.approx(120)
    native = measured.native_microseconds("orchestrator")
    assert native[LOOP, KERNEL, "send"] == pytest.approx(25)
    assert native["recv", "libddsc", "read"] == pytest.approx(20)
    assert measured.function_microseconds("orchestrator")["a (x.py)"] == pytest.approx((75, 100))
    text = tables(measured)
    assert "p50 100" in text
    assert "| sent-agent_received | 30.0 |" in text
    assert "| before, after: HTTP and the client | 70.0 |" in text
    assert "| orchestrator | loop | 100.0 | 25.0 | 0.50 | 0.00 |" in text
    assert "| `a (x.py)` | 75.00 | 100.00 |" in text
    whole = overview([measured])
    assert "| `dds`, one client | 100 | 500 | 120.0 | – | – | – |" in whole
    assert "| sent-agent_received | 30 |" in whole


def test_packages() -> None:
    assert area("take (anywire/task_stream.py)") == "anywire"
    assert area("push (anywire/pipeline/intake/incoming.py)") == "anywire/pipeline/intake"
    assert area("start (aiohttp/web_protocol.py)") == "aiohttp"
    assert area("answer (anywire/roles/agent_run.py)") == "anywire/roles"


def test_an_empty_table_has_its_head() -> None:
    assert table(("a", "b"), []) == "| a | b |\n|---|---|"


@pytest.mark.parametrize("phase", [UNARY, BURST, Phase("paced", 2, PACED_TOKENS)], ids=lambda phase: phase.name)
async def test_clients_get_stamped_answers(phase: Phase) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    async with server, asyncio.timeout(PATIENCE):
        port = server.sockets[0].getsockname()[1]
        found = await ask_for(phase, f"http://127.0.0.1:{port}", 0.01)
    assert found.answers >= phase.clients
    assert len(found.times) == found.answers
    assert len(found.ways) == found.answers * phase.tokens
    assert all(way >= 0 for way in found.ways)


async def test_a_server_that_refuses_ends_the_load() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE):
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RuntimeError, match="401 Unauthorized"):
            await ask_for(BURST, f"http://127.0.0.1:{port}", 10.0)


def test_stages_of_whole_and_of_streamed_answers() -> None:
    whole = b"HTTP/1.1 200 OK\r\nX-Anywire-Stages: received-admitted;dur=0.012, admitted-selected;dur=0.002\r\n\r\n{}"
    streamed = b'data: {}\n\n: anywire {"stages":{"received-admitted":0.014}}\ndata: [DONE]\n\n'
    assert read_stages([whole, streamed, b"nothing"]) == {
        "received-admitted": [0.012, 0.014],
        "admitted-selected": [0.002],
    }


def test_what_was_found_in_turns_counts_together() -> None:
    one, two = Found(1.0, 2, [1.0, 2.0], [], {"a-b": [0.1]}), Found(2.0, 1, [3.0], [], {"a-b": [0.3], "b-c": [0.2]})
    both = one.plus(two)
    assert (both.seconds, both.answers, both.times) == (3.0, 3, [1.0, 2.0, 3.0])
    assert both.median_stages() == pytest.approx({"a-b": 200.0, "b-c": 200.0})


def test_a_thread_that_worked_at_one_of_two_times_counts_once() -> None:
    one = {("agents", "recv"): Use(2.0, 20, 1), ("agents", LOOP): Use(1.0, 5)}
    other = {("agents", LOOP): Use(4.0, 3, 2), ("orchestrator", LOOP): Use(0.5)}
    assert together(one, other) == {
        ("agents", "recv"): Use(2.0, 20, 1),
        ("agents", LOOP): Use(5.0, 8, 2),
        ("orchestrator", LOOP): Use(0.5),
    }
