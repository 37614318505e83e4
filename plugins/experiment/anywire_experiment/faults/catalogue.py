"""The faults: what each does, to whom, how it is done and undone, and what a client must see.

Every fault meets streams of two agents, ``agent-1`` and ``agent-2``. Those that meet an agent, or its engine, meet
``agent-1``. Unless a fault says otherwise every stream must be complete and the same, byte for byte, as one that
nothing disturbed, and afterwards the system must be whole: both agents ready, and a request answered.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Needs = Literal["stand_in", "signals", "network", "clock", "disk"]
"""What inflicts it: a server in the place of the model, signals to processes, an emulated network, libfaketime, or a
file system of its own."""

CUT_AFTER = 10
"""Tokens of a stream before a fault strikes that meets streams under way."""
GONE_ON = 40
"""Tokens of a stream that was held up in its middle and has gone on, at its other agent."""
LASTS = 2.5
"""Seconds of a fault whose streams cannot end while it lasts: more than two leases."""
LOSS = 0.05
"""Share of frames that are lost, each way."""
LARGE_CHARS = 200_000
"""Characters of a prompt that every transport sends in pieces."""
SLOW = 1.0
"""Seconds that the server takes to a first token that is slow."""
SILENCE = 2.0
"""Seconds for which the engine `openai` lets its server be silent, in the cells of this table."""
CLOCK_STEP = 3600
"""Seconds by which clocks are set: the agent's forward, the orchestrator's back."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. ``meets`` is whom, ``does`` what happens to that, ``done`` and ``undone`` how this is inflicted and
    ended, ``must_see`` what the client must see: sentences for a person.

    ``needs`` says what inflicts it. ``crosses`` is true where it needs processes of their own for orchestrator and
    agents. ``first`` is true when it begins before the streams do; else they are under way. ``lasts``: seconds after
    which it is undone; else, with ``goes_on``, once each stream has brought `GONE_ON` tokens, so that what agent-1
    still says of them comes while they go on elsewhere; else once they have ended. ``errors`` are the codes with which
    a stream of ``agent-1``, and of no other, may end instead of being complete; what it brought before must be the
    beginning of the right answer. ``resumes`` is false where the servers cannot go on from a text. ``noticed``: the
    pipeline must notice it. ``prompt_chars`` is the length of the prompts."""

    name: str
    meets: str
    does: str
    done: str
    undone: str
    must_see: str
    needs: Needs
    crosses: bool = False
    first: bool = False
    lasts: float = 0.0
    goes_on: bool = False
    errors: tuple[str, ...] = ()
    resumes: bool = True
    noticed: bool = True
    prompt_chars: int = 0


ALL_COMPLETE = "Every stream is complete and the same as the undisturbed one."
ELSEWHERE = "Every stream is complete: the other agent answers."
GOES_ON = "Every stream is complete and the same as the undisturbed one: the other agent goes on where it broke off."
BEGUN = (
    "Streams of the other agent are complete. Those that had begun end with `engine_failed` after the right beginning: "
    "no token is lost, doubled or wrong."
)
_GONE_ON = "once the streams have gone on elsewhere"
_SERVER_AGAIN = "The server answers as it should again."

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="cut-after-k-tokens",
        meets="The server behind agent-1.",
        does=f"Each connection breaks after {CUT_AFTER} tokens of its answer.",
        done="The stand-in server aborts the connection.",
        undone=_SERVER_AGAIN,
        must_see=GOES_ON,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="cut-without-resuming",
        meets="The server behind agent-1, where no server can go on from a text.",
        does=f"Each connection breaks after {CUT_AFTER} tokens of its answer.",
        done="The stand-in server aborts the connection. The engine's `resume` is `never`.",
        undone=_SERVER_AGAIN,
        must_see=BEGUN,
        needs="stand_in",
        first=True,
        resumes=False,
        errors=("engine_failed",),
    ),
    Fault(
        name="silence",
        meets="The server behind agent-1.",
        does=f"It says nothing more after {CUT_AFTER} tokens, and keeps the connection.",
        done=f"The stand-in server waits. The engine's `next_token_timeout` is {SILENCE:g} s.",
        undone=_SERVER_AGAIN,
        must_see=GOES_ON,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="half-open-link",
        meets="The link between agent-1 and the orchestrator.",
        does="The agent ends, and the orchestrator's end of the connection stays open: no packet tells it.",
        done="Every frame between the two hosts is dropped, then SIGKILL ends the agent.",
        undone=f"The link carries frames again, and the agent is started again, {_GONE_ON}.",
        must_see=ALL_COMPLETE,
        needs="network",
        crosses=True,
        goes_on=True,
    ),
    Fault(
        name="refused",
        meets="The server behind agent-1.",
        does="It has ended: connections to it are refused.",
        done="The stand-in server closes its port and its connections.",
        undone="It listens again.",
        must_see=ELSEWHERE,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="429-burst",
        meets="The server behind agent-1.",
        does="It answers each request with status 429 and `Retry-After: 1`.",
        done="The stand-in server answers so.",
        undone=_SERVER_AGAIN,
        must_see=ELSEWHERE,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="500-burst",
        meets="The server behind agent-1.",
        does="It answers each request with status 500.",
        done="The stand-in server answers so.",
        undone=_SERVER_AGAIN,
        must_see=ELSEWHERE,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="garbage-sse",
        meets="The server behind agent-1.",
        does="It answers with status 200 and an event stream of bytes that are no events.",
        done="The stand-in server answers so.",
        undone=_SERVER_AGAIN,
        must_see="Every stream is complete: the other agent answers. Nothing of the garbage is shown.",
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="empty-200",
        meets="The server behind agent-1.",
        does="It answers with status 200 and ends the stream without a token.",
        done="The stand-in server answers so.",
        undone=_SERVER_AGAIN,
        must_see=ELSEWHERE,
        needs="stand_in",
        first=True,
    ),
    Fault(
        name="slow-first-token",
        meets="The server behind agent-1.",
        does=f"It takes {SLOW:g} s to its first token, less than the engine's `first_token_timeout`.",
        done="The stand-in server waits before it answers.",
        undone=_SERVER_AGAIN,
        must_see=ALL_COMPLETE,
        needs="stand_in",
        first=True,
        noticed=False,
    ),
    Fault(
        name="agent-killed",
        meets="The process of agent-1.",
        does="It ends at once, and can tell nobody.",
        done="SIGKILL, while its streams are under way.",
        undone=f"It is started again, {_GONE_ON}.",
        must_see=ALL_COMPLETE,
        needs="signals",
        crosses=True,
        goes_on=True,
    ),
    Fault(
        name="agent-paused",
        meets="The process of agent-1.",
        does="It does not run for longer than its lease, and then goes on.",
        done="SIGSTOP, while its streams are under way.",
        undone=f"SIGCONT, {_GONE_ON}.",
        must_see=ALL_COMPLETE,
        needs="signals",
        crosses=True,
        goes_on=True,
    ),
    Fault(
        name="hub-paused",
        meets="The process of the orchestrator.",
        does=f"It does not run for {LASTS:g} s, and then goes on.",
        done="SIGSTOP, while streams are under way.",
        undone="SIGCONT.",
        must_see="Every stream goes on after the pause, is complete and the same as the undisturbed one.",
        needs="signals",
        lasts=LASTS,
        noticed=False,
    ),
    Fault(
        name="partition",
        meets="The link between agent-1 and the orchestrator.",
        does="No packet passes, either way, and nobody is told.",
        done="Every frame between the two hosts is dropped.",
        undone=f"The link carries frames again, {_GONE_ON}.",
        must_see=ALL_COMPLETE,
        needs="network",
        crosses=True,
        goes_on=True,
    ),
    Fault(
        name="partition-one-way-to-hub",
        meets="The link between agent-1 and the orchestrator.",
        does="The orchestrator does not hear the agent, which hears the orchestrator.",
        done="Frames to the orchestrator's host are dropped.",
        undone=f"The link carries frames again, {_GONE_ON}.",
        must_see=ALL_COMPLETE,
        needs="network",
        crosses=True,
        goes_on=True,
    ),
    Fault(
        name="partition-one-way-to-agent",
        meets="The link between agent-1 and the orchestrator.",
        does="The agent does not hear the orchestrator, which hears the agent: streams go on while they have credit.",
        done="Frames to the agent's host are dropped.",
        undone="The link carries frames again, once the streams have ended.",
        must_see=ALL_COMPLETE,
        needs="network",
        crosses=True,
    ),
    Fault(
        name="fragments-dropped",
        meets="The link between agent-1 and the orchestrator.",
        does=f"Of all packets {LOSS:.0%} are lost, each way, while prompts of {LARGE_CHARS:,} characters cross it.",
        done="The emulated link loses frames at random, with a seed.",
        undone="The link loses nothing any more.",
        must_see=ALL_COMPLETE,
        needs="network",
        crosses=True,
        first=True,
        noticed=False,
        prompt_chars=LARGE_CHARS,
    ),
    Fault(
        name="clock-step",
        meets="The clocks of the orchestrator and of agent-1.",
        does=f"The orchestrator's is set back by {CLOCK_STEP} s and the agent's forward, while streams are under way.",
        done="The library libfaketime moves what the processes take for the time of day.",
        undone="Both clocks are set right.",
        must_see=ALL_COMPLETE,
        needs="clock",
        noticed=False,
    ),
    Fault(
        name="disk-full",
        meets="The disk with the state of the orchestrator: background tasks and the audit log.",
        does="It has no byte left.",
        done="A file fills a small file system that only the orchestrator sees.",
        undone="The file is removed.",
        must_see="Every stream is complete. A background task is refused while the disk is full, and taken afterwards.",
        needs="disk",
        noticed=False,
    ),
)

TRANSPORTS = ("memory", "dds", "http", "zeromq", "grpc", "nats")
"""Those of the project, in the order of the table; others stand after them."""

BY_NAME = {each.name: each for each in FAULTS}
