"""The main job with nothing stood in for: processes, real DDS, real llama.cpp, the official client."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from tests.patience import PATIENCE

MESSAGES: Any = [{"role": "user", "content": "Say something."}]


class Fleet:
    """``anywire up`` with two llama agents on a tiny model, and its processes."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process, self.url = process, url
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE)

    async def agents(self) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            listed: list[dict[str, Any]] = (await client.get(f"{self.url}/api/v1/agents")).json()["data"]
            return listed

    async def until(self, condition: Callable[[set[int]], bool]) -> None:
        """Wait until the processes listed fulfil ``condition``."""

        async def fulfilled() -> None:
            while True:
                if condition({agent["pid"] for agent in await self.agents()}):
                    return
                await asyncio.sleep(0.02)

        await asyncio.wait_for(fulfilled(), PATIENCE)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    source = Path(__file__).parents[1] / "tiny_gguf.py"
    os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(source), str(path)])
    return path


@pytest.fixture
async def fleet(dds_domain: int, tiny_model: Path) -> AsyncIterator[Fleet]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "up", "--agents", "2", "--slots", "2", "--port", "0"),
        *("--transport", "dds", "--dds-domain", str(dds_domain), "--engine", "llama", "--model", str(tiny_model)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    ready = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
    assert ready.startswith("ready: "), ready
    fleet = Fleet(process, ready.split()[1])
    children = psutil.Process(process.pid).children(recursive=True)
    yield fleet
    await fleet.client.close()
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert not alive


async def test_official_client_chats_in_both_modes_and_lists_models(fleet: Fleet) -> None:
    models = [model.id async for model in fleet.client.models.list()]
    assert len(models) == 1
    whole = await fleet.client.chat.completions.create(model=models[0], messages=MESSAGES, max_tokens=8, temperature=0)
    text = ""
    stream = await fleet.client.chat.completions.create(
        model=models[0], messages=MESSAGES, max_tokens=8, temperature=0, stream=True
    )
    async for event in stream:
        text += (event.choices[0].delta.content or "") if event.choices else ""
    assert text
    assert whole.choices[0].message.content == text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8


async def test_killed_agent_is_replaced_and_nobody_notices(fleet: Fleet) -> None:
    model = (await fleet.client.models.list()).data[0].id

    async def ask() -> str:
        answer = await fleet.client.with_options(max_retries=0).chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=4, temperature=0
        )
        return answer.choices[0].message.content or ""

    expected = await ask()
    before = {agent["pid"] for agent in await fleet.agents()}
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    # Asked while nobody knows yet that one of the two is dead: each is answered, by the other if need be.
    assert await asyncio.gather(*(ask() for _ in range(8))) == [expected] * 8
    await fleet.until(lambda pids: victim not in pids and len(pids) == 2)
    assert await ask() == expected


async def test_demo_streams_an_answer_of_the_real_model() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "demo", "Name a colour."),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    shown = out.decode()
    assert process.returncode == 0, err.decode()
    assert "SmolLM2" in shown
    for line in ("time to first token", "sent → agent_received", "engine_started → first_chunk", "dds"):
        assert line in shown
