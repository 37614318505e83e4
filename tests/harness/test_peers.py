"""The comparison with other routers counts what was answered and nothing else: its client, engine and arithmetic."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import SOAK, examples
from tests.patience import PATIENCE

from peers import aims, meters, rounds, workload
from peers.client import MOST_ERRORS, Clients, Connection, Tally
from peers.engine import AFTER_TOKEN, BEFORE_TOKEN, BEGIN, CHAT, END
from peers.engine import Connection as EngineConnection
from peers.figures import Figures, medians, of_phase, ratio
from peers.install import ROUTERS
from peers.ours import Anywire, anywire
from peers.report import Run, Table, notes, tables
from peers.routers import Installed, routers, version_of
from peers.systems import Command, Direct, NotReady, Place, System, _end, engines_running, running
from peers.workload import BURST_TOKENS, PACED_TOKENS, PHASES, Phase

WHOLE, STREAMS = Phase("many", 3), Phase("burst", 3, BURST_TOKENS)
US = 1000


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(token: str) -> bytes:
    return BEFORE_TOKEN + token.encode() + AFTER_TOKEN


def stream(tokens: list[str], begin: bytes = BEGIN, end: bytes = END) -> bytes:
    return begin + b"".join(piece(event(each)) for each in tokens) + end


MADE = 987_654_321_000
TOKENS = [f"@{MADE + number} " for number in range(5)]


async def answered(*parts: bytes, tokens: int = 0) -> Tally:
    """What a client counts that is given these bytes in answer to its first request."""
    tally, wire = Tally(), Wire()
    connection = Connection(b"request", tokens, tally)
    connection.connection_made(wire)
    asked = asyncio.create_task(connection.run(0))
    await asyncio.sleep(0)
    assert wire.written == [b"request"]
    for part in parts:
        connection.data_received(part)
    connection.connection_lost(None)
    try:
        await asked
    except ConnectionError as error:
        tally.fail(str(error))
    return tally


@asynccontextmanager
async def serving(protocol: Callable[[], asyncio.Protocol]) -> AsyncGenerator[str, None]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def asked_for(phase: Phase, url: str, seconds: float = 0.05) -> Tally:
    clients = Clients([url], phase)
    try:
        async with asyncio.timeout(PATIENCE):
            await clients.open()
            await clients.run(seconds)
    finally:
        clients.close()
    return clients.tally


@settings(max_examples=examples(40))
@given(st.sets(st.integers(1, len(stream(TOKENS)) - 1)), st.booleans())
def test_a_stream_is_counted_however_it_is_cut(cuts: set[int], joined: bool) -> None:
    # A router may put tokens together, or cut them anywhere.
    whole = stream(TOKENS)
    if joined:
        whole = BEGIN + piece(b"".join(event(each) for each in TOKENS[:3])) + piece(event("".join(TOKENS[3:]))) + END
    places = [0, *sorted(each for each in cuts if each < len(whole)), len(whole)]
    tally = asyncio.run(answered(*[whole[a:b] for a, b in pairwise(places)], tokens=5))
    assert (tally.errors, tally.error) == (0, "")
    assert len(tally.requests) == len(tally.firsts) == 1
    assert len(tally.arrivals) == len(tally.ways) == 5
    assert tally.arrivals == sorted(tally.arrivals)
    made = [arrival - way for arrival, way in zip(tally.arrivals, tally.ways, strict=True)]
    assert made == [US * (MADE + number) for number in range(5)]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (stream(TOKENS[:4]), "a stream of 4 tokens instead of 5"),
        (stream([*TOKENS, TOKENS[4]]), "a stream of 6 tokens"),
        (stream([*TOKENS[:3], TOKENS[4], TOKENS[3]]), "out of order"),
        (stream(TOKENS, end=b"0\r\n\r\n"), "without its end"),
        (stream([*TOKENS[:4], TOKENS[4].strip()]), "a stream of 4 tokens"),
        (stream([], begin=BEGIN.replace(b"200 OK", b"503 Busy")), "status 503"),
        (stream(TOKENS)[:-20], "closed within an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"", "closed within an answer"),
    ],
)
async def test_what_is_wrong_with_a_stream_is_an_error(data: bytes, what: str) -> None:
    tally = await answered(data, tokens=5)
    assert tally.errors == 1
    assert what in tally.error
    assert not tally.requests
    assert not tally.arrivals


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (CHAT.replace(b"200 OK", b"429 Busy"), "status 429"),
        (CHAT.replace(b"word19", b"word18"), "no answer"),
        (CHAT[:-1], "closed within an answer"),
    ],
)
async def test_what_is_wrong_with_a_whole_answer_is_an_error(data: bytes, what: str) -> None:
    tally = await answered(data)
    assert (tally.errors, tally.requests) == (1, [])
    assert what in tally.error
    well = await answered(b"HTTP/1.1 100 Continue\r\n\r\n", CHAT)
    assert (well.errors, len(well.requests)) == (0, 1)


async def test_the_engine_answers_whole_and_in_streams() -> None:
    async with serving(EngineConnection) as url:
        whole = await asked_for(WHOLE, url)
        assert (whole.errors, whole.error) == (0, "")
        assert len(whole.requests) > WHOLE.clients  # connections are kept, and asked again
        burst = await asked_for(STREAMS, url)
        assert (burst.errors, burst.error) == (0, "")
        assert len(burst.arrivals) == BURST_TOKENS * len(burst.requests) > 0
        paced = await asked_for(Phase("paced", 2, PACED_TOKENS), url)
        assert (paced.errors, paced.error) == (0, "")
        assert len(paced.arrivals) == 2 * PACED_TOKENS  # one stream each: it takes longer than the phase
        last, first = max(paced.arrivals), min(paced.arrivals)
        assert last - first > 0.9e9 * workload.PACE * (PACED_TOKENS - 1)
        assert min(paced.ways) >= 0


async def test_the_engine_answers_what_routers_ask_it() -> None:
    async with serving(EngineConnection) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        ask = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
        for path, status in (("/health", b"200"), ("/v1/models?x=1", b"200"), ("/other", b"404")):
            writer.write(ask.format(path).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == status
            await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
        writer.write(workload.request("x").replace(b"{", b"[", 1))
        assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"400"
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await reader.read()  # closed
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_closes_after_each_answer_is_asked_again() -> None:
    class Closing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            self._transport.write(CHAT.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self._transport.close()

    async with serving(Closing) as url:
        tally = await asked_for(WHOLE, url)
    assert (tally.errors, tally.error) == (0, "")
    assert len(tally.requests) > WHOLE.clients


async def test_a_phase_that_only_fails_is_given_up() -> None:
    class Refusing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.close()

    async with serving(Refusing) as url:
        tally = await asked_for(WHOLE, url, seconds=PATIENCE)
    assert MOST_ERRORS <= tally.errors < MOST_ERRORS + WHOLE.clients
    assert not tally.requests


def test_the_request_has_the_length_it_says() -> None:
    assert len(workload.PROMPT) == 300
    for tokens in (0, BURST_TOKENS):
        head, _, body = workload.request("h:1", tokens).partition(b"\r\n\r\n")
        assert int(head.rpartition(b" ")[2]) == len(body)
        assert msgspec.json.decode(body).get("stream", False) is bool(tokens)


def test_figures_count_what_lies_within_the_phase() -> None:
    tally = Tally()
    tally.requests = [(0, 100 * US), (0, 200 * US), (500 * US, 1100 * US)]
    found = of_phase(Phase("many", 2), tally, 0, 1000 * US, meters.Used(0.0003, 6))
    assert found["many_rate"] == pytest.approx(2 / 0.001)  # the third came after the end
    assert found["many_p50"] == 200
    assert found["many_cpu"] == pytest.approx(100)  # of all three
    assert found["many_wakeups"] == 2
    tally.arrivals, tally.ways, tally.firsts = [10 * US, 20 * US, 2000 * US], [5 * US, 7 * US, 9 * US], [4 * US]
    burst = of_phase(Phase("burst", 1, 2), tally, 0, 1000 * US, None)
    assert burst["burst_rate"] == pytest.approx(2 / 0.001)
    assert (burst["burst_first"], burst["burst_way"]) == (4, 7)
    assert "burst_cpu" not in burst
    assert of_phase(Phase("one", 1), Tally(), 0, 1, None) == {}


def test_a_phase_in_which_one_answer_takes_longer_than_it_has_a_rate() -> None:
    tally = Tally()
    tally.requests = [(0, 900 * US), (0, 3000 * US), (900 * US, 4000 * US)]
    found = of_phase(Phase("many", 2), tally, 0, 1000 * US, None)
    assert found["many_rate"] == pytest.approx(3 / 0.004)


def test_ratios_are_of_the_same_rounds() -> None:
    mine = {0: {"x": 2.0}, 1: {"x": 30.0}, 3: {"x": 1.0}, 4: {"y": 1.0}}
    other = {0: {"x": 1.0}, 1: {"x": 10.0}, 2: {"x": 5.0}, 4: {"x": 1.0}}
    found = ratio(mine, other, "x")
    assert found is not None
    assert (found.median, found.low, found.high, found.rounds) == (2.5, 2.0, 3.0, 2)
    assert ratio(mine, other, "y") is None
    assert medians(mine) == {"x": 2.0, "y": 1.0}


def run_of(**systems: Callable[[int], Figures]) -> Run:
    """A run of five rounds."""
    measured = [
        rounds.Measured(name.replace("_", "-"), number, figures(number))
        for number in range(5)
        for name, figures in systems.items()
    ]
    order = [name.replace("_", "-") for name in systems]
    return Run("now", "here", "abc", 5, 1.5, 1, (0.0, 0.0), order, measured=measured)


def table(run: Run, title: str) -> Table:
    return next(each for each in tables(run) if each.title.startswith(title))


def test_aims_are_reached_or_missed_by_a_factor() -> None:
    run = run_of(
        vllm_router=lambda number: {"many_rate": 1000.0 + number, "one_p50": 100.0, "paced_cpu": 10.0},
        anywire_dds=lambda number: {"many_rate": 1200.0 + number, "one_p50": 260.0, "paced_cpu": 12.0},
    )
    found = {each.aim.figure: each for each in aims.outcomes(run.sound())}
    assert set(found) == {"many_rate", "one_p50", "paced_cpu"}
    assert found["many_rate"].reached
    assert found["paced_cpu"].reached
    assert not found["one_p50"].reached
    assert found["one_p50"].missed_by == pytest.approx(2.0)
    verdicts = {row[0]: row[-1] for row in table(run, "Aims").rows}
    assert verdicts["anywire-dds: p50, 1 client"] == "missed by a factor of 2.00"


def test_an_earlier_commit_is_compared_with() -> None:
    run = run_of(
        anywire_dds=lambda number: {"many_rate": 3200.0, "many_cpu": 50.0},
        before=lambda number: {"many_rate": 2000.0, "many_cpu": 100.0},
    )
    run.suffix = "@abc"
    run.order[1] = "anywire-dds@abc"
    for each in run.measured:
        each.system = each.system.replace("before", "anywire-dds@abc")
    found = {each.aim.figure: each.reached for each in aims.outcomes(run.sound(), run.suffix)}
    assert found == {"many_rate": True, "many_cpu": True}
    assert table(run, "Times the figure of the same system").rows[0][0] == "anywire-dds"


def test_one_error_fails_the_row() -> None:
    run = run_of(
        vllm_router=lambda number: {"many_rate": 1000.0},
        anywire_dds=lambda number: {"many_rate": 1200.0},
    )
    run.measured[3].errors, run.measured[3].error = 1, "many: status 500"
    assert run.failures() == {"anywire-dds": "1 errors, the first: many: status 500"}
    rows = {row[0]: row[1:] for row in table(run, "Medians").rows}
    assert set(rows["anywire-dds (failed)"]) == {"–"}
    assert rows["vllm-router"][1] == "1,000"
    assert all(each.title != "Aims" for each in tables(run))
    assert any("status 500" in each for each in notes(run))
    assert not any("not quiet" in each for each in notes(run))
    run.measured[0].others = 1.0
    assert any("not quiet" in each for each in notes(run))
    assert msgspec.json.decode(msgspec.json.encode(run), type=Run) == run


def test_tables_are_whole_in_both_forms() -> None:
    made = Table("T", ["", "requests/s, 64 clients"], [["a|b", "1"], ["long name", "12,345"]])
    text = made.as_text().split("\n")
    assert [line.rstrip() for line in text[:3]] == ["T", "           requests/s, 64", "                  clients"]
    assert len({len(line) for line in text[-2:]}) == 1
    assert made.as_markdown().split("\n")[-2:] == ["| a\\|b | 1 |", "| long name | 12,345 |"]


def test_what_processes_use_is_counted_with_all_their_threads() -> None:
    code = (
        "import sys, threading, time\n"
        "done, held = threading.Event(), threading.Event()\n"
        "def work():\n"
        "    for _ in range(60): time.sleep(0.0005)\n"
        "    done.set(); held.wait()\n"
        "sys.stdin.readline()\n"
        "threading.Thread(target=work, daemon=True).start(); done.wait()\n"
        "end = time.process_time() + 0.05\n"
        "while time.process_time() < end: pass\n"
        "print(flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = meters.read([process.pid])
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        spent = meters.used(before, meters.read([process.pid]))
        assert meters.memory([process.pid]) > 2**20
        process.stdin.close()
    assert spent.cpu >= 0.05
    assert spent.wakeups >= 60
    assert meters.read([process.pid]) == {}


class Other(System):
    """One process of Python that does not serve."""

    def __init__(self, code: str) -> None:
        super().__init__("other")
        self._code = code

    @contextmanager
    def commands(self, place: Place) -> Generator[list[Command], None, None]:
        yield [Command([sys.executable, "-c", self._code])]


BROKEN = "print('no such option'); raise SystemExit(3)"


async def test_a_round_without_any_system_and_with_one_that_does_not_start(tmp_path: Path) -> None:
    async with engines_running(1, tmp_path / "engines") as (engines, processes):
        direct = await rounds.measure(Direct("direct"), 0, engines, processes, tmp_path / "direct", 0.1)
        broken = await rounds.measure(Other(BROKEN), 0, engines, processes, tmp_path / "broken", 0.1)
    assert (direct.errors, direct.error) == (0, "")
    assert {f"{phase.name}_rate" for phase in PHASES} <= set(direct.figures)
    assert not broken.started
    assert "no such option" in broken.error
    assert "ended with 3" in broken.error


async def test_rounds_stop_where_no_further_one_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[int, str]] = []

    async def measure(system: System, number: int, *rest: object) -> rounds.Measured:
        asked.append((number, system.name))
        await asyncio.sleep(0.02)
        return rounds.Measured(system.name, number, started=system.name != "broken")

    monkeypatch.setattr(rounds, "measure", measure)
    systems = [Direct(each) for each in ("a", "b", "c", "broken")]

    async def ordered(seed: int, minutes: float = 10.0, count: int = 4) -> list[tuple[int, str]]:
        asked.clear()
        await rounds.measure_all(
            systems, [], [], tmp_path, rounds=count, seconds=1, minutes=minutes, seed=seed, tell=lambda _: None
        )
        return list(asked)

    first = await ordered(1)
    assert [sum(number == each for each, _ in first) for number in range(4)] == [4, 3, 3, 3]
    assert await ordered(1) == first
    assert any([await ordered(seed) != first for seed in range(2, 6)])
    assert {number for number, _ in await ordered(1, minutes=0.0001)} == {0}


def test_systems_that_are_not_here_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEERS_HOME", str(tmp_path))
    known = {each.name: each for each in routers()}
    assert set(ROUTERS) <= set(known)
    for name in ROUTERS:
        assert f"--install {name}" in known[name].missing()
        assert known[name].version() == ""
    made = tmp_path / "smg" / "lib" / "python3.11" / "site-packages" / "smg-1.2.3.dist-info"
    made.mkdir(parents=True)
    assert version_of("smg", "smg") == "1.2.3"
    assert "no transport nowhere" in Anywire("x", "nowhere").missing()
    assert isinstance(known["smg"], Installed)


@pytest.mark.skipif(not SOAK, reason="measures two systems for some seconds; in the long form")
async def test_anywire_and_a_proxy_are_measured(tmp_path: Path) -> None:
    wanted = {"anywire-memory", "anywire-dds-openai", "aiohttp-proxy"}
    systems = [each for each in [*anywire(), *routers()] if each.name in wanted]
    assert {each.name for each in systems} == wanted
    async with engines_running(2, tmp_path / "engines") as (engines, processes):
        for system in systems:
            found = await rounds.measure(system, 0, engines, processes, tmp_path / system.name, 0.3)
            assert (found.errors, found.error) == (0, ""), system.name
            assert {f"{phase.name}_cpu" for phase in PHASES} <= set(found.figures)
            assert found.figures["paced_way"] > 0


async def test_a_system_that_never_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("peers.systems.READY_TIMEOUT", 0.2)
    began = time.monotonic()
    with pytest.raises(NotReady, match="not ready after"):
        async with running(Other("import time; time.sleep(600)"), [], tmp_path / "idle"):
            pass
    assert time.monotonic() - began < PATIENCE


async def test_a_system_that_hangs_is_asked_in_no_further_phase(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = 0

    class Hanging(EngineConnection):
        """Answers the first request of each connection, and no further one; streams hang at once."""

        def on_message_complete(self) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                super().on_message_complete()

    monkeypatch.setattr("peers.client.PATIENCE", 0.2)
    async with serving(Hanging) as url:
        found = await rounds.measure(Direct("direct"), 0, [url], [], tmp_path / "direct", 0.1)
    assert found.started
    assert found.error == "warm: no answer 0 s after the end of the phase"
    assert (found.errors, found.figures) == (1, {})
    assert asked <= 2 + rounds.WARM_UP[0].clients  # one or two until it was ready


async def test_a_system_is_ended_also_where_a_process_of_it_ends_just_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    monkeypatch.setattr("peers.systems.with_children", lambda pids: [*pids, ended.pid])
    monkeypatch.setattr("psutil.pid_exists", lambda pid: True)  # it was there a moment ago
    monkeypatch.setattr("peers.systems.READY_TIMEOUT", 0.1)
    started: list[subprocess.Popen[bytes]] = []

    def end(given: Sequence[subprocess.Popen[bytes]]) -> None:
        started.extend(given)
        _end(given)

    monkeypatch.setattr("peers.systems._end", end)
    with pytest.raises(NotReady, match="not ready after"):
        async with running(Other("import time; time.sleep(600)"), [], tmp_path / "idle"):
            pass
    assert [each.poll() is not None for each in started] == [True]
