"""The actor of the launcher ``ray``, without Ray."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tests.patience import FACTOR

from anywire.testing.launcher_kit import config, is_gone
from anywire.testing.patience import START_PATIENCE, expect
from anywire_launcher_ray.actor import AgentActor, Hello, State
from anywire_launcher_ray.sealed import SealKey, seal

LEASE = 1.0 * FACTOR


@asynccontextmanager
async def begun(text: str | None = None, key: bytes | None = None) -> AsyncIterator[AgentActor]:
    actor = AgentActor("one", "agent", LEASE)
    hello = msgspec.msgpack.decode(await actor.hello(), type=Hello)
    await actor.begin(seal((text or config(log_level="debug").model_dump_json()).encode(), key or hello.key))
    try:
        yield actor
    finally:
        await expect(actor.stop(10.0), "it stops", START_PATIENCE)


async def asked(actor: AgentActor, seen: State | None = None, wait: float = LEASE / 4) -> State:
    change, line = (seen.change, seen.line) if seen is not None else (0, 0)
    return msgspec.msgpack.decode(await actor.report(change, line, wait), type=State)


async def until(actor: AgentActor, condition: Any) -> State:
    async def wait() -> State:
        state = await asked(actor)
        while not condition(state):
            state = await asked(actor, state)
        return state

    return await expect(wait(), "the actor reports that", START_PATIENCE)


async def test_it_reports_its_agent_and_that_it_was_started_again() -> None:
    async with begun() as actor:
        state = await until(actor, lambda state: state.ready)
        assert not is_gone(state.pid)
        os.kill(state.pid, 9)
        lived = await until(actor, lambda state: state.restarts == 1 and state.pid)
        assert lived.pid != state.pid
        await expect(actor.stop(10.0), "it stops", START_PATIENCE)
        assert is_gone(lived.pid)


async def test_it_tells_each_line_of_the_log_once() -> None:
    wrong = config(engine={"name": "synthetic", "no_such_option": 1})
    async with begun(wrong.model_dump_json()) as actor:
        lines: list[str] = []
        state = await asked(actor)
        while True:
            lines += state.lines
            if state.ended is not None and not state.lines:
                break
            state = await expect(asked(actor, state), "it reports", START_PATIENCE)
        assert len([line for line in lines if "no_such_option" in line]) == 1
        assert len(lines) == state.line
        # Whoever has seen more than there is gets all that is kept.
        assert (await asked(actor, State(state.life, 0, 10**6))).lines == lines


async def test_its_agent_ends_within_three_leases_of_its_drivers_silence() -> None:
    async with begun() as actor:
        state = await until(actor, lambda state: state.ready)
        descriptor = os.pidfd_open(state.pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        began = loop.time()
        try:
            await expect(ended.wait(), "the agent ends", 3 * LEASE)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        assert loop.time() - began > LEASE
        assert (await until(actor, lambda state: state.ended)).ended


async def test_a_configuration_for_another_life_starts_nothing() -> None:
    async with begun(key=SealKey().public) as actor:
        state = await asked(actor)
        assert state.ended == "its configuration did not arrive: sealed for another key, or changed on the way"
        assert state.pid == 0
