"""Each configuration that the pages on schedulers and selectors show serves tasks, by the strategies that it names."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from tests.integration.test_docs import DOCS, ROOT, blocks

from anywire.config_layers import load
from anywire.plugins import Plugins
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.stop import Stop

CHOOSE = DOCS / "how-to" / "choose-a-scheduler-and-selector.md"
READMES = (ROOT / "plugins" / "schedulers" / "README.md", ROOT / "plugins" / "selectors" / "README.md")
TASKS = 8
BEGINNING = "You answer questions about the weather, in few words and with care. " * 40


def examples() -> list[Any]:
    found = []
    for page in (CHOOSE, *READMES):
        shown = [block.text for block in blocks(page) if block.language == "yaml"]
        configurations = [text for text in shown if re.match(r"scheduler:|selector:", text)]
        name = page.parent.name if page in READMES else "choose"
        found += [pytest.param(page, text, id=f"{name}-{number}") for number, text in enumerate(configurations)]
    return found


def save(page: Path, text: str) -> None:
    """A configuration, and the rules that it may name."""
    for block in blocks(page):
        if block.text.startswith("sets:"):
            Path(block.file).write_text(block.text)
    Path("anywire.yaml").write_text(text)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Made once: looking for all that is installed takes long."""
    return Plugins()


@pytest.mark.parametrize(("page", "text"), examples())
async def test_what_is_shown_serves(
    page: Path, text: str, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(page, text)
    here = {
        "transports": {"memory": {"network": str(tmp_path)}},
        "engine": {"name": "synthetic", "length": 3},
        "server.port": 0,
        "agent.slots": 1,
    }
    config = load("anywire.yaml", environment={}, settings=here)
    uses_priority = plugins.load("schedulers", config.scheduler.name).uses_priority
    policies = [None, *config.selector.options.get("policies", {})]
    async with (
        running(config, plugins, Stop(), None if config.agents else 2) as served,
        aiohttp.ClientSession(f"{served.address}/v1/") as http,
    ):

        async def get(path: str) -> dict[str, Any]:
            async with http.get(path) as answer:
                told: dict[str, Any] = await answer.json()
                return told

        async def ask(number: int) -> dict[str, Any]:
            policy = policies[number % len(policies)]
            headers = {
                "x-anywire-priority": str(number % 3 - 1),
                "x-anywire-session": f"session {number % 4}",
                "x-anywire-tenant": f"tenant {number % 2}",
                "x-anywire-hints": "task_type=math, urgency=high",
                "x-anywire-timeout": "60",
            } | ({"x-anywire-policy": policy} if policy else {})
            body = {"messages": [{"role": "user", "content": f"{BEGINNING} {number}"}], "max_tokens": 5}
            async with http.post("chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            assert ("priority" in answer.headers.get("x-anywire-ignored", "")) == (
                not uses_priority and headers["x-anywire-priority"] != "0"
            )
            return await get(f"tasks/{answer.headers['x-anywire-task']}")

        tasks = await asyncio.gather(*map(ask, range(TASKS)))
        for task in tasks:
            assert task["decisions"][-1]["agent_id"] == task["agent_id"]
            assert {each["selector"] for each in task["decisions"]} == {config.selector.name}
        assert not (await get("stats"))["plugin_failures"]


def test_each_situation_of_the_table_is_described_as_the_table_says() -> None:
    text = CHOOSE.read_text()
    rows = re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\) \| ([^|]*) \| ([^|]*) \| [^|]*\|$", text, re.MULTILINE)
    sections = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    by_anchor = {title.lower().replace(" ", "-"): section for title, section in sections.items()}
    assert [anchor for _, anchor, _, _ in rows] == list(by_anchor)
    for _, anchor, scheduler, selector in rows:
        (example,) = re.findall(r"```yaml\n(.*?)```", by_anchor[anchor], re.DOTALL)
        shown = yaml.safe_load(example)
        for told, section in ((scheduler, "scheduler"), (selector, "selector")):
            chosen = shown.get(section, {})
            name = chosen["name"] if isinstance(chosen, dict) and chosen else chosen
            assert told == "any" or told.startswith(f"`{name}`"), anchor
