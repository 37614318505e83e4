"""What the engine ``llama_dds`` asks again of a server that has lost it, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from anywire.messages import TaskRequest
from anywire_dds.llama_flow import BOUND
from anywire_dds.llama_types import REQUEST_TOPIC, ChatCompletionRequest, unpack
from anywire_engine_llama_dds.asked import QUIET, TIMES, Asked
from anywire_engine_llama_dds.requests import wire_request
from anywire_engine_llama_dds.running import Running

BODY = '{"model": "m", "messages": [{"role": "user", "content": "x"}]}'


class Servers:
    """One that tells for a while that it does nothing."""

    def __init__(self, quiet_for: float) -> None:
        self.only = SimpleNamespace(status=SimpleNamespace(server_id="s", slots_processing=0), quiet_for=quiet_for)

    def __iter__(self) -> Iterator[Any]:
        return iter([self.only])

    def __len__(self) -> int:
        return 1

    def asked(self) -> None:
        """What it told before is of no use any more; tests tell it anew by asking again."""


class Wire:
    """It takes everything and acknowledges it at once."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def writer(self, topic: Any) -> Wire:
        return self

    def write(self, sample: bytes) -> bool:
        request: ChatCompletionRequest = unpack(REQUEST_TOPIC, sample)
        self.ids.append(request.request_id)
        return True

    def wait_acknowledged(self, seconds: float) -> bool:
        return True


def request() -> Running:
    task = TaskRequest("hub", "t", 1, "chat", "m", BODY, False)
    return Running(wire_request(task, "", "m", 0.0, 1))


def asked_of(wire: Wire, pause: float, quiet_for: float = QUIET) -> Asked:
    servers: Any = Servers(quiet_for)
    ends: Any = wire
    return Asked(ends, pause, lambda: servers)


@pytest.mark.parametrize(("pause", "fails"), [(0.0, True), (QUIET, True), (60.0, False)])
async def test_no_request_fails_as_lost_while_the_server_may_be_away_from_its_reader(pause: float, fails: bool) -> None:
    wire, only = Wire(), request()
    asked = asked_of(wire, pause)
    asked.ask(only)
    for _ in range(TIMES):
        asked.compare()
    assert len(only.request_ids) == len(wire.ids) == TIMES
    assert only.ended == fails
    asked.close()


async def test_what_is_answered_meanwhile_is_not_asked_again() -> None:
    wire = Wire()
    asked = asked_of(wire, 60.0)
    first, *others = requests = [request() for _ in range(2 * BOUND)]
    for each in requests:
        asked.ask(each)
    asked.compare()
    assert len(first.request_ids) == 2
    assert first.request_ids[1] not in wire.ids, "the others that waited come first"
    asked.answered(first, first.request_ids[0])
    asked.was_read(others[-1].request_ids[0], by_the_only_server=True)
    again = [each.request_ids[1] for each in requests if len(each.request_ids) > 1]
    assert [each for each in wire.ids if each in again] == again[1:]
    assert asked.end(first), "the server goes on with it"
    assert asked.abandoned == {first.request_ids[0]}
    asked.close()
