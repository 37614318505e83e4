"""Sessions: requests that depend on each other, drawn from a plan or read from a trace, before anything is asked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from anywire_experiment.load.shapes import Shapes
from anywire_experiment.plan.trace_formats import Arrival
from anywire_experiment.plan.traffic import LONGEST_PROMPT, MOST_TURNS, Conversation, count_of, pause_of
from anywire_experiment.plan.workload import Trace, Workload


class Turn(NamedTuple):
    """Requests that are sent at once, ``pause_s`` after all answers of the turn before."""

    pause_s: float
    asks: tuple[Arrival, ...]


class Session(NamedTuple):
    """Turns one after the other, from ``at`` on. ``is_total``: sizes of prompts are those of all that is sent, with
    what came before, and not of what a turn adds. ``has_history``: each turn sends what was said before it."""

    number: int
    at: float
    turns: tuple[Turn, ...]
    is_total: bool = False
    has_history: bool = True

    @property
    def requests(self) -> int:
        return sum(len(each.asks) for each in self.turns)

    def cut_to(self, requests: int) -> Session:
        """Its first ``requests``."""
        turns = []
        for turn in self.turns:
            if requests <= 0:
                break
            turns.append(turn._replace(asks=turn.asks[:requests]))
            requests -= len(turn.asks)
        return self._replace(turns=tuple(turns))


def sessions(
    workload: Workload, starts: Iterable[Arrival], seed: str, limit: float, folder: Path
) -> Iterator[Session] | None:
    """Those of a workload, in order of their beginning, as many as have ``limit`` requests together: the last one is
    cut where it would have more. So all arms of a block are asked the same. ``starts`` are the arrivals; None where
    its requests do not depend on each other. Raises `ConfigError` for a file that cannot be read."""
    if workload.conversation is not None:
        return _limited(_drawn(workload, workload.conversation, starts, seed, Shapes(workload, folder)), limit)
    process = workload.arrivals
    if isinstance(process, Trace) and process.by_session:
        rows = list(starts)
        if any(each.think_s is not None for each in rows):
            shapes, rng = Shapes(workload, folder), random.Random(f"{seed}/trace")
            return _limited(iter(_traced([shapes.owned(shapes.of(each, rng), rng) for each in rows])), limit)
    return None


def _limited(found: Iterator[Session], limit: float) -> Iterator[Session]:
    for session in found:
        if limit < session.requests:
            session = session.cut_to(int(limit))
        if not session.requests:
            return
        limit -= session.requests
        yield session
        if limit <= 0:
            return


def _drawn(
    workload: Workload, conversation: Conversation, starts: Iterable[Arrival], seed: str, shapes: Shapes
) -> Iterator[Session]:
    for number, start in enumerate(starts):
        rng = random.Random(f"{seed}/session {number}")
        first = shapes.owned(start, rng)
        turns: list[Turn] = []
        for at in range(count_of(conversation.turns, rng, MOST_TURNS)):
            turn = _turn(conversation, first, at, rng, shapes)
            turns.append(turn)
            if any(each.cancel_s or each.cancel_tokens for each in turn.asks):
                break  # who gives up goes away
        yield Session(number, start.at, tuple(turns), has_history=conversation.history)


def _turn(conversation: Conversation, first: Arrival, at: int, rng: random.Random, shapes: Shapes) -> Turn:
    tools, fan_out = conversation.tools, conversation.fan_out
    is_result = bool(at) and tools is not None and rng.random() < tools.share
    pause, size, branches = 0.0, 0, 1
    if tools is not None and is_result:
        pause, size = pause_of(tools.time, rng), count_of(tools.tokens, rng, LONGEST_PROMPT)
    elif at:
        pause = pause_of(conversation.think, rng)
    if at and fan_out is not None and rng.random() < fan_out.share:
        branches = fan_out.branches
    asks = (shapes.of(first._replace(at=0.0, input_tokens=size), rng) for _ in range(branches))
    return Turn(pause, tuple(asks))


def _traced(rows: list[Arrival]) -> list[Session]:
    """A request whose pause after the one before it is known goes on with that one's session. Others begin one."""
    found: list[tuple[float, list[Turn]]] = []
    under_way: dict[str, list[Turn]] = {}
    for each in rows:
        before = under_way.get(each.session) if each.session else None
        if before is not None and each.think_s is not None and len(before) < MOST_TURNS:
            before.append(Turn(each.think_s, (each,)))
            continue
        turns = [Turn(0.0, (each,))]
        found.append((each.at, turns))
        if each.session:
            under_way[each.session] = turns
    return [Session(number, at, tuple(turns), True) for number, (at, turns) in enumerate(found)]
