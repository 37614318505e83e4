"""From the client to the agents and back: the real service behind the real gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.deliberation.test_report import terminal

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.testing.patience import expect
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.report import html_page, markdown
from anywire_service_deliberation.service import DeliberationService


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[DeliberationClient]:
    """A client of an orchestrator that has the folder of those before it."""
    engine = SyntheticEngine(SyntheticConfig(features={"json": True}))
    service = DeliberationService(DeliberationConfig(folder=folder / "kept"))
    async with service_bench(service, state=folder, engine=engine) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        try:
            async with DeliberationClient(gateway.address) as found:
                yield found
        finally:
            await gateway.close()


async def test_a_deliberation_is_asked_followed_and_shown_after_a_restart(tmp_path: Path) -> None:
    async with client(tmp_path) as asked:
        name = await asked.submit(
            "Reverse a list.", id="q-1", role="DEV", members=3, rubric="clean-code", synthesis=True
        )
        updates = await expect(_all(asked, name), "the updates to the end")
        state = await asked.get(name)
        assert (state.status, len(state.proposals), len(state.critiques)) == ("completed", 3, 6)
        assert state.answer == next(each.text for each in state.proposals if each.member == state.winner)
        assert [each.rank for each in state.ranking] == [1, 2, 3]
        assert [each.number for each in updates] == list(range(1, len(updates) + 1))
        answered = [each.data["work"] for each in updates if each.name == "answered"]
        assert len(set(answered)) == len(answered) == state.cost.tasks
        assert updates[-1].data["winner"] == state.winner
        assert {each.agents for each in state.members} == {("agent",)}
        for text in (markdown(state), html_page(state), terminal(state)):
            assert state.synthesis in " ".join(text.split())
        assert (await asked.statistics())["count"] == 1
        await asked.put_council("pair", [{"role": "QA"}, {"role": "DEV"}], rubric="clean-code")
        pair = await expect(asked.deliberate("Is it right?", council="pair", rounds=0), "the council's answer")
        assert [each.role for each in pair.members] == ["QA", "DEV"]
    async with client(tmp_path) as later:
        assert await later.get(name) == state
        assert await expect(_all(later, name), "the updates to the end") == updates
        assert [each.name for each in await later.councils()] == ["pair"]
        assert [each.id for each in await later.list(role="DEV")][-1] == name


async def _all(asked: DeliberationClient, name: str) -> list[Update]:
    return [each async for each in asked.events(name)]
