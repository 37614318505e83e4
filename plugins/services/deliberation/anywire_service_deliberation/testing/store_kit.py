"""The conformance kit for stores: what `anywire_service_deliberation.store` asks of every one, as tests.

    class TestMine(StoreConformance):
        def make(self, where: Path, max_kept: int) -> Store:
            return MyStore(MyConfig(file=where / "mine"), Place(where, max_kept))

The kit needs pytest and pytest-asyncio (``pip install 'anywire-service-deliberation[testing]'``).
"""

from __future__ import annotations

import asyncio
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from anywire.caller import Caller
from anywire.errors import PluginFailed
from anywire.testing.patience import PATIENCE, expect
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Criterion, Member, Question, Role, Rubric
from anywire_service_deliberation.record import Answer, Deliberation, Failure, Ranked
from anywire_service_deliberation.store import Store, tenant_of

ANN, BOB = Caller("ann", "lab"), Caller("bob", "other")
NOW = 1_700_000_000.0


def new(question_id: str = "q-1", caller: Caller = ANN, at: float = NOW, **changes: Any) -> Deliberation:
    """One that was submitted at that time; ``changes`` are members of its question."""
    asked: dict[str, Any] = {
        "task": "Reverse a list.",
        "members": tuple(Member(f"member-{number}", "DEV") for number in (1, 2, 3)),
        "roles": {"DEV": Role("DEV", "You write code.")},
        "rubric": Rubric("clean-code", (Criterion("clarity"),)),
    }
    question = Question(id=question_id, caller=caller, **asked | changes)
    return Deliberation(question, "submitted", at, at + 300)


def with_answers(state: Deliberation, count: int, text: str = "text {}") -> Deliberation:
    """The same with that many answers."""
    answers = {
        f"proposal/0/member-{number}": Answer(text.format(number), agent=f"a{number}", ended=NOW + number)
        for number in range(1, count + 1)
    }
    return msgspec.structs.replace(state, status="generating", answers=answers)


def ended(state: Deliberation, at: float = NOW + 10, expires: float = NOW + 3610) -> Deliberation:
    return msgspec.structs.replace(state, status="completed", ended=at, expires=expires)


def full(state: Deliberation) -> Deliberation:
    """The same with something in each of its members."""
    return msgspec.structs.replace(
        with_answers(state, 3),
        failures={"critique/1/member-1/member-2": Failure("late", "no answer in time", tries=2, at=NOW)},
        retried={"proposal/0/member-1": (Failure("agent_lost", "gone", "a", 1, NOW),)},
        late={"proposal/0/member-9": Answer("late")},
        ranking=(Ranked("member-2", 1, 4.5, {"member-1": 4.5}, ("member-1",)),),
        winner="member-2",
        synthesis="all of it \U0001f600",
        reason="",
        round=1,
        dropped=2,
        spared=1,
    )


async def opens(store: Store) -> None:
    """Open it, also where it cannot be reached at once."""
    while not await store.open():  # noqa: ASYNC110 - nobody tells that it can be reached
        await asyncio.sleep(0.05)


def ids(states: Sequence[Deliberation]) -> list[str]:
    return [state.question.id for state in states]


@pytest.mark.asyncio
class StoreConformance:
    """Subclass it and make the store: `make`."""

    @abstractmethod
    def make(self, where: Path, max_kept: int) -> Store:
        """A new one, which has not been opened, of the place ``where``: a folder that is a test's own. Several of one
        place stand for several processes."""

    @asynccontextmanager
    async def opened(self, where: Path, max_kept: int = 100) -> AsyncIterator[Store]:
        store = self.make(where, max_kept)
        try:
            await expect(opens(store), "the store opens")
            yield store
        finally:
            await expect(store.close(), "the store closes")

    # What is kept

    async def test_what_is_kept_is_there_in_the_next_process(self, tmp_path: Path) -> None:
        state = full(new())
        async with self.opened(tmp_path) as store:
            added = await store.add(first := new())
            assert added is first, "a new one is returned as it was given"
            await store.keep(with_answers(new(), 1))
            await store.keep(state)
            assert await store.get("lab", "q-1") == state
        async with self.opened(tmp_path) as store:
            found = await store.get("lab", "q-1")
            assert found == state
            assert list(found.answers) == list(state.answers), "answers are in their order"
            assert await store.unfinished() == [state]

    async def test_what_was_not_finished_goes_on_in_the_next_process(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.add(new())
            await store.keep(with_answers(new(), 1))
        async with self.opened(tmp_path) as store:
            await store.keep(with_answers(new(), 2))
            await store.keep(ended(full(new())))
            assert await store.get("lab", "q-1") == ended(full(new()))
        async with self.opened(tmp_path) as store:
            assert await store.get("lab", "q-1") == ended(full(new()))
            assert await store.unfinished() == []

    async def test_any_text_is_kept(self, tmp_path: Path) -> None:
        text = "\0\n\r\u2028'\"\\$*>. \U0001f600"
        name, tenant = text + "x" * 60, text
        state = new(name, Caller("c", tenant), task=text, metadata={text: [text, None, 1.5]})
        state = msgspec.structs.replace(state, answers={"proposal/0/" + text.replace("/", ""): Answer(text)})
        async with self.opened(tmp_path) as store:
            await store.add(msgspec.structs.replace(state, answers={}))
            await store.keep(state)
            assert await store.get(tenant, name) == state
        async with self.opened(tmp_path) as store:
            assert await store.get(tenant, name) == state
            assert await store.get(tenant, name + "x") is None

    async def test_states_of_many_megabytes_are_kept(self, tmp_path: Path) -> None:
        """As large as questions and answers may be."""
        state = new(task="t" * 200_000, metadata={"much": "m" * 16_000})
        large = with_answers(state, 12, "{} " + "\u00e4" * 400_000)
        done = ended(msgspec.structs.replace(large, synthesis="s" * 1_500_000))
        async with self.opened(tmp_path) as store:
            await store.add(state)
            await store.keep(with_answers(state, 5, "{} " + "\u00e4" * 400_000))
            await store.keep(large)
            assert await store.get("lab", "q-1") == large
            await store.keep(done)
        async with self.opened(tmp_path) as store:
            assert await store.get("lab", "q-1") == done
            (listed,) = await store.list("lab", "", "", 10)
            assert {answer.text for answer in listed.answers.values()} == {""}

    async def test_an_id_is_its_tenants(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first, other = new(), new(caller=BOB, at=NOW + 1)
            assert await store.add(first) is first
            assert await store.add(other) is other
            assert await store.add(new(at=NOW + 2)) == first
            assert await store.get("lab", "q-1") == first
            assert await store.get("other", "q-1") == other
            assert await store.get(None, "q-1") == other
            assert await store.get("lab", "q-2") is None
            assert [state.question.caller for state in await store.list(None, "", "", 10)] == [BOB, ANN]
            assert await store.list("lab", "", "", 10) == [first]

    async def test_callers_without_a_tenant_are_apart(self, tmp_path: Path) -> None:
        callers = [Caller(), Caller("ann"), Caller("bob"), Caller("", "ann")]
        async with self.opened(tmp_path) as store:
            for caller in callers:
                await store.add(new(caller=caller))
            for caller in callers:
                found = await store.get(tenant_of(caller), "q-1")
                assert found is not None
                assert found.question.caller == caller

    async def test_one_id_asked_for_at_once_is_added_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            asked = [new(at=NOW + number) for number in range(20)]
            added = await asyncio.gather(*[store.add(state) for state in asked])
            assert len({state.submitted for state in added}) == 1
            assert sum(state is given for state, given in zip(added, asked, strict=True)) == 1
            assert len(await store.list("lab", "", "", 100)) == 1

    async def test_an_id_is_free_again_once_it_has_expired(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.add(new())
            await store.keep(ended(full(new()), expires=NOW + 50))
            assert (await store.add(new(at=NOW + 49))).is_final
            again = new(at=NOW + 50)
            assert await store.add(again) is again
            assert await store.get("lab", "q-1") == again
        async with self.opened(tmp_path) as store:
            assert await store.unfinished() == [again]
            assert len(await store.list(None, "", "", 10)) == 1

    # Lists

    async def test_lists_are_filtered_and_bounded(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for number in range(6):
                members = (Member("member-1", "QA" if number % 2 else "DEV"), Member("member-2", "DEV"))
                state = new(f"q-{number}", at=NOW + number, members=members)
                await store.add(state)
                if number < 3:
                    await store.keep(ended(with_answers(state, 2)))
            assert ids(await store.list("lab", "", "", 10)) == [f"q-{number}" for number in (5, 4, 3, 2, 1, 0)]
            assert ids(await store.list("lab", "completed", "", 10)) == ["q-2", "q-1", "q-0"]
            assert ids(await store.list("lab", "", "QA", 2)) == ["q-5", "q-3"]
            assert ids(await store.list("lab", "completed", "QA", 10)) == ["q-1"]
            assert ids(await store.list("lab", "", "Q", 10)) == []
            assert ids(await store.list("nobody", "", "", 10)) == []
            assert ids(await store.unfinished()) == ["q-3", "q-4", "q-5"]
            (listed,) = await store.list("lab", "completed", "QA", 10)
            assert [(answer.text, answer.agent) for answer in listed.answers.values()] == [("", "a1"), ("", "a2")]

    # What goes

    async def test_what_has_expired_goes_and_so_do_the_oldest_of_too_many(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, 2) as store:
            for number, expires in enumerate((NOW + 50, NOW + 500, NOW + 500, NOW + 500)):
                state = new(f"q-{number}", at=NOW + number)
                await store.add(state)
                await store.keep(ended(with_answers(state, 2), NOW + number, expires))
            await store.add(new("running"))
            assert await store.purge(NOW + 49) == 2
            assert await store.purge(NOW + 100) == 0
            assert set(ids(await store.list("lab", "", "", 10))) == {"q-2", "q-3", "running"}
            assert await store.get("lab", "q-0") is None
        async with self.opened(tmp_path, 2) as store:
            assert set(ids(await store.list("lab", "", "", 10))) == {"q-2", "q-3", "running"}
            assert await store.purge(NOW + 500) == 2
            await store.keep(ended(with_answers(new("q-3"), 3)))
            assert await store.get("lab", "q-3") is None, "what is gone does not come back"

    async def test_of_too_many_those_of_the_tenant_that_has_the_most_go(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, 4) as store:
            for number in range(6):
                await store.add(state := new(f"q-{number}", caller=BOB if number == 0 else ANN))
                await store.keep(ended(state, NOW + number))
            assert await store.purge(NOW + 10) == 2
            assert sorted(ids(await store.list(None, "", "", 10))) == ["q-0", "q-3", "q-4", "q-5"]

    # Councils

    async def test_councils_are_kept(self, tmp_path: Path) -> None:
        council = Council("build/\n*>. ", "DEV", ({"model": "a"}, {"temperature": 0.5}), 2, "clean-code", NOW)
        async with self.opened(tmp_path) as store:
            await store.put_council("lab", council)
            await store.put_council("other", msgspec.structs.replace(council, rounds=3))
        async with self.opened(tmp_path) as store:
            newer = msgspec.structs.replace(council, rounds=1)
            await store.put_council("lab", newer)
            assert dict(await store.councils())["lab"] == newer
            assert await store.delete_council("lab", council.name)
            assert not await store.delete_council("lab", council.name)
        async with self.opened(tmp_path) as store:
            assert [tenant for tenant, _ in await store.councils()] == ["other"]
            await store.put_council("lab", council)
            assert len(await store.councils()) == 2

    # Many at once, and what goes wrong

    async def test_many_writes_at_once_are_all_done_in_their_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            states = [new(f"q-{number}") for number in range(200)]
            await asyncio.gather(*[store.add(state) for state in states])
            newer = [[with_answers(state, count) for count in (1, 2, 3)] for state in states]
            await asyncio.gather(*[store.keep(state) for each in newer for state in each])
            assert list(await store.unfinished()) == [each[-1] for each in newer]

    async def test_one_write_that_fails_harms_no_other(self, tmp_path: Path) -> None:
        broken = new("broken", metadata={"what": object()})
        async with self.opened(tmp_path) as store:
            done = await asyncio.gather(
                store.add(new("a")), store.add(broken), store.add(new("b")), return_exceptions=True
            )
            assert [isinstance(each, Exception) for each in done] == [False, True, False]
            assert set(ids(await store.unfinished())) == {"a", "b"}
            assert await store.get("lab", "broken") is None

    async def test_a_write_whose_caller_has_gone_leaves_one_state_whole(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.add(new())
            writing = asyncio.ensure_future(store.keep(with_answers(new(), 2)))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait((writing,), timeout=PATIENCE)
            assert await store.get("lab", "q-1") in (new(), with_answers(new(), 2))
            await store.keep(with_answers(new(), 3))
            assert await store.get("lab", "q-1") == with_answers(new(), 3)

    # One owner

    async def test_it_has_one_process_at_a_time(self, tmp_path: Path) -> None:
        second = self.make(tmp_path, 100)
        async with self.opened(tmp_path) as store:
            assert not await expect(second.open(), "open returns")
            assert second.waits_for
            await store.add(new())
        await expect(opens(second), "it opens once the first has closed")
        assert await second.unfinished() == [new()]
        await second.close()
        await expect(second.close(), "close may be called twice")
        with pytest.raises(PluginFailed):
            await second.add(new("q-2"))

    async def test_it_closes_without_having_been_opened(self, tmp_path: Path) -> None:
        store = self.make(tmp_path, 100)
        await expect(store.close(), "close returns")
        await expect(store.close(), "a second close returns")

    async def test_nothing_is_left_after_its_end(self, tmp_path: Path) -> None:
        before = asyncio.all_tasks()
        async with self.opened(tmp_path) as store:
            await store.add(new(secrets.token_hex(4)))
        await asyncio.sleep(0)  # callbacks of what has ended
        left = [task for task in asyncio.all_tasks() - before if not task.done() and not task.cancelling()]
        assert not left, f"these tasks go on after close: {left}"
