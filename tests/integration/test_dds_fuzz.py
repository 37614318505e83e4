"""Mutated samples and RTPS packets, from strangers and from peers that have joined: nobody else is harmed."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.identified_rig import IdentifiedRig
from tests.long_form import SOAK, examples
from tests.patience import PATIENCE

from anywire.messages import Chunk, TaskRequest
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.rig import Rig, request
from anywire.transport import Reply
from anywire_dds.announcements import MAX_LIVES
from anywire_dds.hub import DdsHub

SEED = random.SystemRandom().randrange(2**32) if SOAK else 2026
COUNT = examples(1_000)


def echo(task: TaskRequest, reply: Reply) -> None:
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))


@pytest.fixture
async def rig(dds_domain: int, kind: str) -> AsyncIterator[Rig]:
    make = IdentifiedRig if kind == "identified" else Rig
    rig = make("dds", {"domain": dds_domain, "multicast": "off", "interface": "127.0.0.1"})
    async with rig:
        for words in ("never sent", "not sent on this link", "out of order", "never reported", "never joined"):
            rig.breaches.allow(words)
        yield rig


class Fuzzer:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, kind: str, domain: int, targets: dict[str, Any]) -> Fuzzer:
        command = ("-m", "tests.integration.dds_fuzzer", kind, str(domain), str(SEED), str(COUNT), json.dumps(targets))
        return cls(await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE))

    async def says(self, word: str) -> int:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        assert line, f"the fuzzer ended with {await self.process.wait()} (seed {SEED})"
        return int(json.loads(line)[word])


@pytest.mark.parametrize("kind", ["stranger", "peer", "identified", "packets"])
async def test_mutated_messages_harm_nobody_else(rig: Rig, dds_domain: int, kind: str) -> None:
    _, agent, agent_info = await rig.port("a", echo)
    checked, sink, info = await rig.hub("h")
    hub = getattr(checked, "inner", checked)
    assert isinstance(hub, DdsHub)
    await sink.event("joined", "a")
    targets = {
        "agent": "a", "agent_incarnation": agent_info.incarnation, "hub": "h", "hub_incarnation": info.incarnation,
    }  # fmt: skip
    fuzzer = await Fuzzer.start(kind, dds_domain, targets)
    with LogRecorder() as warnings:
        await fuzzer.says("begun")
        done = asyncio.ensure_future(fuzzer.says("sent"))
        number = 0
        while not done.done():
            number += 1
            checked.send("a", request(info, f"t{number}", body=f"body {number}"))
            assert (await sink.final(f"t{number}")).deltas == (f"body {number}",)
            assert ("lost", "a") not in {event[:2] for event in sink.events}
            assert len(hub._agents) <= MAX_LIVES
            sink.events.clear()
            agent.events.clear()
        assert done.result() >= COUNT
        assert await asyncio.wait_for(fuzzer.process.wait(), PATIENCE) == 0
        await sink.until(lambda: list(hub._links.by_name) == ["a"])
        checked.send("a", request(info, "last"))
        await sink.final("last")
    failures = warnings.messages("could not be processed")
    assert not failures, f"seed {SEED}: {failures}"
    assert ("lost", "a") not in {event[:2] for event in sink.events}
