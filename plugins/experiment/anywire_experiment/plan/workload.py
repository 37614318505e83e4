"""What is asked of the system, and when: the workloads of a plan.

Times are measured from the moment a request was *meant* to be sent. In an open loop that is its place in the arrival
process, however late the generator or the system are, so a system that stalls cannot hide it by slowing down the
load (coordinated omission); in a closed loop it is the end of the client's last answer. In a session it is the end of
the answer before it and the pause after that.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from anywire_experiment.exercises.generated import KINDS, Kind
from anywire_experiment.plan.fault_kinds import FaultKind
from anywire_experiment.plan.saturation import Search
from anywire_experiment.plan.section import Positive, Section
from anywire_experiment.plan.traffic import LONGEST_PROMPT, MOST_BLOCK_TOKENS, Conversation, GivingUp, Sizes

TENANT = "^[!-~]{1,64}$"
LONGEST_DEADLINE = 86_400
"""Seconds."""


class Closed(Section):
    """So many clients, each sending its next request when the last was answered."""

    kind: Literal["closed"] = "closed"
    clients: int = pydantic.Field(1, ge=1, le=4096, description="clients, each with a connection of its own")


class Poisson(Section):
    """Independent arrivals at a mean rate."""

    kind: Literal["poisson"] = "poisson"
    rate: Positive = pydantic.Field(description="requests per second, on average")


class Bursts(Section):
    """``size`` requests at one moment, then none until the next burst."""

    kind: Literal["bursts"] = "bursts"
    size: int = pydantic.Field(ge=1, le=10_000, description="requests in a burst")
    every: Positive = pydantic.Field(description="seconds from burst to burst")


class Window(Section):
    """A part of a trace, in its own time."""

    start: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False, description="seconds after its first request")
    seconds: Positive = pydantic.Field(description="how long it is")
    step: float = pydantic.Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds by which each block's window begins later than the one before; 0: all replay the same",
    )


class Trace(Section):
    """Replay of a file: one row per request, with its arrival and its lengths. The format is known by its columns
    (`anywire_experiment.plan.trace_formats`): ``anywire`` (also what ``anywire capture`` writes), ``azure``,
    ``burstgpt``, ``mooncake``. What a row says goes before what the workload says."""

    kind: Literal["trace"] = "trace"
    file: Path = pydantic.Field(description="the trace; a relative path starts at the plan's folder")
    further: tuple[Path, ...] = pydantic.Field(
        (),
        description="more files, for other blocks: the first block replays `file`, the next ones these, then all once "
        "more; every arm of a block gets the same",
    )
    format: Literal["", "anywire", "azure", "burstgpt", "mooncake"] = pydantic.Field(
        "", description="the format it must have; empty: known by its columns"
    )
    speed: Positive = pydantic.Field(1.0, description="2 replays it in half the time; pauses in sessions stay")
    window: Window | None = pydantic.Field(None, description="only the requests of this part of it")
    first: int | None = pydantic.Field(None, ge=1, description="only so many requests, the first ones")
    block_tokens: int = pydantic.Field(
        512, ge=1, le=MOST_BLOCK_TOKENS, description="tokens for which one hash of a prompt's beginning stands"
    )
    by_session: bool = pydantic.Field(
        True,
        description="where the trace tells sessions: send a request when the one before it was answered, after the "
        "recorded pause; false: each at its recorded time",
    )

    def of_block(self, block: int) -> Trace:
        """What a block, counted from 1, replays: the files in turn, and after each turn the next window."""
        files = (self.file, *self.further)
        turn, which = divmod(block - 1, len(files))
        window = self.window
        if window is not None:
            window = window.model_copy(update={"start": window.start + turn * window.step, "step": 0.0})
        return self.model_copy(update={"file": files[which], "further": (), "window": window})

    def parts(self, blocks: int) -> int:
        """How many different parts so many blocks replay."""
        moving = self.window is not None and self.window.step > 0
        return blocks if moving else min(blocks, 1 + len(self.further))


Arrivals = Annotated[Closed | Poisson | Bursts | Trace | Search, pydantic.Field(discriminator="kind")]


class Prompts(Section):
    """What the prompts look like. ``shared_prefix_chars`` of each prompt are one of ``prefixes`` common beginnings,
    chosen with Zipf's law of exponent ``skew``; the rest is different in every request. In the warm-up they take turns,
    so that each has been there once after ``prefixes`` requests. All workloads of a cell have the same beginnings."""

    kind: Literal["simple", "medium", "complex", "chars"] = pydantic.Field(
        "simple",
        description="simple: one short question; medium: a paragraph; complex: instructions, context and a "
        "question of several turns; chars: filler of exactly `chars` characters",
    )
    chars: int = pydantic.Field(300, ge=1, le=16_000_000, description="length with kind chars")
    shared_prefix_chars: int = pydantic.Field(0, ge=0, description="beginning that prompts have in common")
    shared_prefix_tokens: int = pydantic.Field(
        0, ge=0, le=LONGEST_PROMPT, description="the same in tokens (words), in the place of `shared_prefix_chars`"
    )
    prefixes: int = pydantic.Field(1, ge=1, description="how many different beginnings there are")
    skew: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False, description="0: all equally often; 1: Zipf")

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> Prompts:
        if self.shared_prefix_chars and self.shared_prefix_tokens:
            raise ValueError("give either shared_prefix_chars or shared_prefix_tokens")
        return self


class Exercises(Section):
    """Prompts whose answers are checked, in the place of `Prompts`: made by seed, or those of a file.

    The file has a JSON object per line: ``{"id": "…", "prompt": "…", "answer": "…"}``, or with ``pattern``, a regular
    expression, in the place of ``answer``; also ``choices``, the answers among which it asks for one, and ``kind``, by
    which a report groups them. What is right: `anywire_experiment.exercises.exercise.is_right`.
    """

    kinds: tuple[Kind, ...] = pydantic.Field(
        KINDS, min_length=1, description="kinds of exercises to make, in turn; other ones in each block"
    )
    file: Path | None = pydantic.Field(
        None,
        description="exercises of your own (JSONL) instead, in an order drawn for each block; a relative path starts "
        "at the plan's folder",
    )

    @pydantic.model_validator(mode="after")
    def _one_or_the_other(self) -> Exercises:
        if self.file is not None and self.kinds != KINDS:
            raise ValueError("give either kinds or a file")
        return self


class WarmUp(Section):
    """Requests that are recorded but not counted: at least ``requests``, and then until the latency is steady by
    MSER-5, which needs 100, or ``limit`` requests were made. A workload that never gets steady is told in the record.
    """

    requests: int = pydantic.Field(100, ge=0)
    limit: int = pydantic.Field(500, ge=0)


class Fault(Section):
    """What is done to the system while it is measured."""

    kind: FaultKind = pydantic.Field(
        description="kill: kill -9 of one agent's process; pause: SIGSTOP, and SIGCONT after `lasts`; partition: the "
        "agent's host is cut off for `lasts` (needs a network); 500-burst, silence and the like: the server behind an "
        "agent fails so (needs `stand_in`); all of them: `anywire experiment faults --list`"
    )
    at: Positive = pydantic.Field(1.0, description="seconds after the measurement began")
    lasts: Positive = pydantic.Field(
        2.0, description="seconds until it is over: the agent is started again, continued, reconnected …"
    )


class Workload(Section):
    """One way to load the system. ``requests`` or ``seconds`` ends the measurement, whichever comes first."""

    arrivals: Arrivals = Closed()
    prompts: Prompts = Prompts()
    exercises: Exercises | None = pydantic.Field(
        None,
        description="prompts with answers that are checked, in the place of `prompts`; `quality` is the share right",
    )
    sizes: Sizes | None = pydantic.Field(None, description="lengths drawn for each request")
    conversation: Conversation | None = pydantic.Field(
        None, description="sessions of requests that depend on each other; arrivals are then of sessions"
    )
    cancel: GivingUp | None = pydantic.Field(None, description="requests that their clients give up")
    through: Literal["gateway", "client_plane"] = pydantic.Field(
        "gateway", description="gateway: OpenAI HTTP; client_plane: the transport under test also to the orchestrator"
    )
    model: str = pydantic.Field("", description="empty: the first one the system offers")
    stream: bool = False
    max_tokens: int = pydantic.Field(20, ge=1, le=1_000_000)
    temperature: float = pydantic.Field(
        0.0, ge=0, le=2, description="0: a model gives the same prompt the same answer in every arm"
    )
    requests: int | None = pydantic.Field(None, ge=1, description="how many are measured")
    seconds: Positive | None = pydantic.Field(None, description="how long is measured")
    timeout: Positive = pydantic.Field(30.0, description="seconds after which a request counts as failed")
    priorities: dict[int, float] = pydantic.Field(
        default_factory=dict, description="priority: share of the requests that have it; empty: all 0"
    )
    tenants: dict[Annotated[str, pydantic.Field(pattern=TENANT)], Positive] = pydantic.Field(
        default_factory=dict,
        description="tenant: share of the requests that it sends, through the gateway, and in a closed loop share of "
        "the clients; empty: no tenant is named",
    )
    deadlines: dict[Annotated[float, pydantic.Field(gt=0, le=LONGEST_DEADLINE)], Positive] = pydantic.Field(
        default_factory=dict,
        description="seconds: share of the requests that have this deadline, through the gateway; empty: none has one",
    )
    warm_up: WarmUp = WarmUp()
    fault: Fault | None = None

    @pydantic.model_validator(mode="after")
    def _ends(self) -> Workload:
        if self.requests is None and self.seconds is None and not isinstance(self.arrivals, Trace | Search):
            raise ValueError("say when it ends: requests, seconds or both")
        if isinstance(self.arrivals, Search):
            for name in ("requests", "seconds", "conversation", "exercises", "fault", "cancel"):
                if getattr(self, name) is not None:
                    raise ValueError(f"a search for the rate that is borne has steps of its own: leave out `{name}`")
        if self.exercises is not None:
            if self.requests is None or self.seconds is not None:
                raise ValueError(
                    "exercises: say how many `requests`, and no `seconds`: every arm must get the same ones"
                )
            if isinstance(self.arrivals, Trace) or self.prompts != Prompts():
                raise ValueError("exercises: they are the prompts: leave out `prompts` and a trace")
            if self.sizes or self.conversation or self.cancel:
                raise ValueError("exercises: each is asked once and whole: leave out sizes, conversation and cancel")
        if isinstance(self.arrivals, Trace) and (self.sizes or self.conversation):
            raise ValueError("a trace has sizes, and its sessions: leave out `sizes` and `conversation`")
        if self.cancel is not None and self.cancel.after_tokens is not None and not self.stream:
            raise ValueError("cancel.after_tokens: only a stream comes in pieces: add `stream: true`, or give `after`")
        if self.through != "gateway":
            for name in ("tenants", "deadlines"):
                if getattr(self, name):
                    raise ValueError(f"{name}: only the gateway is told of them")
        if self.tenants and isinstance(self.arrivals, Closed):
            served = {self.tenant_of(client) for client in range(self.arrivals.clients)}
            if missing := [each for each in self.tenants if each not in served]:
                raise ValueError(
                    f"tenants: {missing[0]!r} gets no client of {self.arrivals.clients}; give it a larger share"
                )
        if self.fault is not None and self.seconds is not None and self.fault.at >= self.seconds:
            raise ValueError(f"the fault at {self.fault.at:g} s comes after the end at {self.seconds:g} s")
        return self

    @property
    def search(self) -> Search | None:
        """The search for the rate that is borne; None where the rate is given."""
        return self.arrivals if isinstance(self.arrivals, Search) else None

    def of_block(self, block: int) -> Workload:
        """As a block, counted from 1, has it: with its own part of a trace."""
        if not isinstance(self.arrivals, Trace):
            return self
        return self.model_copy(update={"arrivals": self.arrivals.of_block(block)})

    def tenant_of(self, client: int) -> str:
        """The tenant of that client of a closed loop, counted from 0: each has its share of the clients. Empty where no
        tenants are named, and in an open loop, whose requests have no clients."""
        if not self.tenants or not isinstance(self.arrivals, Closed):
            return ""
        place = (client + 0.5) / self.arrivals.clients * sum(self.tenants.values())
        reached = itertools.accumulate(self.tenants.values())
        return next(name for name, end in zip(self.tenants, reached, strict=True) if place <= end * (1 + 1e-9))
