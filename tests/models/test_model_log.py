"""The log of a model: whoever reads along is given each line once, and is told how many lines are left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import QueueFull
from anywire.event_bus import Missed, Reset
from anywire_engine_models.host import model_log
from anywire_engine_models.host.model_log import Logged, LogLine, ModelLog
from anywire_engine_models.log_results import log_result

KEPT = 5


@pytest.fixture(autouse=True)
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_log, "LEAST_KEPT", KEPT)


def log_of(*texts: str, size: int = 3) -> ModelLog:
    log = ModelLog(size)
    for text in texts:
        log.add(text)
    return log


async def read(log: ModelLog, count: int = 100, after: str = "") -> list[Logged]:
    return [each async for each in log.read(count, False, after)]


def shown(found: list[Logged]) -> list[str | int]:
    """The texts of lines, the counts of those that are missed, and -1 for a log that is another one."""
    texts = [each.text if isinstance(each, LogLine) else "" for each in found]
    counts = [each.count if isinstance(each, Missed) else -1 for each in found]
    return [text or count for text, count in zip(texts, counts, strict=True)]


def id_of(logged: Logged) -> str:
    assert isinstance(logged, LogLine)
    return logged.id


async def test_the_newest_lines_are_shown_and_more_are_kept_for_who_reads_on() -> None:
    log = log_of("a")
    (first,) = await read(log)
    for text in "bcdef":
        log.add(text)
    assert shown(await read(log)) == ["d", "e", "f"]
    assert shown(await read(log, 1)) == ["f"]
    assert shown(await read(log, 0)) == []
    assert shown(await read(log, after=id_of(first))) == ["b", "c", "d", "e", "f"]
    log.add("g")
    assert shown(await read(log, after=id_of(first))) == [1, "c", "d", "e", "f", "g"]


@pytest.mark.parametrize("after", ["x", "0", "-", "0-1", "{life}-4", "{life}--1", "{life}-1x", "{life}-" + "9" * 50])
async def test_a_line_that_this_log_has_not_had_is_said(after: str) -> None:
    log = log_of("a", "b", "c")
    life = id_of((await read(log))[0]).rpartition("-")[0]
    assert await read(log, after=after.format(life=life)) == [Reset(), *await read(log)]


async def test_a_log_of_another_life_begins_anew() -> None:
    before = log_of("a", "b")
    after = id_of((await read(before))[-1])
    assert shown(await read(log_of("c"), after=after)) == [-1, "c"]
    assert shown(await read(log_of(), after=after)) == [-1]


async def test_who_follows_is_woken_and_comes_to_an_end() -> None:
    log = log_of("a")
    async with aclosing(log.read(1, True)) as follower:
        assert shown([await anext(follower)]) == ["a"]
        coming = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        log.add("b")
        assert shown([await coming]) == ["b"]
        for number in range(7):
            log.add(str(number))
        assert shown([await anext(follower) for _ in range(3)]) == [2, "2", "3"]
        log.close()
        assert shown([each async for each in follower]) == ["4", "5", "6"]


async def test_so_many_may_follow_and_a_place_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_log, "MAX_READERS", 1)
    log = log_of("a")
    async with aclosing(log.read(1, True)) as follower:
        await anext(follower)
        with pytest.raises(QueueFull):
            await anext(log.read(1, True))
        assert shown(await read(log)) == ["a"]
    async with aclosing(log.read(1, True)) as follower:
        await anext(follower)


actions = st.lists(st.sampled_from(["add", "burst", "take", "break off"]), max_size=60)


@settings(max_examples=examples(100))
@given(actions, st.integers(1, 8))
def test_no_line_is_lost_or_told_twice_however_often_a_reader_comes_back(what: list[str], size: int) -> None:
    asyncio.run(_read_on(what, size))


async def _read_on(what: list[str], size: int) -> None:
    log = log_of("0", size=size)
    written, position, seen = 1, "", 0
    follower: AsyncGenerator[Logged, None] = log.read(1, True)

    async def take() -> None:
        nonlocal position, seen
        logged = await anext(follower)
        if isinstance(logged, Missed):
            assert logged.count > 0
            assert written - seen > max(size, KEPT), "what is kept is told"
            seen += logged.count
            return
        assert isinstance(logged, LogLine), logged
        assert logged.text == str(seen), "each line in its order, once"
        position, seen = logged.id, seen + 1

    try:
        await take()
        for each in what:
            if each == "break off":
                await follower.aclose()
                missed_since = seen
                follower = log.read(0, True, position)
                seen = int(position.rpartition("-")[2])
                assert seen <= missed_since
            elif each == "take" and seen < written:
                await take()
            elif each in ("add", "burst"):
                for _ in range(1 if each == "add" else 2 * KEPT):
                    log.add(str(written))
                    written += 1
        while seen < written:
            await take()
    finally:
        await follower.aclose()


def test_results_of_a_command_say_which_they_are() -> None:
    assert log_result(LogLine("a", "x-1")) == {"line": "a", "id": "x-1"}
    assert log_result(Missed(3)) == {"missed": 3}
    assert log_result(Reset()) == {"reset": True}
