"""The form of the log: one line a record, whatever a stranger's text holds; few of the same kind."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anywire.log_lines import (
    LIMIT_LINES,
    LIMIT_SECONDS,
    MAX_STATEMENTS,
    JsonLines,
    RepeatLimit,
    TextLines,
    lines_of,
    readable,
    relay,
)
from anywire.printable import escaped


def record(message: str, *values: object, level: int = logging.INFO, created: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("anywire.some", level, __file__, 1, message, values, None)
    made.created = created
    return made


@given(st.text())
@example("\x1b[2J\x1b]0;title\x07")
@example("a\n2026-01-31 12:00:00.000 ERROR the fleet is on fire")
@example("\u202egnorw\u202c \u200b\u2028\x85\x9b31m")
def test_no_text_is_more_than_part_of_one_line(text: str) -> None:
    line = TextLines(with_names=True).format(record("agent %s joined: %s", text, ValueError(text)))
    assert line.isprintable()
    line = JsonLines().format(record("agent %s joined", text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"agent {text} joined"


@given(st.text())
def test_a_traceback_is_indented_and_escaped(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
    first, *rest = TextLines().format(made).split("\n")
    assert first.endswith("INFO it failed")
    assert rest
    assert all(each.startswith("    ") and each.isprintable() for each in rest)
    assert "ValueError" in json.loads(JsonLines().format(made))["exception"]


def test_an_escape_is_readable() -> None:
    assert escaped("a\x1b[31mb\n\u202e ä 漢") == r"a\x1b[31mb\n\u202e ä 漢"
    assert escaped("one\ntwo\x07", keep="\n") == "one\ntwo\\x07"


def test_both_forms_say_the_same() -> None:
    made = record("agent %s joined", "ada")
    made.fields = {"status": 200}
    assert TextLines().format(made).endswith(" INFO agent ada joined")
    assert TextLines(with_names=True).format(made).endswith(" INFO anywire.some: agent ada joined")
    assert "\x1b[31mERROR\x1b[0m lost" in TextLines(coloured=True).format(record("lost", level=logging.ERROR))
    told = json.loads(JsonLines().format(made))
    assert told.pop("time") == "1970-01-01T00:00:00.000+00:00"
    assert told == {"level": "info", "logger": "anywire.some", "message": "agent ada joined", "status": 200}


def test_lines_of_one_statement_are_limited_and_the_others_are_not() -> None:
    limit = RepeatLimit()
    made = [record("peer %d is strange", number) for number in range(LIMIT_LINES + 7)]
    shown = [each for each in made if limit.filter(each)]
    assert len(shown) == LIMIT_LINES
    assert "further lines like this are left out" in TextLines().format(shown[-1])
    assert limit.filter(record("another statement"))
    exempt = record("peer %d is strange", 1)
    exempt.unlimited = True
    assert limit.filter(exempt)
    later = record("peer %d is strange", 2, created=LIMIT_SECONDS)
    assert limit.filter(later)
    assert "(7 lines like this were left out before)" in json.loads(JsonLines().format(later))["message"]


def test_statements_without_end_cost_bounded_memory() -> None:
    limit = RepeatLimit()
    assert all(limit.filter(record(f"statement {number}")) for number in range(2 * MAX_STATEMENTS))
    assert len(limit._counts) == MAX_STATEMENTS


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        (JsonLines().format(record("hub joined")), logging.DEBUG, "ada: hub joined"),
        (JsonLines().format(record("odd", level=logging.WARNING)), logging.WARNING, "ada: odd"),
        ("error: no such model", logging.DEBUG, "ada: error: no such model"),
        ("llama: loaded", logging.INFO, "ada: llama: loaded"),
        ('{"time": 1}', logging.INFO, 'ada: {"time": 1}'),
        ('{"time": ' + "[" * 100_000, logging.INFO, "ada: {"),
        ('{"time": "", "level": "loud", "logger": "x", "message": ""}', logging.INFO, "ada: {"),
    ],
)
def test_lines_of_another_process_are_passed_on_once(
    caplog: pytest.LogCaptureFixture, line: str, level: int, message: str
) -> None:
    caplog.set_level(logging.DEBUG)
    relay("ada", line)
    (found,) = caplog.records
    assert found.levelno == level
    assert found.getMessage().startswith(message)
    assert readable(JsonLines().format(record("hub joined"))) == "INFO hub joined"


@given(st.lists(st.binary(max_size=20)), st.integers(1, 8), st.booleans())
@example([b"a" * 20], 4, False)
@example([b"", b""], 1, True)
def test_lines_of_another_process_are_whole_or_come_in_pieces(lines: list[bytes], longest: int, is_ended: bool) -> None:
    lines = [each.replace(b"\n", b" ") for each in lines]

    async def found(most: int) -> list[str]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"\n".join(lines) + (b"\n" if lines and is_ended else b""))
        reader.feed_eof()
        return [line async for line in lines_of(reader, most)]

    kept = lines if is_ended or not lines or lines[-1] else lines[:-1]
    assert asyncio.run(found(20)) == [each.decode(errors="replace") for each in kept]
    cut = asyncio.run(found(longest))
    assert all(len(each.encode(errors="replace")) <= 3 * longest for each in cut)
    if all(each.isascii() for each in kept):
        assert "".join(cut) == b"".join(kept).decode()


async def test_a_line_without_end_is_not_kept_as_a_whole() -> None:
    reader = asyncio.StreamReader()
    found = lines_of(reader, 1000)
    reader.feed_data(b"x" * 5000)
    assert [await anext(found) for _ in range(5)] == ["x" * 1000] * 5, "though the line goes on"
    reader.feed_data(b"y\n")
    assert await anext(found) == "y"
