"""The audit of capacity: every task is a row, what is not whole is lost, and processor time is divided equally."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

import capacity
from capacity import KINDS, Audit, Meter

ID = {"x-anywire-task": "t"}
USAGE = {"completion_tokens": 3}


class Clock:
    """Processor seconds of two processes, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = {1: 10.0, 2: 20.0}
        monkeypatch.setattr(capacity, "cpu_seconds", lambda pid: self.seconds[pid])
        monkeypatch.setattr(Meter, "memory_mib", lambda meter: {"orchestrator": 1.0, "agent": 2.0})
        self.meter = Meter({"orchestrator": [1], "agent": [2]})


def test_processor_time_is_divided_among_the_tasks_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.meter.begin(1)
    clock.seconds[2] += 0.1
    clock.meter.begin(2)
    clock.seconds[2] += 0.2
    clock.seconds[1] += 0.01
    assert clock.meter.end(1) == pytest.approx({"orchestrator": 5, "agent": 200})
    clock.seconds[2] += 0.3
    assert clock.meter.end(2) == pytest.approx({"orchestrator": 5, "agent": 400})
    clock.seconds[2] += 9
    clock.meter.begin(3)
    assert clock.meter.end(3) == pytest.approx({"orchestrator": 0, "agent": 0})


def answer(request: httpx.Request) -> httpx.Response:
    asked: dict[str, Any] = json.loads(request.content)
    if asked.get("stream"):
        piece = {"choices": [{"delta": {"content": "four"}}]}
        events = (json.dumps(piece), json.dumps({"choices": [], "usage": USAGE}), "[DONE]")
        return httpx.Response(200, headers=ID, text="".join(f"data: {each}\n\n" for each in events))
    if request.url.path.endswith("embeddings"):
        return httpx.Response(200, headers=ID, json={"data": [{"embedding": [0.5]}]})
    choice = {"text": "four", "message": {"content": "four"}}
    return httpx.Response(200, headers=ID, json={"choices": [choice], "usage": USAGE})


async def audited(monkeypatch: pytest.MonkeyPatch, handler: Any, each: int = 1, mixed: int = 0) -> Audit:
    async with httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(handler)) as client:
        audit = Audit(client, Clock(monkeypatch).meter, "m")
        await audit.one_by_one(each)
        await audit.mixed(mixed, 4)
    return audit


async def test_every_task_of_every_kind_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    audit = await audited(monkeypatch, answer, each=2, mixed=60)
    alone = [row for row in audit.rows if row.phase == "alone"]
    assert [row.kind for row in alone] == [kind for kind in KINDS for _ in range(2)]
    assert {(row.outcome, row.task_id) for row in audit.rows} == {("ok", "t")}
    assert {row.tokens for row in alone if row.kind != "embedding"} == {3}
    mixed = [row for row in audit.rows if row.phase == "mixed"]
    assert len(mixed) == 60
    assert {row.kind for row in mixed} == set(KINDS)
    assert sorted(row.number for row in audit.rows) == list(range(1, 73))


@pytest.mark.parametrize(
    "given",
    [
        httpx.Response(429, json={"error": {"message": "full"}}),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, json={"choices": [{"text": " ", "message": {"content": ""}}], "data": [{"embedding": []}]}),
        httpx.Response(200, text='data: {"choices": [{"delta": {"content": "cut"}}]}\n\n'),
        httpx.Response(200, text='data: {"error": {"message": "agent lost"}}\n\ndata: [DONE]\n\n'),
    ],
)
async def test_what_is_not_whole_is_lost(monkeypatch: pytest.MonkeyPatch, given: httpx.Response) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(given.status_code, content=given.content)

    audit = await audited(monkeypatch, handler)
    assert len(audit.rows) == len(KINDS)
    assert "ok" not in {row.outcome for row in audit.rows}
