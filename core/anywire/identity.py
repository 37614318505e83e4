"""Who this process is, as its peers will know it."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from anywire.engine import Engine
from anywire.messages import AgentInfo, HubInfo


@cache
def boot_id() -> str:
    """The kernel's id of this boot: equal means one CLOCK_MONOTONIC. Elsewhere than Linux, the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def new_incarnation() -> int:
    """A number no other life of this process has had."""
    return time.time_ns()


def agent_info(
    agent_id: str = "", *, engine: Engine, specialization: str = "", device: str = "", lease: float = 1.0
) -> AgentInfo:
    """This process as an agent; without an id it gets one that is unique (``host-pid-random``)."""
    host = socket.gethostname()
    return AgentInfo(
        agent_id=agent_id or f"{host}-{os.getpid()}-{secrets.token_hex(2)}",
        incarnation=new_incarnation(),
        host=host,
        pid=os.getpid(),
        engine=engine.name,
        specialization=specialization,
        capabilities=tuple(engine.capabilities),
        device=device,
        boot_id=boot_id(),
        lease_ms=round(lease * 1000),
    )


def hub_info(hub_id: str = "", *, lease: float = 1.0) -> HubInfo:
    """This process as a hub; without an id it gets one that is unique."""
    host = socket.gethostname()
    return HubInfo(
        hub_id=hub_id or f"hub-{host}-{os.getpid()}-{secrets.token_hex(2)}",
        incarnation=new_incarnation(),
        host=host,
        pid=os.getpid(),
        lease_ms=round(lease * 1000),
    )


def random_ids() -> Iterator[str]:
    """Ids of 12 random bytes, in hexadecimal. The system is asked for many at a time, since a call costs as much as
    queueing a task."""
    length = 24
    while True:
        drawn = secrets.token_hex(64 * length)
        for at in range(0, len(drawn), length):
            yield drawn[at : at + length]
