"""Deliberations on the disk: what is kept is there, whole, for one process at a time."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deliberation.acted import question
from tests.long_form import examples

from anywire.caller import Caller
from anywire.errors import ConfigError, PluginFailed
from anywire_service_deliberation.database import Database, tenant_of
from anywire_service_deliberation.database_form import FILE, FORM
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Member
from anywire_service_deliberation.record import Answer, Deliberation, Failure, Ranked
from anywire_service_deliberation.tables import Tables

ANN, BOB = Caller("ann", "lab"), Caller("bob", "other")
NOW = 1_700_000_000.0


def new(question_id: str = "q-1", caller: Caller = ANN, at: float = NOW, **changes: Any) -> Deliberation:
    return Deliberation(question(id=question_id, caller=caller, **changes), "submitted", at, at + 300)


def with_answers(state: Deliberation, count: int) -> Deliberation:
    answers = {f"proposal/0/member-{number}": Answer(f"text {number}") for number in range(1, count + 1)}
    return msgspec.structs.replace(state, status="generating", answers=answers)


def ended(state: Deliberation, at: float = NOW + 10, expires: float = NOW + 3610) -> Deliberation:
    return msgspec.structs.replace(state, status="completed", ended=at, expires=expires)


@asynccontextmanager
async def opened(folder: Path, most: int = 100) -> AsyncIterator[Database]:
    database = Database(folder / "kept", most)
    try:
        assert await database.open()
        yield database
    finally:
        await database.close()


async def test_what_is_kept_is_there_in_the_next_process(tmp_path: Path) -> None:
    state = with_answers(new(), 3)
    failed = {"critique/1/member-1/member-2": Failure("late", "no answer in time", tries=2, at=NOW)}
    retried = {"proposal/0/member-1": (Failure("agent_lost", "gone", "a", 1, NOW),)}
    state = msgspec.structs.replace(
        state,
        failures=failed,
        retried=retried,
        late={"proposal/0/member-9": Answer("late")},
        ranking=(Ranked("member-2", 1, 4.5, {"member-1": 4.5}, ("member-1",)),),
        winner="member-2",
        round=1,
        dropped=2,
        spared=1,
    )
    async with opened(tmp_path) as database:
        assert await database.add(new()) == new()
        await database.keep(with_answers(new(), 1))
        await database.keep(state)
        assert await database.get("lab", "q-1") == state
    async with opened(tmp_path) as database:
        found = await database.get("lab", "q-1")
        assert found == state
        assert list(found.answers) == list(state.answers)
        assert await database.unfinished() == [state]


async def test_an_id_is_its_tenants(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        first, other = new(), new(caller=BOB, at=NOW + 1)
        assert await database.add(first) is first
        assert await database.add(other) is other
        again = await database.add(new(at=NOW + 2))
        assert again == first
        assert await database.get("lab", "q-1") == first
        assert await database.get("other", "q-1") == other
        assert await database.get(None, "q-1") == other
        assert await database.get("lab", "q-2") is None
        assert [state.question.caller for state in await database.list(None, "", "", 10)] == [BOB, ANN]
        assert await database.list("lab", "", "", 10) == [first]


def test_callers_without_a_tenant_are_apart() -> None:
    callers = [Caller(), Caller("ann"), Caller("bob"), Caller("", "ann"), Caller("ann", "lab")]
    assert len({tenant_of(caller) for caller in callers}) == len(callers)
    assert tenant_of(Caller("ann", "lab")) == tenant_of(Caller("bob", "lab"))


async def test_lists_are_filtered_and_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        for number in range(6):
            role = "QA" if number % 2 else "DEV"
            state = new(f"q-{number}", at=NOW + number)
            members = (Member("member-1", role), Member("member-2", "DEV"))
            asked = msgspec.structs.replace(state.question, members=members)
            state = msgspec.structs.replace(state, question=asked)
            await database.add(state)
            if number < 3:
                await database.keep(ended(state))

        async def ids(*wanted: Any) -> list[str]:
            return [state.question.id for state in await database.list("lab", *wanted)]

        assert await ids("", "", 10) == [f"q-{number}" for number in (5, 4, 3, 2, 1, 0)]
        assert await ids("completed", "", 10) == ["q-2", "q-1", "q-0"]
        assert await ids("", "QA", 2) == ["q-5", "q-3"]
        assert await ids("completed", "QA", 10) == ["q-1"]
        assert await ids("", "Q", 10) == []
        assert [state.question.id for state in await database.unfinished()] == ["q-3", "q-4", "q-5"]


async def test_of_too_many_those_of_the_tenant_that_has_the_most_go(tmp_path: Path) -> None:
    async with opened(tmp_path, most=4) as database:
        for number in range(6):
            caller = BOB if number == 0 else ANN
            await database.add(state := new(f"q-{number}", caller=caller))
            await database.keep(ended(state, NOW + number))
        assert await database.purge(NOW + 10) == 2
        left = [state.question.id for state in await database.list(None, "", "", 10)]
        assert sorted(left) == ["q-0", "q-3", "q-4", "q-5"]


async def test_what_has_expired_goes_and_so_do_the_oldest_of_too_many(tmp_path: Path) -> None:
    async with opened(tmp_path, most=2) as database:
        for number, expires in enumerate((NOW + 50, NOW + 500, NOW + 500, NOW + 500)):
            state = new(f"q-{number}")
            await database.add(state)
            await database.keep(ended(with_answers(state, 2), NOW + number, expires))
        await database.add(new("running"))
        assert await database.purge(NOW + 49) == 2
        assert await database.purge(NOW + 100) == 0
        left = {state.question.id for state in await database.list("lab", "", "", 10)}
        assert left == {"q-2", "q-3", "running"}
        assert await database.purge(NOW + 500) == 2
    rows = sqlite3.connect(tmp_path / "kept" / FILE).execute("SELECT COUNT(*) FROM works").fetchall()
    assert rows == [(0,)]


async def test_councils_are_kept(tmp_path: Path) -> None:
    council = Council("builders", "DEV", ({"model": "a"}, {"temperature": 0.5}), 2, "clean-code", NOW)
    async with opened(tmp_path) as database:
        await database.put_council("lab", council)
        await database.put_council("other", msgspec.structs.replace(council, rounds=3))
    async with opened(tmp_path) as database:
        newer = msgspec.structs.replace(council, rounds=1)
        await database.put_council("lab", newer)
        assert dict(await database.councils())["lab"] == newer
        assert await database.delete_council("lab", "builders")
        assert not await database.delete_council("lab", "builders")
        assert [tenant for tenant, _ in await database.councils()] == ["other"]


async def test_many_writes_at_once_are_all_done_in_their_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        states = [new(f"q-{number}") for number in range(300)]
        await asyncio.gather(*[database.add(state) for state in states])
        newer = [[with_answers(state, count) for count in (1, 2, 3)] for state in states]
        await asyncio.gather(*[database.keep(state) for each in newer for state in each])
        assert list(await database.unfinished()) == [each[-1] for each in newer]


async def test_one_write_that_fails_harms_no_other(tmp_path: Path) -> None:
    broken = new("broken", metadata={"what": object()})
    async with opened(tmp_path) as database:
        done = await asyncio.gather(
            database.add(new("a")), database.add(broken), database.add(new("b")), return_exceptions=True
        )
        assert [isinstance(each, Exception) for each in done] == [False, True, False]
        assert {state.question.id for state in await database.unfinished()} == {"a", "b"}


async def test_a_write_whose_caller_has_gone_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
        writing = asyncio.ensure_future(database.keep(with_answers(new(), 2)))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        await database.delete_council("lab", "none")  # a later write of the same order
        assert await database.get("lab", "q-1") == with_answers(new(), 2)


async def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    second = Database(tmp_path / "kept")
    async with opened(tmp_path):
        assert not await second.open()
    assert await second.open()
    await second.close()
    await second.close()
    with pytest.raises(PluginFailed):
        await second.add(new())


async def test_a_disk_that_fails_is_told_and_may_work_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
        with monkeypatch.context() as patch:
            patch.setattr(Tables, "keep", _full)
            with pytest.raises(PluginFailed, match="cannot be kept"):
                await database.keep(with_answers(new(), 2))
        assert await database.get("lab", "q-1") == new()
        await database.keep(with_answers(new(), 2))
        assert await database.get("lab", "q-1") == with_answers(new(), 2)


def _full(*_: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
    path = tmp_path / "kept" / FILE
    path.write_bytes(b"no database at all" * 1000)
    async with opened(tmp_path) as database:
        assert await database.unfinished() == []
        await database.add(new())
    assert "was damaged" in caplog.text
    assert path.with_name(f"{FILE}.damaged").read_bytes().startswith(b"no database")


async def test_a_row_that_is_damaged_harms_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as database:
        for name in ("a", "b"):
            await database.add(new(name))
    with sqlite3.connect(tmp_path / "kept" / FILE) as connection:
        connection.execute("UPDATE deliberations SET state = x'7b' WHERE id = 'a'")
    connection.close()
    async with opened(tmp_path) as database:
        assert [state.question.id for state in await database.unfinished()] == ["b"]
    assert "the deliberation a cannot be read" in caplog.text


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "kept" / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match=r"later version .*services\.deliberation\.folder"):
        await Database(tmp_path / "kept").open()


async def test_a_file_of_an_earlier_version_is_changed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as database:
        await database.add(new())
    further = ("ALTER TABLE deliberations ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'",)
    monkeypatch.setattr(Tables, "form", FORM._replace(migrations=(*FORM.migrations, further)))
    for _ in range(2):
        async with opened(tmp_path) as database:
            assert await database.unfinished() == [new()]
    found = sqlite3.connect(tmp_path / "kept" / FILE).execute("SELECT colour FROM deliberations").fetchall()
    assert found == [("blue",)]


async def test_others_may_not_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kept" / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / "kept" / FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        await Database(tmp_path / "kept").open()


texts = st.text(max_size=20)
works = st.sampled_from([f"proposal/0/member-{number}" for number in range(1, 6)])


@st.composite
def growing(draw: st.DrawFn) -> list[Deliberation]:
    """States as they follow each other: what is there is never changed."""
    state, found = new(), []
    for _ in range(draw(st.integers(1, 6))):
        for part in ("answers", "late", "failures"):
            for work in draw(st.lists(works, max_size=2)):
                entry = Failure("late", draw(texts)) if part == "failures" else Answer(draw(texts))
                had = getattr(state, part)
                state = msgspec.structs.replace(state, **{part: {**had, work: had.get(work, entry)}})
        state = msgspec.structs.replace(state, dropped=state.dropped + draw(st.integers(0, 1)), reason=draw(texts))
        found.append(state)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    made = Tables(tmp_path_factory.mktemp("law") / "kept")
    assert made.open()
    yield made
    made.close()


@given(growing(), st.data())
@settings(max_examples=examples(30), deadline=None)
def test_any_growing_state_is_read_as_it_was_written(
    place: Tables, states: list[Deliberation], data: st.DataObject
) -> None:
    tenant = secrets.token_hex(8)
    writes: list[Callable[[], Any]] = [partial(place.add, tenant, new())]
    writes += [partial(place.keep, tenant, state) for state in states[:-1] if data.draw(st.booleans())]
    place.together([*writes, partial(place.keep, tenant, states[-1])])
    found = place.get(tenant, "q-1")
    assert found == states[-1]
    for part in ("answers", "late", "failures"):
        assert list(getattr(found, part)) == list(getattr(states[-1], part))
