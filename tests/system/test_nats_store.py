"""The store ``nats`` against the contract of stores, at the real nats-server, and while that is killed, away, full."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.js.api
import pytest
import pytest_asyncio
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.long_form import SOAK

from anywire.errors import PluginFailed
from anywire.testing.patience import FACTOR, PATIENCE, expect, polled
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.store import Place, Store
from anywire_service_deliberation.testing.store_kit import (
    NOW,
    StoreConformance,
    ended,
    full,
    ids,
    new,
    with_answers,
)
from anywire_service_nats.kv_bucket import Bucket
from anywire_service_nats.kv_owned import OwnedBucket
from anywire_service_nats.kv_settings import NatsStoreConfig
from anywire_service_nats.kv_store import NatsStore

KILLS = 20 if SOAK else 3
COUNCIL = Council("builders", "DEV", ())
JETSTREAM = 'jetstream {{ store_dir: "{}" }}\n{}'

pytestmark = [needs_nats_server, pytest.mark.timeout(120)]


@asynccontextmanager
async def jetstream_server(folder: Path, settings: str = "") -> AsyncIterator[NatsServer]:
    async with NatsServer(folder, JETSTREAM.format(folder / "jetstream", settings)) as server:
        yield server


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with jetstream_server(tmp_path) as server:
        yield server


def store_at(server: NatsServer, max_kept: int = 100, **settings: Any) -> NatsStore:
    return NatsStore(NatsStoreConfig(servers=[server.url], **settings), Place(Path("unused"), max_kept))


@asynccontextmanager
async def opened(server: NatsServer, **settings: Any) -> AsyncIterator[NatsStore]:
    store = store_at(server, **settings)
    try:
        await opens(store)
        yield store
    finally:
        await expect(store.close(), "the store closes")


@asynccontextmanager
async def looked_at(server: NatsServer) -> AsyncIterator[Any]:
    """JetStream as anybody sees it."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


class TestNatsStore(StoreConformance):
    settings = ""

    @pytest_asyncio.fixture(autouse=True)
    async def serving(self, tmp_path: Path) -> AsyncIterator[None]:
        async with jetstream_server(tmp_path, self.settings) as self._server:
            yield

    def make(self, where: Path, max_kept: int) -> Store:
        return store_at(self._server, max_kept)


class TestNatsStoreOfSmallMessages(TestNatsStore):
    """Most of what is kept is in many pieces."""

    settings = "max_payload: 8192"


# Servers that are killed


async def test_what_was_kept_is_there_whole_however_often_the_server_is_killed(server: NatsServer) -> None:
    drawn = random.Random(None if SOAK else 3)
    kept: dict[str, Deliberation] = {}
    tried: dict[str, Deliberation] = {}
    over = asyncio.Event()

    async def write(name: str, store: NatsStore) -> None:
        number = 0
        while not over.is_set():
            number += 1
            state = new(f"{name}-{number}", metadata={"much": "m" * drawn.randrange(100_000)})
            with suppress(PluginFailed):
                await store.add(state)
                kept[state.question.id] = tried[state.question.id] = state
                for count in range(1, 30):
                    newer = with_answers(state, count, "{} " + "t" * drawn.randrange(50_000))
                    newer = msgspec.structs.replace(newer, answers=kept[state.question.id].answers | newer.answers)
                    # What there is never changes.
                    newer = msgspec.structs.replace(newer, answers=newer.answers | tried[state.question.id].answers)
                    tried[state.question.id] = newer
                    await store.keep(newer)
                    kept[state.question.id] = newer
                    if over.is_set():
                        return
                await store.keep(ended(newer))
                kept[state.question.id] = tried[state.question.id] = ended(newer)

    async with opened(server, patience=PATIENCE / 2) as store:
        writers = [asyncio.ensure_future(write(name, store)) for name in "abc"]
        await polled(lambda: len(kept) >= len(writers), "all of them write")
        for _ in range(KILLS):
            await asyncio.sleep(drawn.uniform(0, 0.5))
            await server.stop()
            await asyncio.sleep(drawn.uniform(0, 0.2))
            await server.restart()
        await asyncio.sleep(0.1)
        over.set()
        await asyncio.wait_for(asyncio.gather(*writers), PATIENCE)
        for name, state in kept.items():
            assert await store.get("lab", name) in (state, tried[name])
    async with opened(server) as store:
        for name, state in kept.items():
            found = await store.get("lab", name)
            assert found in (state, tried[name])
        assert len(await store.list(None, "", "", 10_000)) == len(kept)


async def test_a_call_waits_for_a_server_that_is_started_again(server: NatsServer) -> None:
    async with opened(server, patience=PATIENCE / 2) as store:
        await store.add(new())
        await server.stop()
        calls = [
            asyncio.ensure_future(call)
            for call in (store.keep(full(new())), store.add(new("q-2")), store.list(None, "", "", 9))
        ]
        await asyncio.sleep(0.1)
        assert not any(call.done() for call in calls[:2])
        await server.restart()
        await asyncio.wait_for(asyncio.gather(*calls), PATIENCE)
        assert await store.get("lab", "q-1") == full(new())
        assert ids(await store.unfinished()) == ["q-1", "q-2"]


async def test_a_call_fails_when_the_server_stays_away_and_nothing_is_half_written(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with opened(server, patience=0.2) as store:
        await store.add(new())
        await server.stop()
        large = msgspec.structs.replace(full(new()), synthesis="s" * 100_000)
        calls = (store.keep(large), store.add(new("q-2")), store.get("lab", "q-1"), store.purge(NOW))
        for refused in await asyncio.gather(*calls[:2], return_exceptions=True):
            assert isinstance(refused, PluginFailed)
            assert server.url not in str(refused), "addresses are for the log alone"
        await asyncio.gather(*calls[2:], return_exceptions=True)
        await server.restart()
        await polled(lambda: store._broker is not None and store._broker.connected, "it is connected again")
        assert await store.get("lab", "q-1") in (new(), large)
        assert await store.get("lab", "q-2") is None
        assert ids(await store.unfinished()) == ["q-1"]
        assert await store.add(again := new("q-2", at=NOW + 1)) is again
        await store.purge(NOW)
        assert ids(await store.unfinished()) == ["q-1", "q-2"]
    told = [record.message for record in caplog.records if "cannot be kept or read now" in record.message]
    assert len(told) == 1
    assert "can be kept again" in caplog.text


async def test_a_server_that_is_away_at_first_is_waited_for(tmp_path: Path) -> None:
    async with jetstream_server(tmp_path) as server:
        await server.stop()
        store = store_at(server)
        assert not await expect(store.open(), "open returns")
        assert server.url.removeprefix("nats://") in store.waits_for
        await server.restart()
        await opens(store)
        await store.add(new())
        await store.close()


async def test_of_what_the_server_has_no_room_for_nothing_is_kept(server: NatsServer) -> None:
    async with opened(server, max_bytes=1024**2, patience=60) as store:
        await store.add(new("small"))
        async with asyncio.timeout(20 * FACTOR):  # waiting does not mend it
            with pytest.raises(PluginFailed):
                await store.add(new("large", metadata={"much": "m" * 2_000_000}))
        assert ids(await store.list(None, "", "", 9)) == ["small"]
        await store.purge(NOW)
        await store.add(new("other", metadata={"much": "m" * 500_000}))
    async with opened(server) as store:
        assert sorted(ids(await store.list(None, "", "", 9))) == ["other", "small"]


# Whose it is


async def opens(store: NatsStore, on_lost: Callable[[str], None] | None = None) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await store.open(on_lost):  # noqa: ASYNC110 - nobody tells that an owner is gone
            await asyncio.sleep(0.05)


async def stands_by(store: NatsStore, on_lost: Callable[[str], None] | None = None) -> None:
    """It does not open, because another one has the bucket. On a busy machine it may not have met the server yet."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert not await store.open(on_lost)
            if "another orchestrator (" in store.waits_for:
                return
            await asyncio.sleep(0.05)


def stands_still(store: NatsStore) -> None:
    """As a process that is stopped: it gives no sign of life."""
    assert store._ownership is not None
    assert store._ownership._beating is not None
    store._ownership._beating.cancel()


async def test_one_that_stood_still_for_its_lease_writes_nothing_any_more(server: NatsServer) -> None:
    lost: list[str] = []
    first, second = store_at(server, lease=1), store_at(server, lease=1)
    await opens(first, lost.append)
    await first.add(new())
    await first.keep(with_answers(new(), 1))
    await stands_by(second)
    stands_still(first)
    await opens(second)
    assert await second.unfinished() == [with_answers(new(), 1)]
    assert not lost, "it does not know yet"
    calls = (first.keep(with_answers(new(), 2)), first.add(new("q-2")), first.put_council("lab", COUNCIL))
    for refused in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(refused, PluginFailed)
    assert len(lost) == 1
    assert "another orchestrator" in lost[0]
    await stands_by(first, lost.append)
    await second.keep(ended(with_answers(new(), 3)))
    await second.close()
    await opens(first, lost.append)  # what was given back
    assert await first.get("lab", "q-1") == ended(with_answers(new(), 3))
    assert ids(await first.list(None, "", "", 9)) == ["q-1"]
    await first.close()
    assert len(lost) == 1


async def test_one_that_stood_still_removes_nothing_that_its_follower_has(server: NatsServer) -> None:
    """What an owner removes has no fence at the server: it must not even begin."""
    first, second = store_at(server, lease=1), store_at(server, lease=1)
    await opens(first)
    await first.put_council("lab", COUNCIL)
    await first.add(new())
    await first.keep(ended(full(new()), expires=NOW + 50))
    stands_still(first)
    await opens(second)
    await second.add(new(at=NOW + 60))
    await second.put_council("lab", msgspec.structs.replace(COUNCIL, rounds=2))
    for call in (first.purge(NOW + 9999), first.delete_council("lab", "builders")):
        with pytest.raises(PluginFailed):
            await call
    await first.close()
    assert await second.get("lab", "q-1") == new(at=NOW + 60)
    await second.close()
    async with opened(server) as third:
        assert await third.unfinished() == [new(at=NOW + 60)]
        assert [each.rounds for _, each in await third.councils()] == [2]


async def test_one_that_stood_still_while_it_removed_takes_nothing_from_its_follower(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on where it stood: with what the server does not fence."""
    first, second = store_at(server, lease=1), store_at(server, lease=1)
    await opens(first)
    await first.put_council("lab", COUNCIL)
    stands, goes_on = asyncio.Event(), asyncio.Event()
    remove = OwnedBucket.remove

    async def slow(bucket: OwnedBucket, keys: str, before: int = 0) -> None:
        stands.set()
        await goes_on.wait()
        await remove(bucket, keys, before)

    with monkeypatch.context() as patch:
        patch.setattr(OwnedBucket, "remove", slow)
        removing = asyncio.ensure_future(first.delete_council("lab", COUNCIL.name))
        await expect(stands.wait(), "it begins to remove")
    stands_still(first)
    await opens(second)
    assert await second.councils() == []
    await second.put_council("lab", COUNCIL)
    goes_on.set()
    await asyncio.gather(removing, return_exceptions=True)
    await first.close()
    await second.close()
    async with opened(server) as third:
        assert await third.councils() == [("lab", COUNCIL)]


async def test_one_whose_first_parts_were_written_alone_was_not_added(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is killed in between."""
    put = OwnedBucket.put

    async def killed(bucket: OwnedBucket, key: str, data: bytes) -> int:
        if key.startswith("part.") and key.endswith(".1"):
            raise asyncio.CancelledError
        return await put(bucket, key, data)

    large = new(task="t" * 200_000, metadata={"much": "m" * 2_000_000})
    async with opened(server) as store:
        await store.add(new("other"))
        with monkeypatch.context() as patch:
            patch.setattr(OwnedBucket, "put", killed)
            with pytest.raises(asyncio.CancelledError):
                await store.add(large)
    async with opened(server) as store:
        assert ids(await store.unfinished()) == ids(await store.list(None, "", "", 9)) == ["other"]
        assert await store.add(large) is large
        await store.purge(NOW)
        assert await store.get("lab", "q-1") == large
    async with looked_at(server) as jetstream:
        subjects = (await jetstream.stream_info("KV_anywire-deliberations", subjects_filter=">")).state.subjects
    numbers = {each.split(".")[3] for each in subjects if ".part." in each}
    assert len(numbers) == 1, "what was left of the first attempt is gone"


async def test_an_owner_stays_one_while_the_server_is_away_for_longer_than_its_lease(server: NatsServer) -> None:
    lost: list[str] = []
    first, second = store_at(server, lease=1, patience=0.2), store_at(server, lease=1, patience=0.2)
    await opens(first, lost.append)
    looks = asyncio.ensure_future(opens(second))
    await asyncio.sleep(0.1)
    for _ in range(2):
        stands_still(first)
        await server.stop()
        await asyncio.sleep(1.3)
        await server.restart()
        await polled(lambda: second._broker is not None and second._broker.connected, "the other one is back")
        await asyncio.sleep(1.3)  # the owner finds it later
        assert first._ownership is not None
        first._ownership._beating = asyncio.ensure_future(first._ownership._beat())
        await asyncio.sleep(0.3)
    assert not looks.done()
    assert not lost
    await first.close()
    await asyncio.wait_for(looks, PATIENCE)
    await second.close()


async def test_a_lost_acknowledgement_of_its_own_record_is_no_other_owner(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps = 0
    swap = Bucket.swap

    async def unheard(bucket: Bucket, key: str, data: bytes, revision: int) -> int:
        nonlocal swaps
        swaps += 1
        found = await swap(bucket, key, data, revision)
        return found if swaps > 1 else await swap(bucket, key, data, revision)  # as after a lost acknowledgement

    monkeypatch.setattr(Bucket, "swap", unheard)
    async with opened(server) as store:
        await store.add(new())
    assert swaps > 1


async def test_a_bucket_that_is_removed_is_told_and_made_anew(server: NatsServer) -> None:
    lost: list[str] = []
    store = store_at(server, lease=1, patience=0.2)
    await opens(store, lost.append)
    await store.add(new())
    async with looked_at(server) as jetstream:
        await jetstream.delete_key_value("anywire-deliberations")
    await polled(lambda: bool(lost), "it is told")
    assert "removed" in lost[0]
    await opens(store, lost.append)
    assert await store.unfinished() == []
    await store.add(new())
    await store.close()


# Room


async def test_nothing_is_left_of_what_is_removed(server: NatsServer) -> None:
    """Neither of what has expired, nor of what an earlier process has not finished."""
    async with opened(server, patience=0.5) as store:
        for number in range(5):
            state = new(f"q-{number}", task="t" * 100_000)
            await store.add(state)
            for count in (1, 2, 3):
                await store.keep(with_answers(state, count, "{} " + "x" * 50_000))
            await store.keep(ended(with_answers(state, 3, "{} " + "x" * 50_000), expires=NOW + 50))
        await store.put_council("lab", COUNCIL)
        await store.delete_council("lab", "builders")
        with pytest.raises(TypeError):
            await store.add(new("broken", task="t" * 100_000, metadata={"what": object()}))
        assert store._contents is not None
        await store._contents._bucket.put("index.0000000000000001-000000ff", b'{"begun":true,"tenant":"a","id":"b"')
    async with opened(server) as store:
        assert await store.purge(NOW + 60) == 5
        assert await store.list(None, "", "", 9) == []
    async with looked_at(server) as jetstream:
        subjects = (await jetstream.stream_info("KV_anywire-deliberations", subjects_filter=">")).state.subjects
    assert {each.split(".", 2)[2] for each in subjects} <= {
        "index.owner",
        "beat",
        "index.0000000000000001-000000ff",
    }


async def test_anybody_can_look_at_it_as_a_key_value_bucket(server: NatsServer) -> None:
    async with opened(server) as store:
        await store.add(new())
        async with looked_at(server) as jetstream:
            bucket = await jetstream.key_value("anywire-deliberations")
            # Not `bucket.keys()`, which says now and then that there are none (nats-py, issue 842).
            state = (await jetstream.stream_info("KV_anywire-deliberations", subjects_filter=">")).state
            keys = {subject.removeprefix("$KV.anywire-deliberations.") for subject in state.subjects}
            (name,) = keys - {"beat", "index.owner"}
            entry = await bucket.get(name)
            assert msgspec.json.decode(entry.value)["question"]["task"] == new().question.task
            assert (await bucket.status()).history == 1
