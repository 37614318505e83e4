"""The wire contract in ``idl/`` against a peer in C, made from it alone by Debian's ``idlc`` and older Cyclone DDS.

The peer shows every sample as its compiler sees it, writes it back, and writes samples built from literals of its own.
What the transport's compiled packers write is put to the same test as what the DDS library writes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedds._clayer import ddspy_take, ddspy_write
from cyclonedds.core import InstanceState, Policy, Qos, SampleState, ViewState
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.c_peers.contract import FILES, STRUCTS, Struct, python_classes
from tests.c_peers.generate import VARIANTS, kind_of, plain, types_c, variant
from tests.c_peers.toolchain import UNICAST, WARNINGS, needs_toolchain
from tests.long_form import examples
from tests.patience import PATIENCE

from anywire_dds.cdr import Codec, codec
from anywire_dds.config import DdsConfig
from anywire_dds.domain import acquire, release
from anywire_dds.wakeup import Wakeup
from anywire_dds.writer import Writer

SOURCES = Path(__file__).parents[1] / "c_peers"
ANY = SampleState.Any | ViewState.Any | InstanceState.Any
pytestmark = needs_toolchain

# A writer that ends is no goodbye.
_STAYS = Policy.WriterDataLifecycle(autodispose=False)
_RELIABLE = (_STAYS, Policy.Reliability.Reliable(duration(seconds=10)), Policy.Durability.TransientLocal)
_BEST_EFFORT = (_STAYS, Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(1))
QOS = {
    "announcement": Qos(*_RELIABLE, Policy.History.KeepLast(1)),
    "status": Qos(*_BEST_EFFORT),
    "message": Qos(*_RELIABLE, Policy.History.KeepAll),
    "service": Qos(*_RELIABLE, Policy.History.KeepLast(8)),
    "service_status": Qos(
        *_BEST_EFFORT, Policy.Deadline(duration(seconds=2)), Policy.Liveliness.Automatic(duration(seconds=1))
    ),
}
"""By hand from the contract, as the peer has them, and not from a plugin."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c_peer")
    for file in FILES:
        subprocess.run(["idlc", "-o", str(folder), str(file)], check=True)
    (folder / "types.c").write_text(types_c([file.with_suffix(".h").name for file in FILES]))
    sources = [SOURCES / "peer.c", folder / "types.c", *(folder / file.with_suffix(".c").name for file in FILES)]
    program = folder / "peer"
    subprocess.run(
        ["gcc", "-std=gnu11", *WARNINGS, f"-I{folder}", f"-I{SOURCES}", "-o", program, *sources, "-lddsc", "-pthread"],
        check=True,
    )
    return program


class Peer:
    """The C process. What it shows is read as it comes, so that it never waits for us."""

    def __init__(self, program: Path, domain: int) -> None:
        environment = {**os.environ, "CYCLONEDDS_URI": UNICAST}
        self.process = subprocess.Popen(
            [program, str(domain)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._shown: queue.Queue[bytes] = queue.Queue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._shown.put(line)
        self._shown.put(b"")

    def shown(self) -> dict[str, Any]:
        line = self._shown.get(timeout=PATIENCE)
        assert line, f"the peer ended with {self.process.wait()}; stderr says why"
        said: dict[str, Any] = json.loads(line)
        return said

    def command(self, verb: str, struct: Struct, name: str = VARIANTS[0]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {struct.typename} {VARIANTS.index(name)}\n".encode())
        self.process.stdin.flush()

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._listener.join()
            self.process.stdout.close()


class Ends:
    """What Python has of one struct: a class, a reader of what the peer writes, a writer of what it reads."""

    def __init__(
        self,
        struct: Struct,
        cls: Any,
        participant: DomainParticipant,
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        wakeup: Wakeup,
    ) -> None:
        assert peer.process.poll() is None, "the peer is gone; stderr says why"
        self.struct, self.cls, self.peer = struct, cls, peer
        qos = QOS[kind_of(struct)]
        name = struct.typename.replace(".", "/")
        self.reader = DataReader(participant, Topic(participant, f"{name}/out", cls), qos)
        self.writer = DataWriter(participant, Topic(participant, f"{name}/in", cls), qos)
        # Other plugins' types may not fit the transport's packers; the transport's own must.
        self.codec: Codec | None = codec(cls) if struct.module == "anywire" else None
        # A best-effort sample reaches only a reader that knows its writer: all four wait for their counterparts.
        until = time.monotonic() + PATIENCE
        while not (self.writer.get_matched_subscriptions() and self.reader.get_matched_publications()):
            assert time.monotonic() < until, f"the peer has no reader or no writer of {name}"
            time.sleep(0.002)
        peer.command("await", struct)
        assert peer.shown() == {"type": struct.typename, "event": "matched", "value": None}
        self._loop, self._arrived = loop, asyncio.Event()
        wakeup.watch(self.reader._ref, self._arrived.set)

    def write(self, value: dict[str, Any], how: str) -> None:
        if how == "packed":
            assert self.codec is not None
            sample = self.codec.pack(*(value[member.name] for member in self.struct.members))
            assert ddspy_write(self.writer._ref, sample) == 0
        else:
            self.writer.write(self.made(value))

    def dispose(self, value: dict[str, Any]) -> None:
        async def dispose() -> None:  # as the transport does it, which needs its event loop
            Writer([], self.writer._ref).dispose(self.made(value))

        self._loop.run_until_complete(dispose())

    def made(self, value: dict[str, Any]) -> Any:
        module = sys.modules[self.cls.__module__]
        arguments = []
        for member in self.struct.members:
            each = value[member.name]
            if member.element and isinstance(each, list) and each and isinstance(each[0], dict):
                each = [getattr(module, member.element)(**element) for element in each]
            arguments.append(each)
        return self.cls(*arguments)

    def take(self) -> tuple[bytes, Any]:
        while not (samples := ddspy_take(self.reader._ref, ANY, 8)):
            self._arrived.clear()
            self._loop.run_until_complete(asyncio.wait_for(self._arrived.wait(), PATIENCE))
        ((data, info),) = samples
        return data, info

    def read(self) -> dict[str, Any]:
        """The next sample, as the library and the transport's packer agree that it is."""
        data, info = self.take()
        assert info.valid_data
        value = dataclasses.asdict(self.cls.deserialize(data))
        if self.codec is not None:
            unpacked = [list(each) if isinstance(each, tuple) else each for each in self.codec.unpack(data)]
            assert unpacked == list(value.values())
        return value

    def exchange(self, value: dict[str, Any], how: str) -> None:
        """From Python to C, where each member is what it was, and back."""
        self.write(value, how)
        assert self.peer.shown() == {"type": self.struct.typename, "event": "read", "value": value}
        assert self.read() == value

    @property
    def ways(self) -> list[str]:
        return ["library", "packed"] if self.codec is not None else ["library"]


@pytest.fixture(scope="module")
def peer(program: Path, dds_domain: int) -> Iterator[Peer]:
    peer = Peer(program, dds_domain)
    yield peer
    assert peer.close() == 0


@pytest.fixture(scope="module")
def participants(dds_domain: int) -> Iterator[dict[str, DomainParticipant]]:
    """By the module of the classes: a participant can have one class of a name only."""
    config = DdsConfig(domain=dds_domain, interface="127.0.0.1", multicast="off")
    acquire(config)
    made: dict[str, DomainParticipant] = {}
    yield made
    for participant in made.values():
        participant.__del__()
    release(config)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def wakeup(loop: asyncio.AbstractEventLoop, participants: dict[str, DomainParticipant]) -> Iterator[Wakeup]:
    wakeup = Wakeup(loop)
    yield wakeup
    wakeup.stop()
    wakeup.release()


CLASSES = [(STRUCTS[name], cls) for name, classes in sorted(python_classes().items()) for cls in classes]


def named(param: tuple[Struct, Any]) -> str:
    return f"{param[1].__module__}.{param[1].__name__}"


@pytest.fixture(scope="module", params=CLASSES, ids=named)
def ends(
    request: pytest.FixtureRequest,
    dds_domain: int,
    peer: Peer,
    participants: dict[str, DomainParticipant],
    loop: asyncio.AbstractEventLoop,
    wakeup: Wakeup,
) -> Ends:
    struct, cls = request.param
    if cls.__module__ not in participants:
        participants[cls.__module__] = DomainParticipant(dds_domain)
    return Ends(struct, cls, participants[cls.__module__], peer, loop, wakeup)


def variants_of(struct: Struct) -> dict[str, dict[str, Any]]:
    """Without the large one where the QoS may lose parts of it."""
    names = [name for name in VARIANTS if name != "large" or not kind_of(struct).endswith("status")]
    return {name: plain(variant(struct, name)) for name in names}


def test_c_reads_every_member_and_gives_it_back(ends: Ends) -> None:
    for value in variants_of(ends.struct).values():
        for how in ends.ways:
            ends.exchange(value, how)


def test_python_reads_every_member_that_c_wrote(ends: Ends) -> None:
    for name, value in variants_of(ends.struct).items():
        ends.peer.command("write", ends.struct, name)
        assert ends.read() == value


def values_of(struct: Struct) -> st.SearchStrategy[dict[str, Any]]:
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
    scalars: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "long": st.integers(-(2**31), 2**31 - 1),
        "long long": st.integers(-(2**63), 2**63 - 1),
        "unsigned long": st.integers(0, 2**32 - 1),
        "unsigned long long": st.integers(0, 2**64 - 1),
        "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "string": text,
    }

    def values(type_: str) -> st.SearchStrategy[Any]:
        return scalars[type_] if type_ in scalars else values_of(STRUCTS[f"{struct.module}.{type_}"])

    return st.fixed_dictionaries(
        {
            member.name: st.lists(values(member.element), max_size=5) if member.element else values(member.type)
            for member in struct.members
        }
    )


@settings(max_examples=examples(25))
@given(data=st.data())
def test_any_values_survive_the_way_to_c_and_back(ends: Ends, data: st.DataObject) -> None:
    ends.exchange(data.draw(values_of(ends.struct)), data.draw(st.sampled_from(ends.ways)))


@pytest.mark.parametrize("ends", [each for each in CLASSES if each[0].keys], ids=named, indirect=True)
def test_a_goodbye_names_the_same_instance_on_both_sides(ends: Ends) -> None:
    for name, value in variants_of(ends.struct).items():
        keys = {key: value[key] for key in ends.struct.keys}
        ends.exchange(value, "library")
        ends.dispose(value)
        said = ends.peer.shown()
        assert said["event"] == "disposed"
        assert {key: said["value"][key] for key in keys} == keys

        ends.peer.command("dispose", ends.struct, name)
        data, info = ends.take()
        assert (info.valid_data, info.instance_state) == (False, InstanceState.NotAliveDisposed)
        key = ends.cls.deserialize_key(data)
        assert {name: getattr(key, name) for name in keys} == keys
