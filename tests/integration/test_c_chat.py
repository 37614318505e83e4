"""Programs in C beside real processes of ours: the example's client, and a server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.c_peers.toolchain import UNICAST, WARNINGS, needs_toolchain
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
PROMPTS = ("hello", 'e\u0301 👩‍👩‍👧‍👦 漢字 "quoted" \\ and\nlines', "x" * 100_000)

pytestmark = needs_toolchain


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with ``c_chat``, as its Makefile makes it, and ``server``."""
    folder = tmp_path_factory.mktemp("c_programs")
    subprocess.run(
        ["make", "-s", "-C", ROOT / "examples" / "c_chat", f"OUT={folder}", f"CFLAGS={' '.join(WARNINGS)}"], check=True
    )
    sources = [ROOT / "tests" / "c_peers" / "server.c", folder / "LlamaDDS.c"]
    subprocess.run(["gcc", *WARNINGS, f"-I{folder}", "-o", folder / "server", *sources, "-lddsc"], check=True)
    return folder


class Fleet:
    """``anywire up`` with the gateways ``openai`` and ``llama_dds``."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, chat: Path, domain: int) -> None:
        self.process, self.url, self.chat, self.domain = process, url, chat, domain

    async def get(self, path: str) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            listed: list[dict[str, Any]] = (await client.get(f"{self.url}{path}")).json()["data"]
            return listed

    async def until_in_flight(self, tasks: int) -> None:
        async def fulfilled() -> None:
            while True:
                if sum(agent["load"]["in_flight"] for agent in await self.get("/api/v1/agents")) == tasks:
                    return
                await asyncio.sleep(0.02)

        await asyncio.wait_for(fulfilled(), PATIENCE)

    async def over_http(self, prompt: str) -> str:
        model = (await self.get("/v1/models"))[0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64, "temperature": 0}
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            answer = (await client.post(f"{self.url}/v1/chat/completions", json=body)).json()
            text: str = answer["choices"][0]["message"]["content"]
            return text

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(str(self.chat), "--domain", str(self.domain), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CYCLONEDDS_URI": UNICAST},
        )

    async def ask(self, *arguments: str) -> tuple[int | None, str, str]:
        """Exit status, what it says, and what it complains of."""
        process = await self.begin(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def fleet_of(engine: str, folder: Path, domain: int, programs: Path, agents: int = 2) -> AsyncIterator[Fleet]:
    config = folder / "anywire.yaml"
    config.write_text(
        f"server: {{port: 0}}\ntransports: {{dds: {{domain: {domain}, multicast: off}}}}\nengine: {engine}\n"
        f"gateways: {{openai: {{}}, llama_dds: {{domain: {domain}, multicast: off, lease: 1}}}}\nagent: {{slots: 4}}\n"
        "log_level: warning\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "up", "--agents", str(agents), "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    ready = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
    assert ready.startswith("ready: "), ready
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        yield Fleet(process, ready.split()[1], programs / "c_chat", domain)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), PATIENCE)
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert not alive


@pytest.fixture
async def fleet(tmp_path: Path, dds_domain: int, programs: Path) -> AsyncIterator[Fleet]:
    async with fleet_of("{name: synthetic}", tmp_path, dds_domain, programs) as fleet:
        yield fleet


async def same_answers(fleet: Fleet, prompts: tuple[str, ...]) -> None:
    """Whole and in pieces, what the gateway of HTTP says."""
    for prompt in prompts:
        expected = await fleet.over_http(prompt)
        assert expected
        for mode in ([], ["--stream"]):
            assert await fleet.ask(*mode, prompt) == (0, expected + "\n", ""), mode


async def test_c_clients_get_what_http_clients_get(fleet: Fleet) -> None:
    await same_answers(fleet, PROMPTS)

    crowd = [f"hello {number}" for number in range(8)]
    expected = await asyncio.gather(*map(fleet.over_http, crowd))
    answers = await asyncio.gather(*(fleet.ask("--stream", prompt) for prompt in crowd))
    assert answers == [(0, text + "\n", "") for text in expected]

    status, said, complaint = await fleet.ask("--model", "nobody's", "--stream", "hello")
    assert (status, said) == (1, "")
    assert complaint.startswith("c_chat: [Error: model_not_found: ")
    assert "nobody's" in complaint
    status, said, complaint = await fleet.ask("--max-tokens", "3", "hello")
    assert (status, len(said.split())) == (0, 3)
    assert "--max-tokens" in complaint


async def test_a_c_client_gets_what_a_real_model_says(tmp_path: Path, dds_domain: int, programs: Path) -> None:
    pytest.importorskip("xllamacpp", reason="missing: llama.cpp; pip install anywire-engine-llama")
    model = tmp_path / "tiny.gguf"
    made = await asyncio.create_subprocess_exec(sys.executable, ROOT / "tests" / "tiny_gguf.py", model)
    assert await made.wait() == 0
    async with fleet_of(f"{{name: llama, model: {model}}}", tmp_path, dds_domain, programs, agents=1) as fleet:
        model_id = (await fleet.get("/v1/models"))[0]["id"]
        expected = await fleet.over_http("hello")
        assert expected
        for mode in ([], ["--stream"]):
            status, said, _ = await fleet.ask("--model", model_id, *mode, "hello")
            assert (status, said) == (0, expected + "\n"), mode


async def test_who_leaves_frees_a_slot_and_who_stays_is_told_of_the_end(
    tmp_path: Path, dds_domain: int, programs: Path
) -> None:
    slow = "{name: synthetic, length: 10000, itl: 20}"
    async with fleet_of(slow, tmp_path, dds_domain, programs, agents=1) as fleet:
        leaving, staying = [await fleet.begin("--stream", "--max-tokens", "10000", "hello") for _ in range(2)]
        for process in (leaving, staying):
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.read(1), PATIENCE)
        await fleet.until_in_flight(2)
        leaving.send_signal(signal.SIGINT)
        await asyncio.wait_for(leaving.communicate(), PATIENCE)
        assert leaving.returncode == 130
        await fleet.until_in_flight(1)

        fleet.process.kill()
        _, complaint = await asyncio.wait_for(staying.communicate(), PATIENCE)
        assert staying.returncode == 3
        assert complaint.decode().startswith("c_chat: the server is gone")


async def test_without_a_server_it_says_so_and_ends(programs: Path, dds_domain: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(programs / "c_chat", "--domain", str(dds_domain), "--timeout", "1", "hello"), stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 3
    assert "no server is found" in complaint.decode()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "usage: "),
        (["two", "prompts"], "usage: "),
        (["--domain", "231", "hello"], "from 0 to 230, got '231'"),
        (["--timeout", "1s", "hello"], "--timeout must be a number"),
        (["--temperature", "1", "hello"], "usage: "),
        ([os.fsdecode(b"\xff")], "is not UTF-8"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told(programs: Path, arguments: list[str], complaint: str) -> None:
    done = subprocess.run([programs / "c_chat", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


async def test_from_c_to_c(tmp_path: Path, dds_domain: int, other_dds_domain: int, programs: Path) -> None:
    """A client and a server that know nothing but ``LlamaDDS.idl``, with the whole pipeline between them."""
    beyond = other_dds_domain
    server = await asyncio.create_subprocess_exec(
        programs / "server", str(beyond), "parrot", env={**os.environ, "CYCLONEDDS_URI": UNICAST}
    )
    try:
        engine = f"{{name: llama_dds, domain: {beyond}}}"
        async with fleet_of(engine, tmp_path, dds_domain, programs, agents=1) as fleet:
            assert [model["id"] for model in await fleet.get("/v1/models")] == ["parrot"]
            prompt = "Pretty 漢字 polly e\u0301 👩‍👩‍👧‍👦"
            assert await fleet.over_http(prompt) == prompt
            await same_answers(fleet, (prompt,))
            longer = [" ".join(map(str, range(number, number + 24))) for number in range(3)]
            answers = await asyncio.gather(*(fleet.ask("--stream", each) for each in longer))
            assert answers == [(0, each + "\n", "") for each in longer]
            assert (await fleet.ask("--max-tokens", "2", prompt))[:2] == (0, "Pretty 漢字\n")
    finally:
        server.kill()
        await server.wait()
