"""What a plan says of traffic that is more than independent requests of one size: sizes, clients that give up, and
conversations whose requests depend on each other.

All of it is drawn from the block's seed before anything is asked, so every arm of a block meets the same sessions, with
the same turns, sizes and pauses. What an arm changes is when a turn can be sent: a pause begins with the end of the
answer before it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import pydantic

from anywire.builtin.distribution import Distribution, Drawn
from anywire_experiment.plan.section import Section

LONGEST_PROMPT = 1_000_000
"""Tokens of a prompt, or of what a turn adds to one; longer ones that are drawn are cut to it."""
LONGEST_ANSWER = 1_000_000
MOST_BLOCK_TOKENS = 65_536
"""Tokens for which one hash of a prompt's beginning stands."""
MOST_TURNS = 1_000
MOST_BRANCHES = 64
LONGEST_PAUSE = 86_400.0
"""Seconds."""
WIDEST = 1000
"""Times the mean that a spread may be."""

CANCELLED = "cancelled"
"""The outcome of a request that its client was meant to give up, whether or not its answer was quicker: such requests
are load, and neither answered nor failed. Who is to give up is drawn beforehand, so an arm that is slower loses no slow
answers by it."""
NOT_ASKED = "not_asked"
"""The outcome of a request of a session that was never sent, because one that it depends on failed. It counts as
failed: else an arm that fails early would seem to be asked less."""


def _can_be_drawn(drawn: Distribution) -> Distribution:
    if drawn.spread > WIDEST * drawn.mean:
        raise ValueError(f"a spread of {drawn.spread:g} is more than {WIDEST} times the mean of {drawn.mean:g}")
    return drawn


Amount = Annotated[Drawn, pydantic.AfterValidator(_can_be_drawn)]
"""A number or a distribution that can be drawn from."""


class Sizes(Section):
    """How long prompts and answers are, in tokens: each request has sizes of its own. A prompt has so many words, which
    are about as many tokens; an answer's size is the request's ``max_tokens``, so the engine must go on as long."""

    prompt: Amount | None = pydantic.Field(
        None, description="tokens of a prompt; in a conversation of a turn's new text"
    )
    answer: Amount | None = pydantic.Field(None, description="tokens of an answer, in the place of `max_tokens`")
    file: Path | None = pydantic.Field(
        None,
        description="a trace, in any of the formats of `arrivals: {kind: trace}`, from which pairs of both sizes are "
        "drawn together; a relative path starts at the plan's folder",
    )

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Sizes:
        if self.file is not None and (self.prompt is not None or self.answer is not None):
            raise ValueError("give either a file or `prompt` and `answer`: a file has both sizes")
        if self.file is None and self.prompt is None and self.answer is None:
            raise ValueError("say `prompt`, `answer` or a `file`")
        for name in ("prompt", "answer"):
            given = getattr(self, name)
            if given is not None and given.mean < 1:
                raise ValueError(f"{name}: a mean of {given.mean:g} tokens; it must be 1 or more")
        return self


class GivingUp(Section):
    """Clients that do not wait for the end of an answer: they close the connection (or cancel, over a client plane)."""

    share: float = pydantic.Field(gt=0, le=1, description="share of the requests that are given up, drawn by seed")
    after: Amount | None = pydantic.Field(None, description="seconds after sending")
    after_tokens: Amount | None = pydantic.Field(None, description="pieces of a stream after which it is given up")

    @pydantic.model_validator(mode="after")
    def _one_or_the_other(self) -> GivingUp:
        if (self.after is None) == (self.after_tokens is None):
            raise ValueError("give either `after` (seconds) or `after_tokens` (pieces of a stream)")
        if self.after is not None and not 0 < self.after.mean <= LONGEST_PAUSE:
            raise ValueError(f"after: a mean of {self.after.mean:g} s; it must be above 0")
        if self.after_tokens is not None and self.after_tokens.mean < 1:
            raise ValueError(f"after_tokens: a mean of {self.after_tokens.mean:g}; it must be 1 or more")
        return self


class Tools(Section):
    """Turns that follow a call of a tool, not a person's message: the agent has the tool do something, and asks again
    with what came of it. The result is sent as a message of the user, which any model takes."""

    share: float = pydantic.Field(
        gt=0, le=1, description="share of the turns after the first that bring a tool's result"
    )
    time: Amount = pydantic.Field(description="seconds that the tool takes: from the answer to the next request")
    tokens: Amount = pydantic.Field(Distribution(mean=200), description="tokens of its result")


class FanOut(Section):
    """Turns that ask several requests at once, each with a question of its own after the same history, and that are
    over when all are answered. All their answers are in the history of the next turn."""

    share: float = pydantic.Field(gt=0, le=1, description="share of the turns that do so")
    branches: int = pydantic.Field(ge=2, le=MOST_BRANCHES, description="requests at once")


class Conversation(Section):
    """Requests that depend on each other, as those of a person who chats or of an agent at work. Arrivals are then of
    sessions: in a closed loop each client begins its next session when the last is over."""

    turns: Amount = pydantic.Field(description="turns of a session, at least one")
    think: Amount = pydantic.Field(
        Distribution(mean=0), description="seconds from an answer to the next message of a person"
    )
    tools: Tools | None = None
    fan_out: FanOut | None = None
    history: bool = pydantic.Field(
        True, description="each turn sends all before it, with the answers as they really came; false: its text alone"
    )

    @pydantic.model_validator(mode="after")
    def _is_finite(self) -> Conversation:
        if not 1 <= self.turns.mean <= MOST_TURNS:
            raise ValueError(f"turns: a mean of {self.turns.mean:g}; it must be from 1 to {MOST_TURNS}")
        pauses = {"think": self.think, "tools.time": self.tools.time if self.tools else Distribution(mean=0)}
        for name, pause in pauses.items():
            if pause.mean > LONGEST_PAUSE:
                raise ValueError(f"{name}: a mean of {pause.mean:g} s is more than a day")
        return self


def count_of(size: Distribution, rng: random.Random, most: int) -> int:
    """A whole number drawn from ``size``, from 1 to ``most``."""
    return min(max(1, round(size.draw(rng))), most)


def pause_of(pause: Distribution, rng: random.Random) -> float:
    """Seconds drawn from ``pause``, at most a day."""
    return min(pause.draw(rng), LONGEST_PAUSE)
