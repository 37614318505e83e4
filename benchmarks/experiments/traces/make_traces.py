"""Makes the small traces beside it, in the forms of public ones, from a seed: nobody's requests are in them.

    python benchmarks/experiments/traces/make_traces.py

They have what the public traces have: bursts of arrivals, sizes with a long tail, beginnings that prompts share, and
sessions whose history grows. Their numbers are made up, and small enough for a laptop.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent
REQUESTS = 1400
"""Some hundred seconds: 16 blocks of six, each with its own."""
BEGIN = datetime(2026, 1, 5, 9)
BLOCK = 64
"""Tokens for which a hash of the Mooncake trace stands; in the public ones it is 512."""


def size(rng: random.Random, mean: float, most: int) -> int:
    """Tokens, with a long tail."""
    return max(2, min(most, round(rng.lognormvariate(0, 0.9) * mean * 0.67)))


def times(rng: random.Random) -> Iterator[float]:
    """Seconds of arrivals, some of them in bursts."""
    at = 0.0
    while True:
        yield at
        at += rng.expovariate(60) if rng.random() < 0.5 else rng.expovariate(8)


def azure(rng: random.Random) -> str:
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at, _ in zip(times(rng), range(REQUESTS), strict=False):
        stamp = BEGIN + timedelta(seconds=at)
        rows.append(f"{stamp:%Y-%m-%d %H:%M:%S.%f}0,{size(rng, 120, 600)},{size(rng, 14, 60)}")
    return "\n".join(rows) + "\n"


def burstgpt(rng: random.Random) -> str:
    """Some requests belong to sessions, and some have failed."""
    made: list[tuple[float, str]] = []
    at, session = times(rng), 0
    while len(made) < REQUESTS:
        begin = next(at)
        if rng.random() < 0.4:
            given, took = size(rng, 40, 300), rng.uniform(0.1, 0.4)
            answer = 0 if rng.random() < 0.1 else size(rng, 12, 50)
            model = rng.choice(("model-a", "model-b"))
            made.append((begin, f",{took:.3f},{model},{given},{answer},{given + answer},API log"))
            continue
        session += 1
        given = 0
        for _ in range(rng.randint(1, 5)):
            given, answer, took = given + size(rng, 30, 200), size(rng, 12, 50), rng.uniform(0.1, 0.4)
            made.append((begin, f"{session},{took:.3f},model-a,{given},{answer},{given + answer},Conversation log"))
            given, begin = given + answer, begin + took + rng.uniform(0.05, 0.5)
    head = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    return "\n".join([head, *(f"{begin:.3f},{rest}" for begin, rest in sorted(made))]) + "\n"


def mooncake(rng: random.Random) -> str:
    """Four beginnings that prompts share, and conversations that go on from what was asked before."""
    numbers = itertools.count()
    shared = [[next(numbers) for _ in range(rng.randint(2, 6))] for _ in range(4)]
    earlier: list[list[int]] = []
    rows = []
    for at, _ in zip(times(rng), range(REQUESTS), strict=False):
        known = rng.choice(earlier) if earlier and rng.random() < 0.4 else rng.choice(shared)
        more = [next(numbers) for _ in range(rng.randint(1, 3))]
        ids = [*known, *more][:12]
        earlier.append(ids)
        tokens = (len(ids) - 1) * BLOCK + rng.randint(1, BLOCK)
        row = {"timestamp": round(at * 1000), "input_length": tokens, "output_length": size(rng, 14, 60)}
        rows.append(json.dumps(row | {"hash_ids": ids}))
    return "\n".join(rows) + "\n"


MAKERS = {"azure.csv": azure, "burstgpt.csv": burstgpt, "mooncake.jsonl": mooncake}


def made() -> dict[str, str]:
    """The text of each trace."""
    return {name: make(random.Random(f"anywire {name}")) for name, make in MAKERS.items()}


if __name__ == "__main__":
    for name, text in made().items():
        (FOLDER / name).write_text(text)
