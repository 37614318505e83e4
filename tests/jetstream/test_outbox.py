"""What is to be published is on the disk, once, in its order, and within its bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anywire.errors import ConfigError, PluginFailed, QueueFull
from anywire.testing.patience import expect, polled
from anywire_service_nats.envelopes import Envelope
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.outbox_tables import REMEMBERED, OutboxTables, Waiting
from anywire_service_nats.outgoing import Outgoing

SUBJECT = "agent.response.completed"


def message(name: str, order: str = "", subject: str = SUBJECT, **payload: Any) -> Outgoing:
    return Outgoing(subject, Envelope(type=subject, id=name, correlation="c", time=0.0, payload=payload), order)


@asynccontextmanager
async def outbox(folder: Path, messages: int = 1000, size: int = 10**6) -> AsyncIterator[Outbox]:
    made = Outbox(folder, "payload", messages, size)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def waiting(box: Outbox, done: list[Any] | None = None, held: tuple[str, ...] = ()) -> list[Waiting]:
    return await box.step(done or [], held, 1000, 10**6)


def ids(messages: list[Waiting]) -> list[str]:
    return [each.id for each in messages]


async def test_it_is_kept_once_and_in_order_over_a_restart(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.put([message("a"), message("b")])
        await box.put([message("b"), message("c"), message("a")])
        assert ids(await waiting(box)) == ["a", "b", "c"]
        assert box.messages == 3
        assert box.bytes > 0
    async with outbox(tmp_path) as box:
        assert box.messages == 3
        found = await waiting(box)
        assert ids(found) == ["a", "b", "c"]
        assert ids(await waiting(box, found[:2])) == ["c"]
        await box.put([message("a"), message("b")])
        assert ids(await waiting(box)) == ["c"], "what was published is not put again"
    async with outbox(tmp_path) as box:
        await box.put([message("a")])
        assert ids(await waiting(box)) == ["c"], "nor by the next process"


async def test_a_full_outbox_keeps_all_or_none_and_says_so(tmp_path: Path) -> None:
    async with outbox(tmp_path, messages=3) as box:
        await box.put([message("a"), message("b")])
        with pytest.raises(QueueFull, match="outbox of the service nats is full"):
            await box.put([message("c"), message("d")])
        assert ids(await waiting(box)) == ["a", "b"]
        await box.put([message("a"), message("c")])
        assert ids(await waiting(box, await waiting(box))) == []
        await box.put([message("d"), message("e"), message("f")])
        assert box.messages == 3


async def test_more_at_once_than_it_may_hold_are_kept_when_nothing_else_waits(tmp_path: Path) -> None:
    """They would wait for ever, and all others behind them."""
    async with outbox(tmp_path, messages=2, size=200) as box:
        await box.put([message("a")])
        many = [message(f"m{number}", text="x" * 100) for number in range(5)]
        with pytest.raises(QueueFull):
            await box.put(many)
        await waiting(box, await waiting(box))
        await box.put(many)
        assert box.messages == 5
        with pytest.raises(QueueFull):
            await box.put([message("b")])


async def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    async with outbox(tmp_path, size=2000) as box:
        await box.put([message("a", text="x" * 1000)])
        with pytest.raises(QueueFull):
            await box.put([message("b", text="x" * 1000)])
        await box.put([message("c")])
        assert ids(await waiting(box)) == ["a", "c"]
        assert box.bytes <= 2000


async def test_one_that_finds_no_room_holds_up_no_other_that_is_written_with_it(tmp_path: Path) -> None:
    async with outbox(tmp_path, messages=2) as box:
        big = [message(f"x{number}") for number in range(3)]
        results = await asyncio.gather(
            box.put([message("a")]), box.put(big), box.put([message("b")]), return_exceptions=True
        )
        assert [type(each) for each in results] == [type(None), QueueFull, type(None)]
        assert ids(await waiting(box)) == ["a", "b"]


async def test_what_is_read_at_once_is_bounded(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.put([message(f"m{number}", text="x" * 500) for number in range(10)])
        assert len(await box.step([], (), 4, 10**6)) == 4
        assert 1 <= len(await box.step([], (), 10, 1500)) <= 2
        assert len(await box.step([], (), 10, 1)) == 1, "one that is larger than all is read alone"


async def test_subjects_that_are_held_hold_up_no_other(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.put([message("a"), message("b", subject="deliberation.completed"), message("c")])
        assert ids(await waiting(box, held=(SUBJECT,))) == ["b"]
        assert ids(await waiting(box, held=("deliberation.completed",))) == ["a", "c"]


async def test_what_was_sent_is_known_until_it_is_settled(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.put([message("a"), message("b"), message("c")])
        sent = await waiting(box)
        await box.mark(sent[:2], {SUBJECT: ("AGENT_RESPONSES", 41)}, 1.0)
    async with outbox(tmp_path) as box:
        unsettled = await box.unsettled(10)
        assert [(each.id, each.stream, each.floor) for each in unsettled] == [
            ("a", "AGENT_RESPONSES", 41),
            ("b", "AGENT_RESPONSES", 41),
        ]
        await box.step(unsettled[:1], (), 0, 0)
        await box.unmark([unsettled[1].number])
        assert not await box.unsettled(10)
        assert ids(await waiting(box)) == ["b", "c"]


async def test_what_has_waited_and_another_may_publish_too_is_doubted(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.put([message("mine")])
        await box.put([message("shared")], since=1.0)
        await box.doubt(1000.0)
        assert ids(await waiting(box)) == ["mine", "shared"], "they have not waited"
        await box.doubt(-1000.0)
        assert ids(await waiting(box)) == ["mine"]
        assert [(each.id, each.stream, each.sent) for each in await box.unsettled(10)] == [("shared", "", 1.0)]
        await box.put([message("taken over")], since=2.0, uncertain=True)
        assert box.uncertain
        assert [each.id for each in await box.unsettled(10)] == ["shared", "taken over"]
        await box.unmark([each.number for each in await box.unsettled(10)])
        assert ids(await waiting(box)) == ["mine", "shared", "taken over"]


async def test_what_replaces_a_message_keeps_its_place(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        short = message("a", subject="agent.response.failed", error="too large")
        large = Outgoing(SUBJECT, message("a", text="x" * 9000).envelope, "t", (short.subject, short.envelope))
        await box.put([large, message("b", "t")])
        before = box.bytes
        found = await waiting(box)
        assert found[0].instead is not None
        await box.replace(Waiting(found[0].number, "a", "agent.response.failed", "t", found[0].instead))
        assert [(each.id, each.subject) for each in await waiting(box)] == [
            ("a", "agent.response.failed"),
            ("b", SUBJECT),
        ]
        assert box.bytes < before


async def test_deliberations_under_way_are_known_until_their_last_message_is_put(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.begin("lab", "q-1", b"ann")
        await box.begin("lab", "q-2", b"ann")
        assert await box.lacks(["q-1:ended"])
        await box.put([message("q-1:ended")], [("lab", "q-1")])
        assert not await box.lacks(["q-1:ended"])
        assert await box.lacks(["q-1:ended", "q-2:ended"])
    async with outbox(tmp_path) as box:
        assert [tuple(each) for each in await box.begun()] == [("lab", "q-2", b"ann")]
        await box.forget("lab", "q-2")
        assert not await box.begun()


async def test_another_process_has_it_until_it_ends(tmp_path: Path) -> None:
    async with outbox(tmp_path) as first:
        second = Outbox(tmp_path, "payload", 10, 10**6)
        await second.open()
        putting = asyncio.create_task(second.put([message("b")]))
        await first.put([message("a")])
        assert not putting.done()
        await first.close()
        await expect(putting, "the second one has the folder")
        assert ids(await waiting(second)) == ["a", "b"]
        await second.close()
        with pytest.raises(PluginFailed):
            await second.put([message("c")])


async def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # noqa: ASYNC240
    with pytest.raises(ConfigError, match="chmod 700"):
        async with outbox(tmp_path):
            pass


async def test_a_message_that_is_no_json_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        with pytest.raises(ValueError, match="no JSON"):
            await box.put([message("a"), message("b", wrong=object())])
        assert not await waiting(box)


def test_ids_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REMEMBERED >= 100_000
    monkeypatch.setattr("anywire_service_nats.outbox_tables.REMEMBERED", 5)
    tables = OutboxTables(tmp_path, 100, 10**6)
    assert tables.open()
    for number in range(12):
        tables._run(
            "INSERT INTO messages (id, subject, ordered, size, put, since, content) VALUES (?, 's', '', 0, 0, 0, x'')",
            f"m{number}",
        )
        ((row,),) = tables._rows("SELECT number FROM messages")
        tables.step([Waiting(row, f"m{number}", "s", "", None)], (), 0, 0)  # type: ignore[arg-type]
    assert [each for (each,) in tables._rows("SELECT id FROM published ORDER BY number")] == [
        f"m{number}" for number in range(7, 12)
    ]
    tables.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.jetstream.test_outbox import message, outbox

async def main():
    async with outbox(Path(sys.argv[1]), messages=10**6, size=10**9) as box:
        number = 0
        while True:
            await box.put([message(f"{number}:{part}", text="x" * 100) for part in range(3)])
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""


async def test_what_was_put_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    for life in range(3):
        folder = tmp_path / str(life)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(folder), stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
        )
        assert process.stdout is not None
        put = -1
        while put < 10 + 7 * life:
            line = await expect(process.stdout.readline(), "something was put")
            put = int(line)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        put = max([put, *(int(line) for line in (await process.stdout.read()).split())])
        async with outbox(folder, messages=10**6, size=10**9) as box:
            found = ids(await box.step([], (), 10**6, 10**9))
            whole = len(found) // 3
            assert whole in (put + 1, put + 2), "all that was said to be put, and at most what was under way then"
            assert found == [f"{number}:{part}" for number in range(whole) for part in range(3)]


async def test_a_disk_that_fails_is_told_and_nothing_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    async with outbox(tmp_path) as box:
        fails = True

        def failing(self: OutboxTables, *arguments: Any, **options: Any) -> Any:
            if fails:
                raise sqlite3.OperationalError("database or disk is full")
            return original(self, *arguments, **options)

        original = OutboxTables.put
        monkeypatch.setattr(OutboxTables, "put", failing)
        with pytest.raises(PluginFailed, match="cannot be kept"):
            await box.put([message("a")])
        fails = False
        await box.put([message("a")])
        await polled(lambda: box.messages == 1, "it is kept once the disk works again")
