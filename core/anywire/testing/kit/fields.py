"""Every field of every message arrives with the value it was sent with: of values that a seed chooses."""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
import pytest

from anywire.messages import AgentStatus, Cancel, Chunk, Command, CommandResult, Credit, Progress, TaskRequest
from anywire.offers import MAX_OFFERS, MAX_OFFERS_BYTES, Offer, offers_text, read_offers
from anywire.testing.rig import Rig, request
from anywire.transport import Reply

M = TypeVar("M", bound=msgspec.Struct)

TEXTS = ["", "a", "ü\n\t€😀", "  spaces ", '{"json": "\\u00fc \\"quoted\\""}', "null", "0", "x" * 10_000, "ä€😀" * 3000]
NUMBERS = [0, 1, 2, 127, 128, 70_000, 2**31 - 1]
SIGNED = [0, -1, 5, -(2**31)]
TIMES_LEFT = [0, 70_000, 2**31 - 1]
"""None that is over on the way: a transport may leave out what is too late."""
NANOSECONDS = [0, 1, 2**40, 2**62]
FLOATS = [0.0, -1.5, 0.1, 1e300, 5e-324]


def message(rng: random.Random, kind: type[M], **given: Any) -> M:
    """A message of this kind; the fields that are not ``given`` have values that ``rng`` chooses."""
    fields = {field.name: value(rng, field.name, field.type) for field in msgspec.structs.fields(kind)}
    return kind(**(fields | given))


def value(rng: random.Random, name: str, kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return rng.choice(get_args(kind))
    if get_origin(kind) is tuple:
        return tuple(rng.choices(TEXTS, k=rng.choice([0, 1, 2, 20])))
    if get_origin(kind) is dict:
        return {rng.choice(TEXTS[1:]): rng.choice(FLOATS) for _ in range(rng.choice([0, 1, 5]))}
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        special = {"priority": SIGNED, "time_left_ms": TIMES_LEFT}.get(name, NUMBERS)
        return rng.choice(NANOSECONDS if name.endswith("_ns") else special)
    assert kind is str, f"no values for {kind}"
    return rng.choice(TEXTS)


class FieldTests:
    @pytest.mark.parametrize("seed", range(3))
    async def test_every_field_of_what_a_hub_sends_arrives(self, rig: Rig, seed: int) -> None:
        rng = random.Random(seed)
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        sent: dict[str, Any] = {}
        for number in range(20):
            named = {"hub_id": info.hub_id, "task_id": f"t{number}", "attempt": number + 1}
            for event, each in (
                ("task", message(rng, TaskRequest, **named)),
                ("command", message(rng, Command, hub_id=info.hub_id, id=f"t{number}")),
                ("credit", message(rng, Credit, **named)),
                ("cancel", message(rng, Cancel, **named)),
            ):
                await hub.drain("a")
                hub.send("a", each)
                sent[f"{event} t{number}"] = each
        for name, each in sent.items():
            assert_same(name, each, (await agent.event(*name.split()))[3])

    @pytest.mark.parametrize("seed", range(3))
    async def test_every_field_of_what_an_agent_sends_arrives(self, rig: Rig, seed: int) -> None:
        rng = random.Random(seed)
        port, agent, agent_info = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for number in range(20):
            hub.send("a", request(info, f"t{number}"))
            hub.send("a", Command(info.hub_id, f"c{number}", "load"))
            to_task: Reply = (await agent.event("task", f"t{number}"))[4]
            to_command: Reply = (await agent.event("command", f"c{number}"))[4]
            named = {"hub_id": info.hub_id, "task_id": f"t{number}", "attempt": 1}
            chunk = message(rng, Chunk, **named)
            progress = message(rng, Progress, **named)
            result = message(rng, CommandResult, hub_id=info.hub_id, id=f"c{number}")
            for reply, each in ((to_task, progress), (to_task, chunk), (to_command, result)):
                await reply.drain()
                reply.send(each)
            assert_same("progress", progress, (await sink.event("progress", f"t{number}"))[3])
            assert_same("chunk", chunk, (await sink.event("chunk", f"t{number}"))[3])
            assert_same("result", result, (await sink.event("result", f"c{number}"))[3])
            named = {"agent_id": "a", "incarnation": agent_info.incarnation}
            status = message(rng, AgentStatus, **named, detail=f"{number}")
            port.report(status)
            await sink.detail("a", f"{number}")
            assert_same("status", status, sink.newest("a"))

    async def test_offers_travel_up_to_their_bound(self, rig: Rig) -> None:
        """As many as an agent may have, whose text is as long as it may be: in the first status, and in a later one."""
        port, _, agent_info = await rig.port("a")

        def full(word: str) -> AgentStatus:
            offered = [Offer(f"{number}/{word}", ("chat",), {"tools": True}) for number in range(MAX_OFFERS)]
            spare = MAX_OFFERS_BYTES - len(offers_text(tuple(offered)).encode())
            offered = [
                msgspec.structs.replace(each, model=each.model + "x" * (spare // MAX_OFFERS)) for each in offered
            ]
            text = offers_text(tuple(offered))
            assert MAX_OFFERS_BYTES - MAX_OFFERS <= len(text.encode()) <= MAX_OFFERS_BYTES
            assert len(read_offers(text)) == MAX_OFFERS
            return AgentStatus("a", agent_info.incarnation, "ready", text, 8, detail=word)

        first, later = full("ü€😀"), full("later")
        port.report(first)
        _, sink, _ = await rig.hub()
        await sink.detail("a", first.detail)
        assert_same("status", first, sink.newest("a"))
        port.report(later)
        await sink.detail("a", later.detail)
        assert_same("status", later, sink.newest("a"))


def assert_same(what: str, sent: Any, received: Any) -> None:
    """Names the fields that differ, and not their values, which may be long."""
    assert type(received) is type(sent), f"{what} came as {type(received).__name__}"
    changed = [name for name in sent.__struct_fields__ if getattr(sent, name) != getattr(received, name)]
    short = {name: (str(getattr(sent, name))[:60], str(getattr(received, name))[:60]) for name in changed}
    assert not changed, f"{what}: fields arrived changed (sent, received): {short}"
