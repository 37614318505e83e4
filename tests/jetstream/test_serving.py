"""Requests by message are answered once, wherever their orchestrator is killed; and what is read of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from anywire import errors
from anywire.caller import Caller
from anywire.clock import SystemClock
from anywire.errors import AnywireError
from anywire_service_nats.broker import Broker
from anywire_service_nats.config_inbound import WorkerConfig
from anywire_service_nats.envelopes import Envelope
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.requests.ledger import Ledger
from anywire_service_nats.requests.ledger_file import LedgerFile, Place
from anywire_service_nats.requests.serving import OtherRequest, Serving

KEY = "agent:t:1"


class Killed(BaseException):
    """The process was killed here."""


class Life:
    """One life of a process: it is killed before or after its ``deadly``-th step."""

    def __init__(self, folder: Path, outbox: dict[str, Outgoing], deadly: int) -> None:
        self._left, self._outbox = deadly, outbox
        self.ledger = Ledger(LedgerFile(folder))
        for name in ("begin", "forgive", "elsewhere", "answered", "told", "answer"):
            setattr(self.ledger, name, self._deadly(getattr(self.ledger, name)))
        publisher = SimpleNamespace(put=self._deadly(self._put))
        broker = cast("Broker", SimpleNamespace())
        self.serving = Serving(WorkerConfig(max_starts=100), self.ledger, cast("Any", publisher), broker, SystemClock())

    def _deadly(self, do: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(*arguments: Any) -> Any:
            self._step()
            result = await do(*arguments)
            self._step()
            return result

        return step

    def _step(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1

    async def _put(self, messages: Sequence[Outgoing]) -> None:
        for each in messages:
            self._outbox.setdefault(each.envelope.id, each)


@asynccontextmanager
async def life(folder: Path, outbox: dict[str, Outgoing], deadly: int = -1) -> AsyncIterator[Life]:
    found = Life(folder, outbox, deadly)
    assert await found.ledger.open()
    try:
        yield found
    finally:
        await found.ledger.close()


def answer(text: str, subject: str = "agent.response.completed") -> Outgoing:
    return Outgoing(subject, Envelope(type=subject, id="t:1", correlation="t", time=1.0, payload={"text": text}))


def refused(error: AnywireError) -> Outgoing:
    return answer(error.code, "agent.response.failed")


@pytest.mark.parametrize("deadly", range(12))
async def test_an_answer_is_told_once_wherever_the_process_is_killed(tmp_path: Path, deadly: int) -> None:
    outbox: dict[str, Outgoing] = {}
    answers = 0

    async def work() -> Outgoing:
        nonlocal answers
        answers += 1
        return answer(f"the {answers}. answer")

    killed = acknowledged = False
    async with life(tmp_path, outbox, deadly) as first:
        try:
            acknowledged = (await first.serving.serve(KEY, b"", work, refused))[1] is None
        except Killed:
            killed = True
    assert killed == (deadly < 10)
    async with life(tmp_path, outbox) as second:
        for each in await second.ledger.untold():
            await second.serving.tell(each.key)
        if not acknowledged:  # it is delivered again
            assert (await second.serving.serve(KEY, b"", work, refused))[1] is None
        assert await second.ledger.untold() == []
        # And once more: whoever has sent it has sent it again.
        assert (await second.serving.serve(KEY, b"", work, refused))[1] is None
    (told,) = outbox.values()
    assert told.envelope.payload["text"] == f"the {answers}. answer", "the answer that was kept is the one that is told"
    assert answers == (2 if deadly == 2 else 1)


async def test_what_cannot_be_taken_now_is_given_back_and_fails_when_its_time_is_over(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}

    async def work() -> Outgoing:
        raise errors.NoAgent("nobody", retry_after=7)

    async with life(tmp_path, outbox) as here:
        assert (await here.serving.serve(KEY, b"", work, refused))[1] == 7
        assert not outbox
        here.serving._config = WorkerConfig(keep_trying=0)
        assert (await here.serving.serve(KEY, b"", work, refused))[1] is None
    assert outbox["t:1"].envelope.payload == {"text": "no_agent"}


async def test_a_request_that_kills_is_not_begun_for_ever(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}

    async def work() -> Outgoing:
        raise Killed

    async with life(tmp_path, outbox) as here:
        here.serving._config = WorkerConfig(max_starts=2)
        for _ in range(2):
            with pytest.raises(Killed):
                await here.serving.serve(KEY, b"", work, refused)
        assert (await here.serving.serve(KEY, b"", work, refused))[1] is None
    assert outbox["t:1"].subject == "agent.response.failed"


async def test_an_orchestrator_that_ends_is_no_start_that_counts(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}
    begun = asyncio.Event()

    async def hold() -> Outgoing:
        begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("it is cancelled")

    async def ending() -> Outgoing:
        raise errors.ShuttingDown("it ends")

    async with life(tmp_path, outbox) as here:
        here.serving._config = WorkerConfig(max_starts=1)
        assert (await here.serving.serve(KEY, b"", ending, refused))[1]
        serving = asyncio.ensure_future(here.serving.serve(KEY, b"", hold, refused))
        await begun.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

        async def work() -> Outgoing:
            return answer("fine")

        assert (await here.serving.serve(KEY, b"", work, refused))[1] is None
    assert outbox["t:1"].envelope.payload == {"text": "fine"}


async def test_what_another_service_has_is_not_begun_again_and_is_bounded(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}
    place = Place("background", "b-1", "chat", "mine", Caller("ann", "lab"))

    async def hand_over() -> Place:
        return place

    async def work() -> Outgoing:
        raise AssertionError("it is not begun")

    async with life(tmp_path, outbox) as here:
        here.serving._most_open = 1
        assert await here.serving.serve(KEY, b"", hand_over, refused) == (place, None)
        assert await here.serving.serve(KEY, b"", work, refused) == (None, None)
        found, again = await here.serving.serve("another", b"", work, refused)
        assert found is None
        assert again
    async with life(tmp_path, outbox) as here:
        ((key, _, kept),) = await here.ledger.open_requests()
        assert (key, kept) == (KEY, place)
        await here.serving.answer(KEY, answer("at last"), "")
        assert await here.ledger.open_requests() == []
    assert outbox["t:1"].envelope.payload == {"text": "at last"}


async def test_what_was_answered_long_ago_is_forgotten(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}
    calls = 0

    async def work() -> Outgoing:
        nonlocal calls
        calls += 1
        return answer("fine")

    async with life(tmp_path, outbox) as here:
        await here.serving.serve(KEY, b"", work, refused)
        await here.ledger.forget(0.0)
        await here.serving.serve(KEY, b"", work, refused)
        assert calls == 1
        await here.ledger.forget(4e9)
        await here.serving.serve(KEY, b"", work, refused)
        assert calls == 2


async def test_an_answer_that_waits_for_the_outbox_is_told_when_the_request_comes_again(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}

    async def work() -> Outgoing:
        return answer("first")

    async with life(tmp_path, outbox, deadly=6) as here:
        with pytest.raises(Killed):
            await here.serving.serve(KEY, b"", work, refused)
    assert not outbox
    async with life(tmp_path, outbox) as here:
        assert (await here.serving.serve(KEY, b"", work, refused))[1] is None
        assert len(outbox) == 1
        assert await here.ledger.untold() == []


async def test_the_first_answer_of_a_request_is_the_one_that_counts(tmp_path: Path) -> None:
    async with life(tmp_path, {}) as here:
        await here.ledger.begin(KEY, b"", 1.0)
        await here.ledger.answered(KEY, answer("first"), "_INBOX.a")
        await here.ledger.answered(KEY, answer("second"), "_INBOX.b")
        (found,) = await here.ledger.untold()
    assert (found.answer.envelope.payload, found.reply) == ({"text": "first"}, "_INBOX.a")


async def test_a_request_that_is_published_twice_is_worked_on_once(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold() -> Outgoing:
        assert not begun.is_set(), "it is begun twice"
        begun.set()
        await go.wait()
        return answer("done")

    async with life(tmp_path, outbox) as here:
        first = asyncio.ensure_future(here.serving.serve(KEY, b"", hold, refused))
        await begun.wait()
        place, again = await here.serving.serve(KEY, b"", hold, refused)
        assert place is None
        assert again, "it is delivered again, and waits for what becomes of the other"
        go.set()
        assert await first == (None, None)
        assert await here.serving.serve(KEY, b"", hold, refused) == (None, None)
    assert len(outbox) == 1


async def test_another_request_with_the_same_name_is_neither_done_nor_taken_for_the_first(tmp_path: Path) -> None:
    outbox: dict[str, Outgoing] = {}

    async def work() -> Outgoing:
        return answer("done")

    async with life(tmp_path, outbox) as here:
        assert await here.serving.serve(KEY, b"one", work, refused) == (None, None)
        with pytest.raises(OtherRequest, match="use a new id"):
            await here.serving.serve(KEY, b"two", work, refused)
        assert await here.serving.serve(KEY, b"one", work, refused) == (None, None)
    assert len(outbox) == 1
