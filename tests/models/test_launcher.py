"""Servers as processes: real ones, that are well, slow, broken, stubborn, noisy, killed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import SOAK, examples
from tests.models.started_servers import Watching, is_gone, nothing_left, small

from anywire import secrecy
from anywire.secrecy import keep_secret, without_secrets
from anywire.testing.patience import FACTOR, expect, polled
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Exit, Server, StartFailed
from anywire_engine_models.processes import guarded, ports, template
from anywire_engine_models.processes.launcher import ProcessLauncher
from anywire_engine_models.processes.load_progress import LoadProgress
from anywire_engine_models.processes.output import LINE_CHARS, LINES_A_SECOND, NOISE_BYTES, TAIL, Output
from anywire_engine_models.processes.server_command import ServerCommand

pytestmark = pytest.mark.timeout(90 * FACTOR)
# ruff: noqa: ASYNC240 - small files of tests


@asynccontextmanager
async def started(model: HostedModel, device: str = "cpu") -> AsyncIterator[tuple[Server, Watching]]:
    watching = Watching()
    server = await ProcessLauncher().launch(model, device, watching)
    try:
        yield server, watching
    finally:
        await server.stop()


async def failure(model: HostedModel, device: str = "cpu", launcher: ProcessLauncher | None = None) -> StartFailed:
    """How its start fails; nothing is left then."""
    watching = Watching()
    with nothing_left(), pytest.raises(StartFailed) as caught:
        await (launcher or ProcessLauncher()).launch(model, device, watching)
    assert not any(psutil.pid_exists(pid) for pid in watching.pids)
    return caught.value


async def ended(server: Server) -> Exit:
    return await expect(asyncio.shield(server.exited), "the server has ended")


# A server that is well


async def test_a_server_is_ready_when_its_health_says_so_and_gone_after_its_stop() -> None:
    with nothing_left():
        async with started(small("loading=3", "says=hello")) as (server, watching):
            assert watching.pids == [server.pid]
            assert watching.lines[:2] == ["hello", "listening"]
            assert os.getsid(server.pid) == server.pid
            assert server.address.startswith("http://127.0.0.1:")
            assert len(server.key) == 32
            assert not server.exited.done()
        end = server.exited.result()
        assert (end.reason, end.code, end.signal) == ("killed by SIGTERM", None, "SIGTERM")
        assert end.lines == ("hello", "listening")
        assert not psutil.pid_exists(server.pid)
        await server.stop()


async def test_it_gets_its_port_key_and_device_and_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYWIRE_SERVER__KEY", "ours")
    monkeypatch.setenv("OTHERS", "stays")
    names = "LLAMA_API_KEY,OWN_KEY,CUDA_VISIBLE_DEVICES,HIP_VISIBLE_DEVICES,ANYWIRE_SERVER__KEY,OTHERS,BRACES"
    model = small(
        f"tells={names}",
        command={
            "environment": {"OWN_KEY": "{key}", "LLAMA_API_KEY": "another one", "BRACES": "{{{device}}}"},
            "on_device": {"gpu": ("child=1",)},
        },
    )
    for device, visible, children in (("cpu", "-1", 0), ("gpu:1", "1", 1)):
        async with started(model, device) as (server, watching):
            told = dict(line.partition("=")[::2] for line in watching.lines)
            # Whoever reads the log does not learn the key.
            assert told["LLAMA_API_KEY"] == told["OWN_KEY"] == "***"
            environment = psutil.Process(server.pid).environ()
            assert environment["LLAMA_API_KEY"] == environment["OWN_KEY"] == server.key
            assert server.key not in " ".join(psutil.Process(server.pid).cmdline())
            assert told["CUDA_VISIBLE_DEVICES"] == told["HIP_VISIBLE_DEVICES"] == visible
            assert (told["ANYWIRE_SERVER__KEY"], told["OTHERS"]) == ("", "stays")
            assert told["BRACES"] == f"{{{device}}}"
            assert len(psutil.Process(server.pid).children()) == children


async def test_keys_of_servers_that_have_ended_push_out_no_other_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrecy, "MAX_KEPT", len(secrecy._kept) + 2)
    keep_secret("q7Zx9LkP0vB2nM4tR8wY1")
    for _ in range(3):
        async with started(small()) as (server, _):
            assert without_secrets(f"its key is {server.key}") == "its key is ***"
    assert (await failure(small("exits=3"))).exit.code == 3
    assert without_secrets("q7Zx9LkP0vB2nM4tR8wY1") == "***"
    assert server.key not in secrecy._kept


async def test_a_fixed_port_and_no_key() -> None:
    port = ports.free_port()
    model = small("tells=LLAMA_API_KEY", command={"port": port, "secret": False, "health_path": "health"})
    for _ in range(2):  # at once again, too
        async with started(model) as (server, watching):
            assert server.address == f"http://127.0.0.1:{port}"
            assert server.key == ""
            assert "LLAMA_API_KEY=" in watching.lines
            assert "in use" in (await failure(model)).exit.reason


async def test_what_is_loaded_is_told() -> None:
    async with started(small("dots=40")) as (_, watching):
        assert watching.parts == sorted(set(watching.parts))
        assert watching.parts[-1] == 0.4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
async def test_of_a_server_that_does_not_say_it_what_is_in_memory_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(8 << 20))
    async with started(small(f"maps={file}", "loading=3", command={"model_file": str(file)})) as (_, watching):
        assert watching.parts == sorted(set(watching.parts))
        assert 0.4 < watching.parts[-1] < 0.75


async def test_a_watcher_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Watching):
        def line(self, text: str) -> None:
            raise RuntimeError("of the watcher")

        def progress(self, part: float) -> None:
            raise RuntimeError("of the watcher")

    server = await ProcessLauncher().launch(small("dots=3", "says=hello"), "cpu", Failing())
    await server.stop()
    assert "hello" in server.exited.result().lines
    assert "of the watcher" in caplog.text


# Its end


async def test_a_killed_server_is_noticed_with_its_last_lines() -> None:
    with nothing_left():
        async with started(small("says=hello")) as (server, _):
            os.kill(server.pid, signal.SIGKILL)
            assert await ended(server) == Exit("killed by SIGKILL", signal="SIGKILL", lines=("hello", "listening"))


@pytest.mark.parametrize("kind", ["child", "grandchild"])
async def test_what_a_server_has_started_ends_with_it(kind: str) -> None:
    with nothing_left():
        async with started(small("child=1" if kind == "child" else "grandchild=1")) as (server, watching):
            child = int(await watching.says("child "))
            os.kill(server.pid, signal.SIGKILL)
            await ended(server)
            assert not psutil.pid_exists(child)


async def test_a_server_that_does_not_heed_sigterm_is_killed() -> None:
    with nothing_left():
        async with started(small("stubborn=1", "child=1", stop_grace=0.1)) as (server, watching):
            child = int(await watching.says("child "))
        assert server.exited.result().signal == "SIGKILL"
        assert not psutil.pid_exists(child)


async def test_a_stop_that_is_cancelled_goes_on_when_called_again() -> None:
    with nothing_left():
        async with started(small("stubborn=1", stop_grace=0.2)) as (server, _):
            first = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait({first})
            assert not server.exited.done()
            await asyncio.gather(server.stop(), server.stop())
            assert server.exited.done()


async def test_shared_memory_of_a_killed_server_is_removed() -> None:
    async with started(small("shared=1")) as (server, watching):
        name = await watching.says("shared ")
        assert Path("/dev/shm", name).exists()
        os.kill(server.pid, signal.SIGKILL)
        await ended(server)
        assert not Path("/dev/shm", name).exists()


async def test_a_killed_guardian_takes_its_server_along() -> None:
    with nothing_left():
        async with started(small("grandchild=1")) as (server, watching):
            child = int(await watching.says("child "))
            os.kill(psutil.Process(server.pid).ppid(), signal.SIGKILL)
            assert (await ended(server)).reason == "killed with its guardian, which was killed by SIGKILL"
            for pid in (server.pid, child):
                await polled(functools.partial(is_gone, pid), f"{pid} is gone")


async def test_a_guardian_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "GUARDIAN_TIMEOUT", 0.1)
    with nothing_left():
        async with started(small(stop_grace=0.1)) as (server, _):
            os.kill(psutil.Process(server.pid).ppid(), signal.SIGSTOP)
        await polled(lambda: is_gone(server.pid), "the server is gone")


async def test_the_end_of_the_event_loop_ends_its_servers() -> None:
    pids: list[int] = []

    async def forgetful() -> None:
        server = await ProcessLauncher().launch(small("child=1"), "cpu", watching := Watching())
        pids.extend([server.pid, int(await watching.says("child "))])

    with nothing_left():
        await asyncio.to_thread(asyncio.run, forgetful())
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


# What does not start


async def test_a_server_that_ends_early() -> None:
    caught = await failure(small("says=no such option", "exits=3"))
    assert caught.exit == Exit("exited with status 3 before it was ready", code=3, lines=("no such option",))
    assert not caught.elsewhere
    assert (await failure(small("exits=3"), "gpu:0")).elsewhere


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("llama_model_load: error loading model: tensor 'x' data is not within the file bounds", "is the file whole"),
        ("ggml: cudaMalloc failed: out of memory", "not enough memory"),
        ("error: invalid argument: --cache-ram", "set prompt_cache to null, or install a newer one"),
    ],
)
async def test_well_known_last_lines_are_explained(says: str, reason: str) -> None:
    caught = await failure(small(f"says={says}", "exits=1"))
    assert reason in caught.exit.reason
    assert caught.exit.lines == (says,)


async def test_a_full_disk(tmp_path: Path) -> None:
    caught = await failure(small(f"writes={tmp_path / 'cache'}"))
    assert caught.exit.reason == "exited with status 1 before it was ready: a disk is full"
    assert "File too large" in caught.exit.lines[-1]


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    def model(program: str) -> HostedModel:
        return HostedModel("local:x:1", launch=ServerCommand((program, "{port}")))

    assert (await failure(model("no-such-server"))).exit.reason == (
        "there is no program no-such-server on the PATH: install it, or give the full path of one"
    )
    assert "no program /no/such/server:" in (await failure(model("/no/such/server"))).exit.reason
    plain = tmp_path / "plain"
    plain.write_text("#!/no/such/shell\n")
    assert "chmod +x" in (await failure(model(str(plain)))).exit.reason
    plain.chmod(0o755)
    assert (await failure(model(str(plain)))).exit.reason == f"{plain} cannot be run: No such file or directory"
    plain.write_bytes(b"\x00\x01\x02\x03")
    assert (await failure(model(str(plain)))).exit.reason == f"{plain} cannot be run: Exec format error"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ({"arguments": ("sleep", "{seconds}")}, r"\{seconds\} is no place to fill in; there are \{port\}, \{device\}"),
        ({"arguments": ("sleep", "--key={key}")}, "put {key} into the environment"),
        ({"arguments": ("sleep", "}")}, "a brace is written {{ or }}"),
        ({"arguments": ()}, "has no command"),
        ({"model_file": "/no/such/model.gguf"}, "/no/such/model.gguf cannot be read \\(No such file"),
    ],
)
async def test_a_command_that_cannot_work(command: dict[str, Any], reason: str) -> None:
    with pytest.raises(StartFailed, match=reason):
        await ProcessLauncher().launch(small(command=command), "cpu", Watching())


async def test_a_command_that_no_system_takes() -> None:
    assert (await failure(small("says=\0"))).exit.reason == "cannot be started: embedded null byte"
    assert "cannot be started: Argument list too long" in (await failure(small("x" * 3_000_000))).exit.reason


async def test_a_model_that_is_for_another_launcher() -> None:
    assert "has no command" in (await failure(HostedModel("local:x:1"))).exit.reason


async def test_a_port_on_which_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        caught = await failure(small(command={"port": port}))
        assert caught.exit.reason.startswith(f"port {port} is in use (")
        assert f"pid {os.getpid()})" in caught.exit.reason
    async with started(small(command={"port": port})):
        pass


async def test_a_port_that_is_taken_before_the_server_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one, moreover, whose health is good."""

    async def healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(healthy, "127.0.0.1", 0) as other:
        taken = other.sockets[0].getsockname()[1]
        free = ports.free_port()
        chosen = deque([taken, taken, free])
        monkeypatch.setattr(ports, "free_port", chosen.popleft)
        with nothing_left():
            async with started(small()) as (server, watching):
                assert server.address == f"http://127.0.0.1:{free}"
                assert len(watching.pids) == 3
        monkeypatch.setattr(ports, "free_port", lambda: taken)
        assert f"port {taken} is in use" in (await failure(small())).exit.reason


async def test_a_server_that_is_never_healthy() -> None:
    caught = await failure(small("loading=-1", start_timeout=2.0))
    assert caught.exit.reason.startswith("not ready after 2 s: http://127.0.0.1:")
    assert caught.exit.reason.endswith("/health answered with status 503: ok")
    assert caught.exit.lines == ("listening",)


@pytest.mark.parametrize(("way", "seen"), [("mute", "did not answer"), ("babbles", "answered with what is no HTTP")])
async def test_a_server_that_does_not_speak(way: str, seen: str) -> None:
    caught = await failure(small(f"{way}=1", start_timeout=2.0))
    assert re.fullmatch(rf"not ready after 2 s: http://127\.0\.0\.1:\d+/health {seen}", caught.exit.reason)


async def test_a_server_that_never_listens() -> None:
    caught = await failure(small("deaf=1", "says=thinking", start_timeout=2.0))
    assert "not ready after 2 s: nobody listens at" in caught.exit.reason
    assert caught.exit.lines == ("thinking",)


@pytest.mark.parametrize("options", [("deaf=1",), ("loading=-1",), ("loading=-1", "stubborn=1", "child=1")])
async def test_a_start_that_is_cancelled_leaves_nothing(options: tuple[str, ...]) -> None:
    with nothing_left():
        watching = Watching()
        start = asyncio.create_task(ProcessLauncher().launch(small(*options, stop_grace=0.2), "cpu", watching))
        pid = await watching.is_spawned()
        if "child=1" in options:
            pid = int(await watching.says("child "))
        start.cancel()
        await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait({start})
        assert start.cancelled()
        assert not psutil.pid_exists(pid)


async def test_starts_and_stops_at_random_moments_leave_nothing() -> None:
    seed = random.randrange(1 << 32) if SOAK else 17
    chance = random.Random(seed)
    launcher = ProcessLauncher()
    kinds = (("loading=2",), ("loading=-1",), ("deaf=1",), ("exits=2",), ("child=1",), ("stubborn=1", "grandchild=1"))

    async def one(options: tuple[str, ...], delay: float, kill: bool) -> str:
        watching = Watching()
        start = asyncio.create_task(launcher.launch(small(*options, stop_grace=0.2), "cpu", watching))
        await asyncio.wait({start}, timeout=delay)
        if kill and watching.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(watching.pids[-1], signal.SIGKILL)
        start.cancel()
        await asyncio.wait({start})
        if not start.cancelled() and start.exception() is None:
            port = int(start.result().address.rpartition(":")[2])
            await start.result().stop()
            assert not ports.is_taken(port)
        return f"{options} after {delay:.3f} s"

    with nothing_left():
        for _ in range(10 if SOAK else 2):
            await asyncio.gather(
                *(one(chance.choice(kinds), chance.random() * 0.4, chance.random() < 0.3) for _ in range(5))
            )


# What it writes


async def test_a_server_that_floods_its_log_holds_up_nobody() -> None:
    loop = asyncio.get_running_loop()
    with nothing_left():
        async with started(small("flood=1")) as (server, watching):
            before, turns = loop.time(), 0
            while not any("left out" in line for line in watching.lines):
                await asyncio.sleep(0)
                turns += 1
                assert loop.time() - before < 20 * FACTOR
            # More than one second has passed, and the loop went round all the time.
            assert turns > 100
            assert len(watching.lines) < 3 * LINES_A_SECOND
        assert len(server.exited.result().lines) == TAIL


def fed(pieces: list[bytes]) -> list[str]:
    async def feed() -> list[str]:
        lines: list[str] = []
        output = Output(lines.append, deque(maxlen=TAIL))
        for piece in pieces:
            output.data_received(piece)
        output.connection_lost(None)
        return lines

    return asyncio.run(feed())


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_lines_do_not_depend_on_how_they_come(pieces: list[bytes]) -> None:
    assert fed(pieces) == fed([b"".join(pieces)])
    assert all(line.isprintable() and line.strip() and len(line) <= LINE_CHARS for line in fed(pieces))


def test_long_lines_are_cut_and_many_are_counted() -> None:
    assert fed([b"x" * 70_000, b"x" * 70_000 + b"\nshort\r\r\n\nend"]) == ["x" * LINE_CHARS, "short", "end"]
    lines = fed([b"a\n" * 3000])
    assert len(lines) == LINES_A_SECOND + 1
    assert lines[-1] == f"({3000 - LINES_A_SECOND} lines left out: more than {LINES_A_SECOND} in a second)"


class Pausing(asyncio.ReadTransport):
    """A transport that remembers whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.resumed = asyncio.Event()
        self.resumed.set()

    def pause_reading(self) -> None:
        self.resumed.clear()

    def resume_reading(self) -> None:
        self.resumed.set()

    def is_closing(self) -> bool:
        return False


async def test_a_server_that_writes_too_much_waits_until_the_second_is_over_or_it_has_ended() -> None:
    transport, output = Pausing(), Output(lambda line: None, deque(maxlen=TAIL))
    output.connection_made(transport)
    output.data_received(bytes(NOISE_BYTES))
    assert transport.resumed.is_set()
    output.data_received(b"x")
    assert not transport.resumed.is_set()
    await expect(transport.resumed.wait(), "it is read again")
    output.data_received(bytes(NOISE_BYTES + 1))
    assert not transport.resumed.is_set()
    output.read_rest()
    assert transport.resumed.is_set()
    output.data_received(bytes(NOISE_BYTES + 1))
    assert transport.resumed.is_set()
    output.connection_lost(None)
    assert output.ended.done()


@pytest.mark.parametrize(
    ("written", "part"),
    [
        (b"load_tensors: loading\n" + b"." * 30, 0.3),
        (b"." * 100 + b"\nready\n", 1.0),
        (b"\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]", 0.5),
        (b"Loading pipeline components...: 100%|####| 7/7", 1.0),
        (b"cpu at 90%\nload average 0.3\n", 0.0),
    ],
)
def test_progress_is_read_from_what_servers_write(written: bytes, part: float) -> None:
    for size in (1, 7, len(written)):
        parts = [0.0]
        feed = LoadProgress(parts.append).stream()
        for start in range(0, len(written), size):
            feed(written[start : start + size])
        assert parts[-1] == part
        assert parts == sorted(set(parts))


@settings(max_examples=examples(40), deadline=None)
@given(st.text(alphabet="{}ab \"'", max_size=20))
def test_a_doubled_brace_is_a_brace(text: str) -> None:
    command = ServerCommand((text.replace("{", "{{").replace("}", "}}"), "{gpu_layers}"))
    assert template.arguments(command, port=1, device="gpu:0") == [text, "999"]
    assert template.arguments(command, port=1, device="cpu") == [text, "0"]
