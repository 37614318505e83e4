"""Publishing against a double of JetStream that never knows a message again: each is stored once all the same, in its
order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import nats.js.errors
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.jetstream.test_outbox import message
from tests.long_form import examples

from anywire.clock import SystemClock
from anywire.errors import PluginFailed, TransportUnavailable
from anywire.testing.patience import expect, polled
from anywire_service_nats import publishing
from anywire_service_nats.broker import Broker, Work
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.outbox import Outbox
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.publishing import Publishing
from anywire_service_nats.streams import Streams

COMPLETED, FAILED, RESULT = "agent.response.completed", "agent.response.failed", "deliberation.completed"
NAMES = {"agent.response": "AGENT_RESPONSES", "deliberation": "DELIBERATIONS"}


class Server:
    """JetStream as `Publishing` uses it. ``fates`` says of each message that comes what happens to it: ``kept``;
    ``lost``, the connection ends before it comes; ``cut``, the connection ends before its acknowledgement does; or
    ``full``, the stream takes nothing."""

    def __init__(self, *fates: str) -> None:
        self.fates = iter(fates)
        self.stored: dict[str, list[tuple[str, str]]] = {name: [] for name in NAMES.values()}
        self.began = 10_000.0
        """Seconds since 1970; a further message comes in each second."""
        self.largest = 0
        self.is_cut = False
        self.under_way = self.most_under_way = 0

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> Any:
        if self.is_cut:
            raise nats.errors.ConnectionClosedError
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        fate = next(self.fates, "kept")
        if self.largest and len(body) > self.largest:
            raise nats.js.errors.BadRequestError(code=400, err_code=10054, description="message size exceeds maximum")
        if fate == "full":
            raise nats.js.errors.ServiceUnavailableError(code=503, err_code=10077, description="maximum bytes exceeded")
        if fate == "lost":
            self.is_cut = True
            raise nats.errors.TimeoutError
        stream = NAMES[subject.rpartition(".")[0]]
        self.stored[stream].append((subject, headers["Nats-Msg-Id"]))
        if fate == "cut":
            self.is_cut = True
            raise nats.errors.ConnectionClosedError
        return SimpleNamespace(seq=len(self.stored[stream]))

    async def find_stream_name_by_subject(self, subject: str) -> str:
        return NAMES[subject.rpartition(".")[0]]

    async def stream_info(self, name: str) -> Any:
        state = SimpleNamespace(first_seq=1, last_seq=len(self.stored[name]))
        return SimpleNamespace(
            state=state, config=SimpleNamespace(duplicate_window=120.0, no_ack=False, subject_transform=None)
        )

    async def get_msg(self, stream: str, seq: int, subject: str, next: bool) -> Any:  # noqa: A002 - nats-py's
        if self.is_cut:
            raise nats.errors.TimeoutError
        for number, (kept, name) in enumerate(self.stored[stream], 1):
            if number >= seq and subject in (kept, ">"):
                time = datetime.fromtimestamp(self.began + number, UTC)
                return SimpleNamespace(seq=number, headers={"Nats-Msg-Id": name}, time=time)
        raise nats.js.errors.NotFoundError(code=404)

    def ids(self, stream: str) -> list[str]:
        return [name for _, name in self.stored[stream]]


class Wire:
    """A broker's connections, made and ended by a test."""

    def __init__(self, max_payload: int = 10**6) -> None:
        self.max_payload, self.connected, self.away = max_payload, True, "it has ended"
        self.work: Work | None = None

    def denies(self, subject: str) -> bool:
        return False

    def each_connection(self, work: Work) -> None:
        self.work = work

    async def until(self, server: Server, box: Outbox, done: Callable[[], bool]) -> None:
        """One connection after the other until ``done``."""
        assert self.work is not None
        while not done():
            server.is_cut = False
            task = asyncio.ensure_future(self.work(server))
            while not (task.done() or done()):  # noqa: ASYNC110 - the outbox tells nobody that it is empty
                await asyncio.sleep(0.001)
            task.cancel()
            (error,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(error, asyncio.CancelledError | nats.errors.Error), repr(error)


def publisher(box: Outbox, wire: Wire) -> tuple[Publishing, list[str]]:
    refused: list[str] = []
    config = NatsServiceConfig()
    made = Publishing(
        box,
        cast("Broker", wire),
        SystemClock(),
        lambda jetstream: Streams(config, jetstream),
        lambda name, subject, why: refused.append(name),
    )
    return made, refused


async def run(
    folder: Path, server: Server, messages: list[Outgoing], wire: Wire | None = None
) -> tuple[Publishing, list[str]]:
    """Publish these; return once nothing waits."""
    wire = wire or Wire()
    box = Outbox(folder, "payload", 10**6, 10**9)
    await box.open()
    made, refused = publisher(box, wire)
    try:
        await made.start()
        await box.put(messages)
        await expect(wire.until(server, box, lambda: not box.messages), "all is published")
        return made, refused
    finally:
        await box.close()


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["", "t-1", "t-2", "t-3"]), st.sampled_from([COMPLETED, FAILED, RESULT])), max_size=40
)


@given(MESSAGES, st.lists(st.sampled_from(["kept", "kept", "kept", "lost", "cut"]), max_size=30))
@example([("", COMPLETED)] * 10, [*["kept"] * 5, "cut"])
def test_each_is_stored_once_and_in_the_order_of_its_task(wanted: list[tuple[str, str]], fates: list[str]) -> None:
    server = Server(*fates)
    messages = [message(f"m{number}", order, subject) for number, (order, subject) in enumerate(wanted)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "MOST_TOGETHER", 5)  # several lots over one connection
        made, refused = asyncio.run(run(Path(folder) / "outbox", server, messages))
    assert not refused
    for stream in server.stored:
        mine = [each for each in messages if NAMES[each.subject.rpartition(".")[0]] == stream]
        assert sorted(server.ids(stream)) == sorted(each.envelope.id for each in mine)
        for order in ("t-1", "t-2", "t-3"):
            of_order = [each.envelope.id for each in mine if each.order == order]
            assert [name for name in server.ids(stream) if name in of_order] == of_order
    assert sum(made.published.values()) == len(messages)


@settings(max_examples=examples(20))
@given(
    earlier=st.integers(0, 300),
    told=st.sets(st.integers(0, 9)),
    between=st.integers(0, 20),
    fates=st.lists(st.sampled_from(["kept", "cut"]), max_size=4),
)
def test_what_another_process_may_have_published_is_searched_for(
    earlier: int, told: set[int], between: int, fates: list[str]
) -> None:
    """It has told some of ten messages, among those of others, and long after all that the stream had before."""
    server = Server(*fates)
    stored = server.stored["AGENT_RESPONSES"]
    stored += [(COMPLETED, f"earlier {number}") for number in range(earlier)]
    began = server.began + earlier
    for number in sorted(told):
        stored += [(FAILED, f"others {number} {at}") for at in range(between)]
        stored.append((COMPLETED, f"m{number}"))
    before = len(stored)
    messages = [message(f"m{number}", "t") for number in range(10)]

    async def take_over(folder: Path) -> None:
        wire, box = Wire(), Outbox(folder, "payload", 1000, 10**6)
        await box.open()
        made, _ = publisher(box, wire)
        await made.start()
        try:
            await box.put([message("live before", "t")])
            await box.put(messages, since=began, uncertain=True)
            await box.put([message("live after", "t")])
            await expect(wire.until(server, box, lambda: not box.messages), "all is published")
            assert made.found >= len(told)
        finally:
            await box.close()

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "MOST_SKEW", 0.5)
        asyncio.run(take_over(Path(folder) / "outbox"))
    new = [f"m{number}" for number in range(10) if number not in told]
    assert [name for _, name in stored[before:]] == ["live before", *new, "live after"]


def test_many_are_under_way_at_once_and_their_number_is_bounded(tmp_path: Path) -> None:
    server = Server()
    asyncio.run(run(tmp_path / "outbox", server, [message(f"m{number}", f"t-{number}") for number in range(1000)]))
    assert 1 < server.most_under_way <= publishing.AT_ONCE


def test_a_stream_that_takes_nothing_is_tried_again_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publishing, "FIRST_HOLD", 0.01)
    server = Server(*["full"] * 3)
    messages = [message(f"m{number}", "t-1") for number in range(5)] + [message("r", "t-2", RESULT)]
    asyncio.run(run(tmp_path / "outbox", server, messages))
    assert server.ids("AGENT_RESPONSES") == [f"m{number}" for number in range(5)]
    assert server.ids("DELIBERATIONS") == ["r"]
    told = [each for each in caplog.messages if "takes nothing now" in each]
    assert len(told) <= 2, "once for each subject"


@pytest.mark.parametrize("limit", ["server", "stream"])
def test_what_is_too_large_is_published_in_its_short_form_or_refused(tmp_path: Path, limit: str) -> None:
    server, wire = Server(), Wire(max_payload=1000 if limit == "server" else 10**6)
    server.largest = 1000 if limit == "stream" else 0
    short = message("a", subject=FAILED, error="too large").envelope
    text = "x" * 2000
    messages = [
        message("before", "t"),
        Outgoing(COMPLETED, message("a", text=text).envelope, "t", (FAILED, short)),
        message("b", "t", text=text),
        message("after", "t"),
    ]
    made, refused = asyncio.run(run(tmp_path / "outbox", server, messages, wire))
    assert server.stored["AGENT_RESPONSES"] == [(COMPLETED, "before"), (FAILED, "a"), (COMPLETED, "after")]
    assert (refused, made.failed) == (["b"], 1)


async def test_nothing_is_too_large_for_a_connection_that_has_just_ended(tmp_path: Path) -> None:
    server, wire = Server(), Wire(max_payload=0)
    box = Outbox(tmp_path, "payload", 100, 10**6)
    await box.open()
    await box.put([message("a")])
    made, refused = publisher(box, wire)
    await made.start()
    assert wire.work is not None
    with pytest.raises(TransportUnavailable):
        await expect(wire.work(server), "the connection has ended")
    wire.max_payload = 10**6
    await expect(wire.until(server, box, lambda: not box.messages), "it is published")
    assert (server.ids("AGENT_RESPONSES"), refused) == (["a"], [])
    await box.close()


async def test_what_was_sent_by_a_process_that_died_is_looked_for(tmp_path: Path) -> None:
    server = Server()
    server.stored["AGENT_RESPONSES"] = [(COMPLETED, f"others {number}") for number in range(5)]
    box, wire = Outbox(tmp_path, "payload", 100, 10**6), Wire()
    await box.open()
    await box.put([message("a", "t"), message("b", "t")])
    sent = await box.step([], (), 10, 10**6)
    await box.mark(sent, {COMPLETED: ("AGENT_RESPONSES", 3)}, 1.0)
    server.stored["AGENT_RESPONSES"].append((COMPLETED, "a"))  # it came, and then the process was killed
    made, _ = publisher(box, wire)
    await made.start()
    await expect(wire.until(server, box, lambda: not box.messages), "all is published")
    assert server.ids("AGENT_RESPONSES")[5:] == ["a", "b"]
    assert made.found == 1
    await box.close()


async def test_how_far_it_is_behind_can_be_measured(tmp_path: Path) -> None:
    box, wire = Outbox(tmp_path, "payload", 100, 10**6), Wire()
    await box.open()
    made, _ = publisher(box, wire)
    await made.start()

    def told() -> dict[str, float]:
        return {each.name: each.value for each in made.metrics()}

    assert told()["behind_seconds"] == told()["waiting_messages"] == 0
    await box.put([message("a")])
    assert told()["waiting_messages"] == 1
    await polled(lambda: told()["behind_seconds"] > 0, "it falls behind")
    await expect(wire.until(Server(), box, lambda: not box.messages), "it is published")
    assert told()["behind_seconds"] == told()["waiting_messages"] == 0
    assert [each.labels for each in made.metrics() if each.name == "published_messages"] == [{"subject": COMPLETED}]
    await box.close()


async def test_what_was_acknowledged_is_known_while_the_disk_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its stream has dropped it by the time at which it is looked for: a work queue, say."""
    server, box, wire = Server(), Outbox(tmp_path, "payload", 100, 10**6), Wire()
    await box.open()
    made, _ = publisher(box, wire)
    await made.start()
    await box.put([message("a"), message("b")])
    step, stored = box.step, server.stored["AGENT_RESPONSES"]

    async def failing(done: Any, *others: Any) -> Any:
        if done:
            monkeypatch.setattr(box, "step", step)
            raise PluginFailed("the disk is full")
        return await step(done, *others)

    monkeypatch.setattr(box, "step", failing)
    assert wire.work is not None
    with pytest.raises(PluginFailed):
        await expect(wire.work(server), "the disk is full")
    assert [name for _, name in stored] == ["a", "b"]
    stored.clear()
    await expect(wire.until(server, box, lambda: not box.messages), "it is written down")
    assert stored == []
    assert sum(made.published.values()) == 2
    await box.close()
