"""The line of a request: its text, its fields where a format asks for them, and all that other records have."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.log_lines import JsonLines, RepeatLimit, TextLines
from anywire.printable import escaped
from anywire.request_log import MAX_SHOWN, RequestLog
from anywire.task_stream import TaskStream

LOGGER = "anywire.request_log"


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def kept() -> Iterator[_Kept]:
    handler, logger = _Kept(), logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def stream_of(**members: Any) -> TaskStream:
    stream = TaskStream("task-1", 1_000_000, lambda task_id, reason: None)
    for name, value in members.items():
        setattr(stream, name, value)
    return stream


def line(kept: _Kept, what: str = "POST /v1/x", outcome: int | str = 200, **told: Any) -> Any:
    kept.records.clear()
    RequestLog(True).add(what, outcome, time.perf_counter(), **told)
    (record,) = kept.records
    return record


texts = st.text(max_size=12) | st.sampled_from(["a b", 'a"b', "a=b", "\n", "m"])


@given(texts, texts, texts, texts, texts, st.booleans())
def test_every_value_is_a_word_and_a_field(
    kept: _Kept, model: str, agent: str, error: str, client: str, request_id: str, has_task: bool
) -> None:
    task = stream_of(agent_id=agent, transport="dds") if has_task else None
    record = line(kept, model=model, task=task, error=error, client=client, request_id=request_id)
    expected = {"request": "POST /v1/x", "status": 200, "model": model}
    if has_task:
        expected |= {"agent": agent, "transport": "dds", "task": "task-1"}
    expected |= {"total_ms": record.fields["total_ms"], "error": error, "client": client, "request_id": request_id}
    expected = {name: value for name, value in expected.items() if value != ""}
    assert record.fields == expected
    words = []
    for name, value in list(expected.items())[2:]:
        is_word = not any(each in str(value) for each in ' ="')
        words.append(f"{name}={value if is_word else json.dumps(str(value), ensure_ascii=False)}")
    assert record.getMessage() == escaped(" ".join(["POST /v1/x 200", *words]))
    assert TextLines().format(record).isprintable()
    told = json.loads(JsonLines().format(record))
    assert expected.items() <= told.items()


def test_times_of_its_task_are_told_in_milliseconds(kept: _Kept) -> None:
    task = stream_of(model="nearer")
    task.stages.sent = 3_500_000
    began = time.perf_counter()
    kept.records.clear()
    RequestLog(True).add("POST /v1/x", 200, began, task=task, model="asked", first=began + 0.25, trace="00-" + "a" * 40)
    fields: dict[str, Any] = kept.records[0].fields  # type: ignore[attr-defined]
    assert (fields["model"], fields["queued_ms"], fields["first_ms"]) == ("nearer", 2.5, 250.0)
    assert fields["trace"] == "a" * 32
    assert 0 <= fields["total_ms"] < 60_000


def test_it_has_all_that_other_records_have(kept: _Kept) -> None:
    logging.getLogger(LOGGER).info("an ordinary line")
    ordinary = kept.records.pop()
    record = line(kept)
    assert set(vars(ordinary)) <= set(vars(record))
    for name in ("name", "levelno", "levelname", "process", "thread", "threadName", "processName", "exc_info"):
        assert getattr(record, name) == getattr(ordinary, name), name
    assert record.created >= ordinary.created
    assert record.relativeCreated == pytest.approx(ordinary.relativeCreated, abs=60_000)
    assert 0 <= record.msecs < 1000
    again = copy.copy(record)  # as a handler with a queue does
    assert (again.getMessage(), again.fields) == (record.getMessage(), record.fields)


def test_levels_and_limits_are_those_of_other_lines(kept: _Kept) -> None:
    assert line(kept).levelno == logging.INFO
    assert line(kept, important=False).levelname == "DEBUG"
    assert not line(kept).unlimited
    assert line(kept, task=stream_of()).unlimited
    limit = RepeatLimit()
    passed = [limit.filter(line(kept, f"GET /{number}")) for number in range(110)]
    assert passed.count(True) == 100, "they are lines of one statement"
    kept.records.clear()
    RequestLog(False).add("POST /v1/x", 200, 0.0)
    assert not kept.records


def test_what_clients_choose_is_cut(kept: _Kept) -> None:
    long = "x" * 1000
    record = line(kept, long, model=long, request_id=long)
    assert {len(record.fields[name]) for name in ("request", "model", "request_id")} == {MAX_SHOWN}


def test_many_lines_of_one_second_have_their_own_milliseconds(kept: _Kept) -> None:
    lines = TextLines()
    found = []
    for created in (1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.0):
        record = line(kept)
        record.created, record.msecs = created, created % 1 * 1000
        found.append(lines.format(record)[17:23])
    assert [each[-3:] for each in found] == ["250", "750", "000"]
    assert found[0][:2] == found[1][:2] != found[2][:2]
