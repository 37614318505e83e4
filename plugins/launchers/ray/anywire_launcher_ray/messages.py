"""What the launcher and its driver's process say to each other: a line of JSON each, over the driver's standard input
and output.

Each agent has a number, which the launcher gives once. The first line to the driver is a `Connect`. It answers with
`Connected`, or `Failed` and ends.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_LINE = 64 * 1024 * 1024
"""Bytes of a message."""
MAX_TEXT = 8192
"""Characters of a line of a log, and of a reason."""
ALIVE_INTERVAL = 5.0
"""Seconds between two signs of life of a driver that is connected."""
MAX_LINES = 100
"""Lines of a log in one report."""

Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node must have free for an agent, and how Ray chooses between nodes."""

    num_cpus: float = 0
    num_gpus: float = 0
    memory: int = 0
    resources: dict[str, float] = {}
    spread: bool = False


class ToDriver(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What the driver is told."""


class Connect(ToDriver, frozen=True):
    """Connect to the cluster at ``address``. Where that is empty, start one of this machine alone, whose files and
    token lie in ``folder``."""

    address: str
    folder: str


class Start(ToDriver, frozen=True):
    """Start an agent. ``was_ready`` tells that it was ready before, so that it is started again however it ends."""

    agent: Count
    name: Name
    role: str
    config: str
    lease: Seconds
    place: Place
    was_ready: bool = False


class Stop(ToDriver, frozen=True):
    """Stop an agent, and kill it after ``grace`` seconds. `Ended` answers."""

    agent: Count
    grace: Seconds


class FromDriver(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What the driver tells."""


class Alive(FromDriver, frozen=True):
    """The driver's event loop runs. Told every `ALIVE_INTERVAL` seconds."""


class Connected(FromDriver, frozen=True):
    """``host`` is the address of this machine's node, ``ports`` those that Ray has open on all interfaces of this
    machine, as far as they are seen."""

    address: str
    version: str
    host: str
    nodes: Count
    ports: list[int]


class Failed(FromDriver, frozen=True):
    """The cluster cannot be used; the driver ends."""

    reason: Text


class Placed(FromDriver, frozen=True):
    """A life of an actor has begun on a node. ``host`` is the name of its machine."""

    agent: Count
    life: Name
    host: Name
    node: str
    address: str


class Reported(FromDriver, frozen=True):
    """How an agent's process is: ``pid`` is 0 while there is none, ``restarts`` counts within this life of the
    actor. ``lines`` are new in its log."""

    agent: Count
    life: Name
    pid: Count
    restarts: Count
    ready: bool
    lines: Annotated[list[Text], Meta(max_length=MAX_LINES)]


class Down(FromDriver, frozen=True):
    """An agent is lost, and will be started again."""

    agent: Count
    reason: Text


class Waiting(FromDriver, frozen=True):
    """An agent has no place yet, since no node has free what it needs."""

    agent: Count
    reason: Text


class Ended(FromDriver, frozen=True):
    """An agent has ended for good."""

    agent: Count
    reason: Text


Orders = Connect | Start | Stop
Reports = Alive | Connected | Failed | Placed | Reported | Down | Waiting | Ended

_orders = msgspec.json.Decoder(Orders)
_reports = msgspec.json.Decoder(Reports)


def encode(message: ToDriver | FromDriver) -> bytes:
    """The message as a line, with its end."""
    return msgspec.json.encode(message) + b"\n"


def order(line: bytes) -> Orders:
    """What a line tells the driver. Raises `msgspec.ValidationError` or `msgspec.DecodeError`."""
    found: Orders = _orders.decode(line)
    return found


def report(line: bytes) -> Reports:
    """What a line of the driver tells. Raises `msgspec.ValidationError` or `msgspec.DecodeError`."""
    found: Reports = _reports.decode(line)
    return found


def shortened(text: str) -> str:
    """``text`` within the bounds of a reason or of a line of a log."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
