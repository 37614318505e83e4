"""The conformance kit, and what is this transport's own."""

import asyncio
import contextlib
import logging
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from anywire import errors
from anywire.messages import AgentInfo, AgentStatus, Chunk, Credit, TaskRequest
from anywire.plugins import Plugins
from anywire.protocol import PROTOCOL
from anywire.testing.doubles import Script
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.peers import ProcessPeer
from anywire.testing.recorder import PATIENCE, RecordingAgentSink
from anywire.testing.rig import Rig, read, request, submit
from anywire.testing.transport_kit import TransportConformance
from anywire.transport import BUFFER_BYTES, Reply
from anywire.transport_tools import Goodbye, Unpacker, frame
from anywire_unix.transport import CODEC, Knock

# Hellos as the package sent them before they told a version.
OLD_HUB = b"\x00\x85\xa6hub_id\xa7old-hub\xabincarnation\x07\xa4host\xa4host\xa3pid\x01\xa8lease_ms\xcd\x03\xe8"
OLD_AGENT = (
    b"\x01\x8a\xa8agent_id\xa9old-agent\xabincarnation\x07\xa4host\xa4host\xa3pid\x01\xa6engine\xa9synthetic"
    b"\xaespecialization\xa0\xaccapabilities\x91\xa4chat\xa6device\xa3cpu\xa7boot_id\xa4boot\xa8lease_ms\xcd\x03\xe8"
)
OLD_STATUS = b"\x02" + msgspec.msgpack.encode(
    {"agent_id": "old-agent", "incarnation": 7, "state": "ready", "models": ["m"], "slots": 1}
)
OLD = f"{{}}: it speaks protocol version {PROTOCOL}, this end none: use one version of anywire on both"


def sockets(directory: Path) -> list[Path]:
    return list(directory.iterdir())


class TestUnix(TransportConformance):
    transport = "unix"

    @pytest.fixture
    def options(self, directory: Path) -> dict[str, Any]:
        return {"directory": str(directory)}

    @pytest.fixture
    def directory(self) -> Iterator[Path]:
        # Not pytest's own: that path may be longer than a socket's may be.
        directory = Path(tempfile.mkdtemp(prefix="anywire-"))
        yield directory
        shutil.rmtree(directory)

    async def test_what_connects_while_an_end_closes_is_closed_with_it(self, rig: Rig, directory: Path) -> None:
        for turns in range(6):
            port, _, _ = await rig.port(f"a{turns}")
            (path,) = sockets(directory)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.setblocking(False)
                peer.connect(str(path))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await port.close()
                with contextlib.suppress(ConnectionError):  # it was never accepted
                    while peer.recv(1024):  # a goodbye may come; that nothing does is an open connection
                        pass

    async def test_closed_ends_take_their_sockets_along(self, rig: Rig, directory: Path) -> None:
        port, _, _ = await rig.port("a")
        hub, sink, _ = await rig.hub()
        await sink.event("joined", "a")
        assert len(sockets(directory)) == 2
        await port.close()
        await hub.close()
        assert not sockets(directory)

    async def test_sockets_of_the_dead_are_removed(self, rig: Rig, directory: Path) -> None:
        peers = [await rig.peer(role, role) for role in ("agent", "hub")]
        await peers[1].event("chunk")
        for peer in peers:
            assert isinstance(peer, ProcessPeer)
            peer.pause()  # or the second one removes the socket of the first
        for peer in peers:
            await peer.crash()
        dead = set(sockets(directory))
        assert len(dead) == 2
        await rig.port("a")
        _, sink, _ = await rig.hub()
        await sink.event("joined", "a")
        assert {event[1] for event in sink.named("joined")} == {"a"}
        assert not dead & set(sockets(directory))

    async def test_however_many_start_at_once_each_pair_is_linked_once(self, rig: Rig) -> None:
        opened = await asyncio.gather(*(rig.hub() for _ in range(8)), *(rig.port(f"a{number}") for number in range(8)))
        hubs, ports = opened[:8], opened[8:]
        names = sorted(f"a{number}" for number in range(8))
        for _, sink, _ in hubs:
            for name in names:
                await sink.event("reported", name)
            assert sorted(event[1] for event in sink.named("joined")) == names
            assert not sink.named("lost")
        for _, sink, _ in ports:
            assert len(sink.named("hub_joined")) == 8

    async def test_a_knock_at_a_hub_that_is_connected_already_changes_nothing(self, rig: Rig, directory: Path) -> None:
        _, agent, _ = await rig.port("a", _echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        other, own = sorted(sockets(directory))  # agent.agent.… comes before agent.hub.…
        for name in (other.name, other.name, own.name, "../../etc/passwd"):
            reader, writer = await asyncio.open_unix_connection(own)
            writer.write(frame(CODEC.encode(Knock(name))))
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
        hub.send("a", request(info, "t", body="still one"))
        await sink.final("t")
        assert len(agent.named("hub_joined")) == 1
        assert not agent.named("hub_lost")
        assert not sink.named("lost")

    async def test_of_two_incarnations_alive_the_newer_counts(self, rig: Rig) -> None:
        names = [f"a{number}" for number in range(8)]
        for name in names:
            await rig.port(name)
        newer = {name: (await rig.port(name, _echo))[2] for name in names}
        hub, sink, info = await rig.hub()
        for name in names:
            await sink.event("joined", name, newer[name].incarnation)
            hub.send(name, request(info, f"to {name}"))
            await sink.final(f"to {name}")
            last = [event[:3] for event in sink.events if event[0] in ("joined", "lost") and event[1] == name][-1]
            assert last == ("joined", name, newer[name].incarnation)

    async def test_an_earlier_life_that_comes_later_is_refused_and_its_log_says_why(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, sink, _ = await rig.hub()
        ports, refused = [], asyncio.Event()

        def note(record: logging.LogRecord) -> bool:
            if "refused by" in record.msg:
                refused.set()
            return True

        caplog.handler.addFilter(note)
        for incarnation in (2, 1):
            agent = RecordingAgentSink()
            ports.append(await rig.new_transport().open_agent(AgentInfo("a", incarnation), "agent", agent))
            ports[-1].report(AgentStatus("a", incarnation))
            await sink.event("reported", "a", 2)
        await asyncio.wait_for(refused.wait(), PATIENCE)
        assert "incarnation 2, and this one is 1" in caplog.text
        assert not agent.events
        assert [event[:3] for event in sink.named("joined")] == [("joined", "a", 2)]
        assert not sink.named("lost")
        for port in ports:
            await port.close()

    async def test_more_than_the_peer_takes_ends_the_link_with_the_reason_and_it_comes_back(self, rig: Rig) -> None:
        await rig.port("a", _echo, options={"max_message_bytes": 100_000})
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "large", body="x" * 200_000))
        assert "100000" in (await sink.event("lost", "a"))[3]
        await sink.until(lambda: len(sink.named("joined")) == 2)
        hub.send("a", request(info, "small", body="fits"))
        assert (await sink.final("small")).deltas == ("fits",)

    async def test_a_paused_agent_congests_its_own_link_and_drains_when_it_goes_on(self, rig: Rig) -> None:
        paused = await rig.peer("agent", "paused", slots=100_000)
        await paused.event("ready")
        await rig.port("other", _echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "paused")
        await sink.event("joined", "other")
        paused.pause()
        body = Script(filler="x" * 100_000).body()
        numbers = iter(range(1000))

        def flood() -> None:
            for number in numbers:
                hub.send("paused", request(info, f"p{number}", body=body))

        with pytest.raises(errors.Congested, match=str(BUFFER_BYTES)):
            flood()
        sent = next(numbers) - 1
        assert sent < 100, "the write buffer and the kernel's together hold a few megabytes"
        hub.send("paused", Credit(info.hub_id, "p0", 1, 1))
        hub.send("other", request(info, "t", body="flows"))
        assert (await sink.final("t")).deltas == ("flows",)
        waiting = asyncio.create_task(hub.drain("paused"))
        paused.resume()
        await asyncio.wait_for(waiting, PATIENCE)
        for number in range(sent):
            await sink.final(f"p{number}")

    async def test_chunks_to_a_paused_hub_congest(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub = await rig.peer("hub", "h", script=Script(tag="t"))
        _, _, _, task, reply, *_ = await agent.event("task")
        hub.pause()
        chunk = Chunk(task.hub_id, task.task_id, task.attempt, 0, ("x" * 100_000,))

        def flood() -> None:
            for _ in range(1000):
                reply.send(chunk)

        with pytest.raises(errors.Congested):
            flood()
        waiting = asyncio.create_task(reply.drain())
        await hub.crash()
        await asyncio.wait_for(waiting, PATIENCE)
        await agent.event("hub_lost", "h")
        reply.send(chunk)

    async def test_a_hub_from_before_versions_were_told_is_refused_by_name(self, rig: Rig, directory: Path) -> None:
        _, agent, _ = await rig.port("a")
        with LogRecorder() as logged:
            reader, writer = await asyncio.open_unix_connection(sockets(directory)[0])
            writer.write(frame(OLD_HUB))
            said = await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            await logged.message("hub old-hub", "no protocol version that can be read")
        assert [CODEC.decode(each) for each in Unpacker(1000).feed(said)] == [Goodbye(OLD.format("agent a"), True)]
        assert not agent.events

    async def test_an_agent_from_before_versions_were_told_is_refused_by_name(self, rig: Rig, directory: Path) -> None:
        said: list[Any] = []
        refused = asyncio.Event()

        async def old_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(OLD_AGENT) + frame(OLD_STATUS))
            said[:] = [CODEC.decode(each) for each in Unpacker(1000).feed(await reader.read())]
            writer.close()
            refused.set()

        server = await asyncio.start_unix_server(old_agent, directory / "agent.agent.0123456789ab")
        with LogRecorder() as logged:
            _, sink, _ = await rig.hub("h")
            await asyncio.wait_for(refused.wait(), PATIENCE)
            await logged.message("agent old-agent", "no protocol version that can be read")
        assert (said[0].hub_id, said[0].protocol) == ("h", PROTOCOL)
        assert said[1:] == [Goodbye(OLD.format("hub h"), True)]
        assert not sink.events
        server.close()

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "1195725856 bytes.*max_message_bytes"),
            (b"\0\0\0\2\0\xc1", "not a message"),
            (b"\0\0\0\2\x63x", "kind"),
            (b"\0\0\0\4\4\x93\x01\x02", "not a message"),
            (frame(CODEC.encode(Credit("h", "t", 1, 1))), "has not joined"),
        ],
    )
    async def test_nonsense_is_cut_off_and_disturbs_nobody(
        self, rig: Rig, directory: Path, sent: bytes, reason: str
    ) -> None:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        for path in sockets(directory):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(sent)
            (answer,) = Unpacker(1024).feed(await asyncio.wait_for(reader.read(), PATIENCE))
            assert re.search(reason, CODEC.decode(answer).reason)
            writer.close()
        assert await read(submit(pipeline, Script(tag="t", chunks=3))) == Script(tag="t", chunks=3).text()

    async def test_text_that_is_no_unicode_is_an_error_of_the_framework(self, rig: Rig) -> None:
        await rig.port("a", _echo)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        with pytest.raises(errors.TransportError, match="Unicode") as caught:
            hub.send("a", request(info, "t1", body="\ud800"))
        assert isinstance(caught.value.__cause__, UnicodeEncodeError)
        hub.send("a", request(info, "t2", body="fine"))
        assert (await sink.final("t2")).deltas == ("fine",)

    async def test_a_status_that_cannot_be_sent_breaks_nothing(self, rig: Rig) -> None:
        port, _, agent = await rig.port("a")
        _, sink, _ = await rig.hub()
        await sink.event("joined", "a")
        port.report(AgentStatus("a", agent.incarnation, "failed", detail="\ud800"))
        port.report(AgentStatus("a", agent.incarnation, "failed", detail="readable"))
        await sink.until(lambda: sink.events[-1][-1].detail == "readable")
        assert not sink.named("lost")

    async def test_a_directory_that_will_not_do_is_named(self, rig: Rig, directory: Path) -> None:
        with pytest.raises(errors.ConfigError, match="bytes"):
            Plugins().create("transports", "unix", {"directory": f"/tmp/{'x' * 100}"})
        (directory / "file").touch()
        open_to_all = directory / "open"
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        for wrong in (directory / "file", open_to_all):
            with pytest.raises(errors.TransportUnavailable, match=rf"{wrong}.*transports\.unix\.directory"):
                await rig.hub(options={"directory": str(wrong)})


def _echo(task: TaskRequest, reply: Reply) -> None:
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))
