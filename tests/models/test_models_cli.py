"""``anywire models``: what it prints, whom it asks, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.anywire_processes import Process, start
from tests.integration.finished_commands import commands, commands_end
from tests.models.simulated_models import BROKEN, FAULT, LINES, MODELS, SimulatedModels
from tests.models.tiny_model import tiny, written_tiny
from tests.patience import PATIENCE

from anywire.errors import AgentLost, AgentUnavailable, AnywireError, ConfigError, ModelNotFound, ShuttingDown
from anywire.files.live_records import RecordFile
from anywire.not_understood import NotUnderstood
from anywire.testing.patience import expect
from anywire_engine_models.cli import asking, followed_log
from anywire_engine_models.cli.places import Models
from anywire_engine_models.local_api.records import LocalApiRecord, records_folder
from anywire_engine_models.local_api.server import LocalApi
from reserved import free_port

__all__ = ["commands_end", "start", "tiny", "written_tiny"]  # fixtures

ONE, TWO, _ = MODELS
Run = Callable[..., Awaitable["subprocess.CompletedProcess[str]"]]

pytestmark = pytest.mark.timeout(120)


def environment(**more: str) -> dict[str, str]:
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")} | wide | more


async def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``anywire models …``, run to its end while the event loop of the test goes on."""
    return await asyncio.to_thread(commands.finished, ["models", *arguments], environment(**more))


@pytest.fixture
async def engine() -> SimulatedModels:
    return SimulatedModels()


@pytest.fixture
async def api(engine: SimulatedModels) -> AsyncIterator[LocalApi]:
    api = LocalApi(engine, engine.listen)
    await api.begin()
    yield api
    await api.close()


# Beside an agent


async def test_the_list_shows_states_memory_devices_and_faults(api: LocalApi, engine: SimulatedModels) -> None:
    engine.change(ONE, "running", device="gpu:0", serving=1, pinned=True, reason="asked to")
    done = await run("list")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{ONE} +running +gpu:0 +1 GB +1 +pinned +asked to *$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(rf"^{TWO} +stopped +1 GB +on demand *$", done.stdout, re.MULTILINE), done.stdout
    assert "memory: 1 GB of 12 GB used; 3 starts, for 1 of which another model was stopped (0.5 s each)" in done.stdout
    assert "gpu:0 a card: 1 GB of 8 GB free (simulated)" in done.stdout
    assert FAULT in done.stderr
    told = json.loads((await run("list", "--json")).stdout)
    assert [each["model"] for each in told["models"]] == list(MODELS)
    assert len(told["devices"]) == 1


async def test_a_model_is_started_shown_and_stopped(api: LocalApi) -> None:
    done = await run("start", ONE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ONE} is running on cpu (pid 4711), loaded in 1.5 s\n"
    assert done.stderr.splitlines() == [f"{ONE} is starting on cpu", f"{ONE} is starting on cpu: 50% loaded"]
    shown = (await run("status", ONE)).stdout
    for line in (r"state +running", r"process +pid 4711", r"memory +1 GB", r"context +4096", r"digest +sha256:00"):
        assert re.search(rf"^ *{line}", shown, re.MULTILINE), shown
    assert (await run("pin", ONE)).stdout == f"{ONE} is running on cpu (pid 4711), loaded in 1.5 s, pinned\n"
    refused = await run("stop", ONE, "--if-idle")
    assert refused.returncode == 1
    assert "unpin it first" in refused.stderr
    assert "pinned" not in (await run("unpin", ONE)).stdout
    assert (await run("stop", ONE)).stdout == f"{ONE} is stopped\n"
    assert json.loads((await run("start", ONE, "--json")).stdout)["state"] == "running"


async def test_a_start_that_fails_says_why_and_status_has_the_last_lines(api: LocalApi) -> None:
    done = await run("start", BROKEN)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "killed by SIGKILL" in done.stderr
    assert "Traceback" not in done.stderr
    shown = (await run("status", BROKEN)).stdout
    assert re.search(r"state +crashed", shown)
    assert shown.endswith("it wrote last:\n  loading\n  out of memory\n")
    assert "killed by SIGKILL" in (await run("list")).stdout


def heed_ctrl_c() -> None:
    """Whoever has started the tests may ignore it (``nohup``), and what they start then ignores it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def following(*over: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``anywire models logs -f`` from the newest line on."""
    follower = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", "models", "logs", "-f", "-n", "1", ONE, *over,
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    try:
        yield follower
    finally:
        if follower.returncode is None:
            follower.kill()
            await follower.wait()


async def test_logs_are_printed_and_followed_until_ctrl_c(api: LocalApi, engine: SimulatedModels) -> None:
    done = await run("logs", ONE, "-n", "2")
    assert done.stdout == "listening\né\\u2028 half\n"
    told = [json.loads(line) for line in (await run("logs", ONE, "--json")).stdout.splitlines()]
    assert [each["line"] for each in told] == list(LINES)
    assert (await run("logs", ONE, "--after", told[0]["id"])).stdout == done.stdout
    begun_anew = await run("logs", ONE, "--after", "0-1")
    assert len(begun_anew.stdout.splitlines()) == len(LINES)
    assert "the log has begun anew" in begun_anew.stderr
    async with following() as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert await expect(follower.stdout.readline(), "the newest line", PATIENCE) == "é\\u2028 half\n".encode()
        engine.log.add("\x1b[31mred\x1b[0m")
        assert await expect(follower.stdout.readline(), "a further line", PATIENCE) == b"\\x1b[31mred\\x1b[0m\n"
        follower.send_signal(signal.SIGINT)
        assert await expect(follower.wait(), "it ends", PATIENCE) == 0
        assert await follower.stderr.read() == b""
    await expect(engine.idle.wait(), "the log is followed no more")


async def test_a_log_that_is_followed_goes_on_after_a_restart_of_its_agent(engine: SimulatedModels) -> None:
    before, after = LocalApi(engine, engine.listen), LocalApi(engine, engine.listen)
    await before.begin()
    async with following() as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert await expect(follower.stdout.readline(), "the newest line", PATIENCE) == "é\\u2028 half\n".encode()
        await before.close()
        engine.log.add("meanwhile")
        said = (await expect(follower.stderr.readline(), "it says that it asks again", PATIENCE)).decode()
        assert "the log broke off" in said
        await after.begin()
        assert await expect(follower.stdout.readline(), "what came meanwhile", PATIENCE) == b"meanwhile\n"
        engine.log.add("later")
        assert await expect(follower.stdout.readline(), "what comes later", PATIENCE) == b"later\n"
        follower.send_signal(signal.SIGINT)
        assert await expect(follower.wait(), "it ends", PATIENCE) == 0
        assert await follower.stderr.read() == b"", "it is said once"
    await after.close()


async def test_a_start_that_is_interrupted_says_so(api: LocalApi, engine: SimulatedModels) -> None:
    engine.go_on = asyncio.Event()
    starting = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", "models", "start", ONE,
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    assert starting.stderr is not None
    try:
        assert b"is starting" in await expect(starting.stderr.readline(), "the start is told", PATIENCE)
        starting.send_signal(signal.SIGINT)
        assert await expect(starting.wait(), "it ends", PATIENCE) == 130
        assert b"Traceback" not in await starting.stderr.read()
    finally:
        if starting.returncode is None:
            starting.kill()
            await starting.wait()
    await expect(engine.idle.wait(), "the agent is asked no more")


async def test_a_terminal_shows_a_bar(api: LocalApi, engine: SimulatedModels) -> None:
    engine.go_on = asyncio.Event()
    ours, theirs = pty.openpty()
    seen, half = bytearray(), asyncio.Event()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65536))
        except OSError:  # the other end is closed
            loop.remove_reader(ours)
        if b"50% loaded" in seen and "━".encode() in seen:
            half.set()

    loop = asyncio.get_running_loop()
    starting = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anywire.cli", "models", "start", ONE,
        env=environment(TERM="xterm"), stdout=asyncio.subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    loop.add_reader(ours, read)
    try:
        await expect(half.wait(), "the bar is half full", PATIENCE, lambda: bytes(seen).decode(errors="replace"))
        engine.go_on.set()
        out, _ = await expect(starting.communicate(), "it ends", PATIENCE)
        assert out.decode() == f"{ONE} is running on cpu (pid 4711), loaded in 1.5 s\n"
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        if starting.returncode is None:
            starting.kill()
            await starting.wait()


async def test_models_are_added_and_imported(api: LocalApi, engine: SimulatedModels, tmp_path: Path) -> None:
    done = await run("add", "tiny.gguf", "--id", "local:a:b:2", "--with", "on_demand=true", "--with", "context=2048")
    assert done.stdout == "added local:a:b:2\n"
    assert engine.carried_out[-1] == (
        "models.add",
        {
            "model_file_path": str(Path.cwd() / "tiny.gguf"),
            "full_identifier": "local:a:b:2",
            "provider": "local",
            "name": "a:b",
            "version": "2",
            "settings": {"on_demand": True, "context": 2048},
        },
    )
    done = await run("import", "gguf", str(tmp_path))
    assert done.stdout.splitlines() == [
        "added local:three:1",
        "added local:four:1",
        f"left out {tmp_path}: it is no GGUF file",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["start", "nope"], 1, ["error: no model 'nope' is known here"]),
        (["status", "nope"], 1, ["no model 'nope'"]),
        (["logs", "nope", "-f"], 1, ["no model 'nope'"]),
        (["list", "--api", "http://127.0.0.1:9"], 1, ["no agent of yours has its routes at http://127.0.0.1:9", "pid"]),
        (["list", "--api", "http://127.0.0.1:9", "--agent", "a"], 2, ["give one of --agent, --api and --registry"]),
        (["add"], 2, ["FILE", "command"]),
        (["add", "x.gguf", "--id", "x"], 2, ["PROVIDER:NAME:VERSION"]),
        (["add", "x.gguf", "--with", "context"], 2, ["KEY=VALUE"]),
        (["add", "x.gguf", "--with", "context=[1"], 2, ["YAML"]),
        (["add", "x.gguf", "--agent", "a"], 2, ["absolute path"]),
        (["start"], 2, ["MODEL"]),
        (["nonsense"], 2, ["nonsense"]),
    ],
)
async def test_what_is_wrong_is_said(api: LocalApi, arguments: list[str], code: int, parts: list[str]) -> None:
    done = await run(*arguments)
    assert done.returncode == code, done.stderr
    for part in parts:
        assert part in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


class Says:
    """An agent that answers every command with these results."""

    def __init__(self, *results: Any) -> None:
        self._results = results

    def ask(self, work: Callable[[Models], Awaitable[Any]]) -> Any:
        async def ask() -> Any:
            return await work(self)

        return asyncio.run(ask())

    def path_of(self, text: str) -> str:
        return text

    async def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        for each in self._results:
            yield each


SHOWING: tuple[Callable[[Says], None], ...] = (
    lambda agent: asking.show_models(agent, False),
    lambda agent: asking.start_model(agent, ONE, False),
    lambda agent: asking.change_model(agent, "models.stop", {"model": ONE}, False),
    lambda agent: asking.show_status(agent, ONE, False),
    lambda agent: asking.import_models(agent, "gguf", "/", False),
)


@pytest.mark.parametrize("value", [5, "x", [1], {"a": 1}, True, 1e308, float("nan")])
@pytest.mark.parametrize("name", ["since", "exit", "device", "load_seconds", "progress", "memory_bytes"])
def test_nonsense_of_an_agent_is_shown_or_said_to_be_none(name: str, value: Any) -> None:
    status = {"model": ONE, "state": "running", name: value}
    for told in (status, {"models": [status]}, {"models": value}, {"models": [], "memory": {"used_bytes": value}}):
        for show in SHOWING:
            with suppress(NotUnderstood):
                show(Says(told))


async def test_of_several_agents_one_must_be_chosen(api: LocalApi, engine: SimulatedModels) -> None:
    other_engine = SimulatedModels()
    other = LocalApi(other_engine, other_engine.listen)
    await other.begin()
    try:
        done = await run("start", ONE)
        assert done.returncode == 1
        assert f"choose one with --api {other.address} (pid {os.getpid()})" in done.stderr
        assert (await run("start", ONE, "--api", other.address)).returncode == 0
        assert (other_engine.statuses[ONE].state, engine.statuses[ONE].state) == ("running", "stopped")
    finally:
        await other.close()


async def test_an_agent_that_does_not_answer_is_an_error() -> None:
    record = RecordFile(records_folder(), "gone")
    record.write(LocalApiRecord(f"http://127.0.0.1:{free_port()}", "token", os.getpid()))
    try:
        done = await run("list")
    finally:
        record.remove()
    assert done.returncode == 1
    assert f"(pid {os.getpid()}) does not answer" in done.stderr


async def test_without_an_agent_the_error_says_what_to_do() -> None:
    done = await run("start", ONE)
    assert done.returncode == 1
    assert "anywire up --engine models" in done.stderr


# A registry file alone


def cut_off(whole: Path, path: Path) -> Path:
    path.write_bytes(whole.read_bytes()[:-4096])
    return path


async def test_a_registry_file_is_changed_without_an_agent(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    alone = ["--registry", str(file)]
    done = await run("add", str(tiny), "--id", "local:a:1", "--with", "on_demand=true", *alone)
    assert (done.stdout, done.stderr, done.returncode) == ("added local:a:1\n", "", 0)
    cut = cut_off(tiny, tmp_path / "cut.gguf")
    refused = await run("add", str(cut), *alone)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is cut off" in refused.stderr
    cut.unlink()
    again = await run("add", str(tiny), "--id", "local:a:1", *alone)
    assert (again.returncode, again.stderr) == (1, "error: local:a:1 is in the registry already\n")
    assert (await run("pin", "local:a:1", *alone)).stdout == "local:a:1 is stopped, pinned\n"
    done = await run("import", "gguf", str(tiny.parent), *alone)
    assert "added local:tiny:" in done.stdout, done
    (first, second) = json.loads((await run("list", "--json", *alone)).stdout)["models"]
    assert (first["model"], first["pinned"], first["on_demand"]) == ("local:a:1", True, True)
    assert second["file"] == str(tiny)
    assert json.loads(file.read_text())["models"][0]["settings"] == {"on_demand": True, "pinned": True}
    for arguments, part in (
        (["pin", "nope"], "nope"),
        (["add", str(tiny), "--id", "local:b:1", "--with", "contxt=3"], "contxt"),
        (["add", str(tiny), "--id", "local:b:1", "--with", "slots=0"], "slots"),
        (["add", str(tmp_path / "missing.gguf")], "missing.gguf"),
        (["import", "nope", "/"], "nope"),
        (["import", "gguf", str(tmp_path / "missing")], "missing"),
    ):
        done = await run(*arguments, *alone)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert part in done.stderr
    file.write_text("{")
    done = await run("list", *alone)
    assert "it is no JSON" in done.stderr
    done = await run("pin", "local:a:1", *alone)
    assert done.returncode == 1
    assert file.read_text() == "{"


async def test_where_nothing_runs_the_file_of_the_user_counts(tiny: Path, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    file = tmp_path / "anywire" / "models.json"
    done = await run("list", **home)
    assert "local:smollm2:135m" in done.stdout, "the one that comes along"
    assert str(file) in done.stderr
    assert not file.exists()
    assert (await run("add", str(tiny), **home)).returncode == 0
    names = [each["full_identifier"] for each in json.loads(file.read_text())["models"]]
    assert names[0] == "local:smollm2:135m"
    assert len(names) == 2


# Behind an orchestrator

PLUGIN = str(Path(__file__).with_name("simulated_models.py"))


@pytest.fixture
async def up(start: Callable[..., Awaitable[Process]], tmp_path: Path, options_of: Any) -> Process:
    """An orchestrator with one agent that has models, reached over HTTP and over ZeroMQ."""
    settings = {
        "transports": {"zeromq": options_of("zeromq")},
        "server": {"port": 0},
        "engine": {"name": "simulated_models"},
        "plugins": [PLUGIN],
        "agents": [{"id": "a1"}],
    }
    path = tmp_path / "up.yaml"
    path.write_text(json.dumps(settings))
    return await start("up", "--config", str(path))


async def test_an_agent_is_asked_through_its_orchestrator(up: Process, tmp_path: Path) -> None:
    config = ["--config", str(tmp_path / "up.yaml")]
    for over in ([], ["--url", up.url]):
        assert f"\n{TWO} " in (await run("list", *over)).stdout
    for over in (["--agent", "a1"], [*config, "--transport", "zeromq", "--agent", "a1"]):
        done = await run("start", ONE, *over)
        assert done.stdout == f"{ONE} is running on cpu (pid 4711), loaded in 1.5 s\n", (over, done.stderr)
        assert "50% loaded" in done.stderr
        done = await run("logs", ONE, "-n", "1", *over)
        assert (done.returncode, done.stdout) == (0, "é\\u2028 half\n")
        done = await run("start", BROKEN, *over)
        assert done.returncode == 1
        assert "killed by SIGKILL" in done.stderr
        assert (await run("stop", ONE, *over)).returncode == 0
    for arguments, part in ((["--agent", "a9"], "a9"), (["--url", "http://127.0.0.1:9"], "no server answers")):
        done = await run("list", *arguments)
        assert done.returncode == 1
        assert part in done.stderr


async def test_a_log_goes_on_through_an_orchestrator_whose_agent_is_killed(up: Process) -> None:
    async with following("--url", up.url) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert await expect(follower.stdout.readline(), "the newest line", PATIENCE) == "é\\u2028 half\n".encode()
        agents = psutil.Process(up.process.pid).children(recursive=True)
        for agent in agents:
            agent.kill()
        said = [await expect(follower.stderr.readline(), "what has become of it", PATIENCE) for _ in range(2)]
        assert b"the log broke off" in said[0]
        assert b"the log has begun anew" in said[1]
        found = [await expect(follower.stdout.readline(), "a line of the new life", PATIENCE) for _ in LINES]
        assert b"".join(found).decode() == "loading\nlistening\né\\u2028 half\n"


async def test_agents_show_their_models_with_their_states(up: Process) -> None:
    assert (await run("start", ONE)).returncode == 0
    done = await asyncio.to_thread(commands.finished, ["agents"], environment())
    assert f"{ONE}, {TWO} (stopped), {BROKEN} (stopped)" in done.stdout, done.stdout + done.stderr


# Logs that break off


def told_in_turns(*turns: Sequence[Any]) -> tuple[list[str], followed_log.AskForLog]:
    """A log that tells these results, a turn each time that it is asked for; an error ends a turn. And the ids after
    which it was asked."""
    asked: list[str] = []

    def ask(after: str, show: Callable[[Any], None]) -> None:
        asked.append(after)
        for each in turns[len(asked) - 1]:
            if isinstance(each, Exception):
                raise each
            show(each)

    return asked, ask


def test_a_log_that_breaks_off_is_asked_for_again_after_its_newest_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("anywire_engine_models.cli.followed_log.time.sleep", pauses.append)
    asked, ask = told_in_turns(
        [{"line": "a", "id": "x-1"}, AgentLost("the agent is gone")],
        [AgentUnavailable("there is no link")],
        [ConfigError("no agent of yours runs here")],
        [{"missed": 2}, {"line": "d", "id": "x-4"}, ShuttingDown("this agent is stopping")],
        [{"reset": True}, {"line": "e", "id": "y-1"}],
    )
    followed_log.print_log(ask, after="", follow=True, as_json=False)
    assert asked == ["", "x-1", "x-1", "x-1", "x-4"]
    assert pauses == [0.2, 0.4, 0.8, 0.2]
    printed = capsys.readouterr()
    assert printed.out == "a\nd\ne\n"
    assert printed.err.splitlines() == [
        "(the log broke off, and is asked for again: the agent is gone)",
        "(2 lines are left out here: they are not kept any more)",
        "(the log broke off, and is asked for again: this agent is stopping)",
        "(lines may be left out here: the log has begun anew)",
    ]


@pytest.mark.parametrize(
    ("follow", "after", "turn"),
    [
        (False, "", [{"line": "a", "id": "x-1"}, AgentLost("gone")]),
        (True, "", [AgentLost("gone")]),
        (True, "x-1", [AgentLost("gone")]),
        (True, "", [{"line": "of an older agent"}, AgentLost("gone")]),
        (True, "", [{"line": "a", "id": "x-1"}, ModelNotFound("there is no such model")]),
        (True, "", [{"line": "a", "id": "x-1"}, NotUnderstood("nonsense")]),
        (True, "", [{"line": "a", "id": "x-1"}, {"what": "is this"}]),
        (True, "", [{"line": 5}]),
        (True, "", ["a"]),
    ],
)
def test_a_log_that_cannot_go_on_ends_with_its_error(follow: bool, after: str, turn: list[Any]) -> None:
    asked, ask = told_in_turns(turn)
    with pytest.raises(AnywireError):
        followed_log.print_log(ask, after=after, follow=follow, as_json=False)
    assert asked == [after]
