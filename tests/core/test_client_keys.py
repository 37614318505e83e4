"""Keys of clients: what verifies, what the file holds, and what a running orchestrator notices of its changes."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import shutil
import string
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import PATIENCE

from anywire.access import Access, Presented
from anywire.boundary import Boundary
from anywire.caller import OPERATOR, Caller, Limits
from anywire.errors import ConfigError, Unauthenticated
from anywire.event_bus import EventBus
from anywire.events import ConfigReloaded, KeyChanged
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import KeyRecord, add_key, change_keys, read_keys, record_of, revoke_keys
from anywire.keys.key_text import KeyText, new_key, read_key
from anywire.testing.clock import SimulatedClock

LIMITS = Limits(("llama*", "m"), 5, 60, 3, 1000)
KEY = new_key()


def shown(key: KeyText | str) -> Presented:
    return Presented(token=str(key))


def refused(access: Access, presented: Presented) -> str:
    with pytest.raises(Unauthenticated) as caught:
        access.caller(presented)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> KeyAccess:
    """One that knows `KEY`."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    add_key(file, record_of(KEY, label="lab", tenant="alice", role="observe", limits=LIMITS))
    return KeyAccess(file)


def test_a_key_is_known_by_its_whole_text(access: KeyAccess) -> None:
    assert access.caller(shown(KEY)) == Caller(KEY.id, "alice", "observe", LIMITS)
    assert access.by_public_key(KEY.identity.public) == access.caller(shown(KEY))
    assert read_key(str(KEY)) == KEY


_NEAR = st.tuples(
    st.integers(0, len(str(KEY)) - 1), st.sampled_from(string.ascii_letters + string.digits + "-_= \n\0é")
).map(lambda change: str(KEY)[: change[0]] + change[1] + str(KEY)[change[0] + 1 :])
_OTHERS = st.one_of(
    st.text(),
    _NEAR,
    st.sampled_from([str(KEY)[:-1], f"{KEY}A", f" {KEY}", f"{KEY}\n", str(KEY).upper(), KEY.secret, KEY.digest]),
    st.builds(lambda: str(KeyText(KEY.id, new_key().secret))),
    st.builds(lambda: str(KeyText(new_key().id, KEY.secret))),
)


@given(_OTHERS.filter(lambda text: text != str(KEY)))
def test_no_other_text_is_a_key(access: KeyAccess, text: str) -> None:
    said = refused(access, Presented(token=text, tenant="alice", local=True))
    assert len(text) < 12 or text not in said


def test_what_is_stored_is_worth_nothing(access: KeyAccess, path: Path) -> None:
    add_key(path, record_of(KEY))
    stored = path.read_text()
    assert KEY.secret not in stored
    assert str(KEY) not in repr(KEY)
    for value in json.loads(stored)["keys"][0].values():
        if isinstance(value, str) and len(value) > 20:
            raw = base64.urlsafe_b64encode(bytes.fromhex(value)).decode().rstrip("=")
            for text in (value, raw):
                refused(access, shown(f"aw-{KEY.id}-{text}"))
    assert "a key is needed" in refused(access, Presented(local=True, tenant="alice"))


_names = st.text(max_size=256)
_times = st.integers(0, 2**40).map(float)
_limits = st.builds(
    Limits,
    st.lists(_names, max_size=3).map(tuple),
    st.none() | st.integers(-1000, 1000),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
_hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(
    st.builds(
        KeyRecord,
        st.just("").map(lambda _: new_key().id),
        _times,
        _names,
        _names,
        st.sampled_from(["use", "observe", "operate"]),
        _limits,
        _times,
        _times,
        _hashes,
        _hashes | st.just(""),
        _hashes | st.just(""),
    )
)
def test_a_record_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, record: KeyRecord) -> None:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    add_key(file, record)
    assert read_keys(file) == {record.id: record}
    assert file.stat().st_mode & 0o777 == 0o600


_WRITE = """
import sys
from pathlib import Path
from anywire.keys.key_records import add_key, record_of
for number in range(25):
    id = sys.argv[2] + "abcdefghijklmnopqrstuvwxyz"[number] * 10
    add_key(Path(sys.argv[1]), record_of(None, id, certificate=id.encode().hex().zfill(64)))
"""


def test_two_processes_write_at_once_and_nothing_is_lost(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITE, str(path), name]) for name in ("aa", "bb")]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            read_keys(path)  # whole at any time
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(read_keys(path)) == 50
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


def test_a_file_that_others_can_read_is_refused_with_what_mends_it(path: Path) -> None:
    add_key(path, record_of(new_key()))
    path.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        KeyAccess(path)
    command = str(caught.value).partition("`")[2].partition("`")[0]
    assert command == f"chmod 600 {path}"
    subprocess.run(command.split(), check=True)
    KeyAccess(path)


def test_a_missing_file_names_what_makes_it(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"anywire keys create --file {path}"):
        KeyAccess(path)
    with pytest.raises(ConfigError, match="does not exist"):
        revoke_keys(path, ["abc"])
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "\udcff",
        "[" * 100_000,
        '{"format": 2, "keys": []}',
        '{"format": 1, "keys": [{"id": "aw-secret-secret", "created": 1}]}',
        '{"format": 1, "keys": [{"id": "aaaaaaaaaaaa", "created": 1}]}',
        '{"format": 1, "keys": [{"id": "aaaaaaaaaaaa", "created": 1, "digest": "secret-secret"}]}',
        json.dumps({"format": 1, "keys": [{"id": "a" * 12, "created": 1, "digest": "0" * 64, "secret-secret": 1}]}),
        '{"format": 1, "keys": [{"id": "aaaaaaaaaaaa", "created": 1, "limits": {"secret-secret": 3}}]}',
        '{"format": 1, "keys": [{"id": "aaaaaaaaaaaa", "created": 1, "role": "secret-secret"}]}',
        '{"format": 1, "keys": [{"id": "aaaaaaaaaaaa", "created": 1, "limits": {"concurrency": -1}}]}',
        json.dumps({"format": 1, "keys": [{"id": "a" * 12, "created": 1, "digest": "0" * 64}] * 2}),
    ],
)
def test_a_damaged_file_is_refused_and_not_repeated(path: Path, content: str) -> None:
    path.write_text(content, errors="surrogateescape")
    path.chmod(0o600)
    for use in (lambda: KeyAccess(path), lambda: add_key(path, record_of(new_key()))):
        if content:  # an empty one is a new one to whoever adds a key
            with pytest.raises(ConfigError) as caught:
                use()
            assert "secret-secret" not in str(caught.value)
            assert str(path) in str(caught.value)


class Gone:
    """Who is told to be gone by an access that runs."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        return await asyncio.wait_for(self.queue.get(), PATIENCE)


@pytest_asyncio.fixture
async def running(path: Path) -> AsyncIterator[KeyAccess]:
    add_key(path, record_of(KEY))
    one = KeyAccess(path)
    await one.start()
    yield one
    await one.close()


def _fail(_: str) -> None:
    raise RuntimeError("a listener fails")


async def test_a_running_access_sees_keys_come_and_go(running: KeyAccess, path: Path) -> None:
    gone, deaf = Gone(), Gone()
    running.listen(_fail)  # harms no other one
    running.listen(deaf.queue.put_nowait)()
    running.listen(gone.queue.put_nowait)
    for key in (new_key(), new_key()):
        record = record_of(key)
        await asyncio.to_thread(add_key, path, record)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert running.caller(shown(key)).id == key.id
                    break
                except Unauthenticated:
                    await asyncio.sleep(0.01)
        await asyncio.to_thread(revoke_keys, path, [key.id])
        assert await gone.next() == key.id
        assert refused(running, shown(key)) == "this key is revoked"
        with pytest.raises(Unauthenticated):
            running.by_public_key(key.identity.public)
    assert deaf.queue.empty()


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.logged = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.set()


async def test_a_file_that_breaks_leaves_what_counted(running: KeyAccess, path: Path) -> None:
    gone = Gone()
    running.listen(gone.queue.put_nowait)
    logger, errors = logging.getLogger("anywire.keys.key_access"), _Errors()
    logger.addHandler(errors)
    copy = path.with_suffix(".copy")
    try:
        await asyncio.to_thread(shutil.copy2, path, copy)
        for command in (f"echo '{{' > {path}", f"rm {path}"):
            errors.logged.clear()
            await asyncio.to_thread(subprocess.run, command, shell=True, check=True)
            await asyncio.wait_for(errors.logged.wait(), PATIENCE)
            assert running.caller(shown(KEY)).id == KEY.id
            assert gone.queue.empty()
        await asyncio.to_thread(shutil.copy2, copy, path)
        await asyncio.to_thread(revoke_keys, path, [KEY.id])
        assert await gone.next() == KEY.id
    finally:
        logger.removeHandler(errors)


async def test_who_observes_is_told_what_becomes_of_keys(path: Path) -> None:
    key, other = new_key(), new_key()
    add_key(path, record_of(KEY, tenant="alice", role="observe"))
    bus = EventBus(Boundary())
    told: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    def key_changed(event: KeyChanged) -> None:
        told.put_nowait((event.key_id, event.state, event.key_tenant, event.key_role))

    def reloaded(event: ConfigReloaded) -> None:
        told.put_nowait((event.what, event.error))

    bus.subscribe("test", key_changed, KeyChanged)
    bus.subscribe("test", reloaded, ConfigReloaded)
    access = KeyAccess(path, bus=bus)
    await access.start()
    try:
        assert told.empty()

        def change(keys: dict[str, KeyRecord]) -> list[KeyRecord]:
            return [msgspec.structs.replace(keys[KEY.id], role="use"), record_of(key), record_of(other, expires=1.0)]

        await asyncio.to_thread(change_keys, path, change)
        async with asyncio.timeout(PATIENCE):
            assert [await told.get() for _ in range(4)] == [
                ("keys", ""),
                (KEY.id, "changed", "alice", "use"),
                (key.id, "created", key.id, "use"),
                (other.id, "created", other.id, "use"),
            ]
            await asyncio.to_thread(change_keys, path, lambda keys: [keys[key.id]])
            assert await told.get() == (KEY.id, "revoked", "alice", "use")
    finally:
        await access.close()


async def test_a_key_runs_out_at_its_time(path: Path) -> None:
    clock = SimulatedClock()
    begin = 1_000_000.0 + clock.now()
    key, later = new_key(), new_key()
    add_key(path, record_of(key, expires=begin + 10))
    add_key(path, record_of(later, expires=begin + 10_000))
    access = KeyAccess(path, clock=clock, now=lambda: 1_000_000.0 + clock.now())
    await access.start()
    gone: list[str] = []
    access.listen(gone.append)
    clock.advance(9.75)
    assert (access.caller(shown(key)).id, gone) == (key.id, [])
    clock.advance(0.25)
    assert gone == [key.id]
    assert refused(access, shown(key)) == "this key has run out"
    clock.advance(9_989.0)
    assert gone == [key.id]
    clock.advance(1.0)
    assert gone == [key.id, later.id]
    await access.close()


async def test_the_key_of_this_run_operates(access: KeyAccess, path: Path) -> None:
    key = read_key(access.own_key)
    assert key is not None
    assert access.caller(shown(key)) == Caller(key.id, role="operate")
    assert KeyAccess().own_key != KeyAccess().own_key


def test_certificates_and_users_are_keys_too(path: Path) -> None:
    fingerprint, other = "ab" * 32, "cd" * 32
    key_id = new_key().id
    add_key(path, record_of(None, key_id, tenant="robots", certificate=fingerprint))
    add_key(path, record_of(KEY))
    access = KeyAccess(path)
    robot = Caller(key_id, "robots")
    assert access.caller(Presented(certificate=fingerprint)) == robot
    assert access.caller(Presented(certificate=fingerprint, token="unused")) == robot
    assert "not known" in refused(access, Presented(certificate=other))
    assert access.caller(Presented(uid=os.getuid(), token="unused")) is OPERATOR
    refused(access, Presented(uid=os.getuid() + 1, local=True))
    assert access.caller(Presented(shown(KEY).token, fingerprint)).id == KEY.id
    # A key that is wrong is never passed over for something else.
    for presented in (Presented(certificate=fingerprint), Presented(uid=os.getuid())):
        for token in (str(new_key()), "aw-wrong"):
            refused(access, Presented(token, presented.certificate, presented.uid))
    with pytest.raises(ConfigError, match=key_id):
        add_key(path, record_of(None, new_key().id, certificate=fingerprint))
    revoke_keys(path, [key_id])
    assert "revoked" in refused(KeyAccess(path), Presented(certificate=fingerprint))
    assert "revoked" in refused(KeyAccess(path, every_certificate=True), Presented(certificate=fingerprint))
    assert KeyAccess(every_certificate=True).caller(Presented(certificate=other)).tenant == f"certificate:{other}"
