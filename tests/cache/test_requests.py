"""Many requests, a third of them repeated: what is a hit is counted by hand, and no answer is another's or stale."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.cache.cached import TellingEngine, ask, caching, chat
from tests.long_form import SOAK

from anywire.caller import Caller
from anywire.testing.patience import expect

REQUESTS = 10_000 if SOAK else 1_000
CHANGES = 10
"""Times that the weights of a model change."""


async def test_no_answer_is_anothers_or_stale_and_hits_are_those_counted_by_hand(tmp_path: Path) -> None:
    rng = random.Random(7)
    engine = TellingEngine("m", "n")
    callers = [Caller(f"k{number}", tenant) for number, tenant in enumerate(("a", "b", "c", "", ""))]
    asked: list[tuple[Caller, str, str]] = []
    kept: dict[tuple[str, str, str], tuple[str, str]] = {}
    """By whose, model and body: the weights that have answered, and the text."""
    hits = expected = repeated = 0
    async with caching(tmp_path, engine, max_entries=2 * REQUESTS) as bench:
        changed = asyncio.Event()
        stop = bench.orchestrator.listen(changed.set)
        for number in range(REQUESTS):
            if number % (REQUESTS // CHANGES) == REQUESTS // CHANGES - 1:
                changed.clear()
                engine.load(rng.choice(("m", "n")), f"w{number}")
                await expect(changed.wait(), "the orchestrator knows the new weights")
            if asked and rng.random() < 1 / 3:
                caller, model, body = rng.choice(asked)
                if rng.random() < 0.2:  # what another one has asked
                    caller = rng.choice(callers)
                repeated += 1
            else:
                caller, model = rng.choice(callers), rng.choice(("m", "n"))
                body = chat(f"question {number}", temperature=rng.choice((0, 1)))
            asked.append((caller, model, body))
            whose = (caller.tenant or f"id {caller.id}", model, body)
            digest = engine.digests[model]
            known = kept.get(whose)
            is_kept = known is not None and known[0] == digest
            how, text = await ask(bench, body, model=model, caller=caller, stream=rng.random() < 0.5)
            assert how == ("hit" if is_kept else "miss"), number
            expected += is_kept
            hits += how == "hit"
            _, rest = text.split(" ", 1)
            assert rest == f"{caller.tenant} {model} {digest} \u00e9\U0001f600\n"
            if known is not None and is_kept:
                assert text.encode() == known[1].encode()
            else:
                kept[whose] = (digest, text)
        stop()
    assert hits == expected
    assert hits > 0.3 * repeated > 0.09 * REQUESTS
    assert engine.answered == REQUESTS - hits
