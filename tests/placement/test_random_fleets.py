"""Fleets in which everything happens at random: agents come and go, models crash and fail, people change their minds,
clients ask. Whatever has happened, what is wanted in the end is loaded in the end."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.long_form import examples
from tests.placement.placement_bench import Fleet, fleet
from tests.placement.test_placement import SIZES, answer

from anywire.errors import AnywireError

STEPS = 40


class Chance:
    """Does one thing after the other, drawn by ``rng``."""

    def __init__(self, found: Fleet, rng: random.Random) -> None:
        self.found, self.rng = found, rng
        self.asked: list[asyncio.Task[str]] = []
        self.number = 0

    async def join(self) -> None:
        if len(self.found.agents) >= 4:
            return
        self.number += 1
        loaded = [name for name in SIZES if self.rng.random() < 0.2]
        await self.found.join(
            f"a{self.number % 6}" if f"a{self.number % 6}" not in self.found.agents else f"b{self.number}",
            host=self.rng.choice(("h1", "h2")),
            models=SIZES,
            budget=max(4, len(loaded)),
            loaded=loaded,
            loading=self.rng.choice((0.0, 0.01, 0.1)),
        )

    async def leave(self) -> None:
        if len(self.found.agents) > 1:
            await self.found.leave(self.rng.choice(sorted(self.found.agents)))

    async def crash(self) -> None:
        engine = self.found.engines[self.rng.choice(sorted(self.found.engines))]
        running = [name for name, model in engine.models.items() if model.state == "running" and not model.serving]
        if running:
            engine.crash(self.rng.choice(running))

    async def fail(self) -> None:
        engine = self.found.engines[self.rng.choice(sorted(self.found.engines))]
        engine.fails = {name for name in SIZES if self.rng.random() < 0.3}

    async def order(self) -> None:
        agent_id = self.rng.choice(sorted(self.found.agents))
        self.found.bench.orchestrator.order_agent(agent_id, self.rng.choice(("drained", "")))

    async def put(self) -> None:
        await self.found.put(
            **{name: {"replicas": self.rng.randint(0, 2)} for name in SIZES if self.rng.random() < 0.7}
        )

    async def ask(self) -> None:
        for name in SIZES:
            self.asked.append(asyncio.create_task(self._answer(name)))

    async def _answer(self, name: str) -> str:
        try:
            return await answer(self.found, name, tokens=self.rng.randint(1, 30))
        except AnywireError as error:
            return error.code

    async def end(self) -> None:
        """All is well again. An order holds for an agent's id over all its lives."""
        while len(self.found.agents) < 2:
            await self.join()
        for agent_id, engine in self.found.engines.items():
            engine.fails.clear()
            self.found.bench.orchestrator.order_agent(agent_id, "")


@pytest.mark.parametrize("seed", range(examples(4)))
async def test_in_the_end_what_is_wanted_is_loaded(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with fleet(tmp_path, {"a": {}}, 0.5, absence=0.05, settle=0.1, retry_min=0.02, retry_max=0.2) as found:
        chance = Chance(found, rng)
        await chance.join()
        for _ in range(STEPS):
            act = rng.choice(
                (chance.join, chance.leave, chance.crash, chance.fail, chance.order, chance.put, chance.ask)
            )
            await act()
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.02, 0.08)))
            found.check()
        await chance.end()
        await found.put(a={"replicas": 2}, b={}, c={}, d={"replicas": 0})
        await found.loaded(a=2, b=1, c=1, d=0)
        ended = await asyncio.gather(*chance.asked)
        # What nobody wanted is refused; nothing was taken from a request, and none hangs.
        assert {each for each in ended if not each.startswith("0 ")} <= {
            "model_stopped", "no_agent", "model_not_found", "agent_lost", "engine_failed", "refused"
        }  # fmt: skip
