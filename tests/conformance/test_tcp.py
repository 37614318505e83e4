"""The conformance kit over TCP and over Unix sockets, and what is this transport's own."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.long_form import in_the_long_form_alone

import reserved
from anywire import errors
from anywire.builtin.tcp import TcpConfig, TcpTransport
from anywire.builtin.tcp.channel import TcpChannel
from anywire.builtin.tcp.config import endpoint_of, is_local
from anywire.builtin.tcp.transport import TcpHub
from anywire.identity import hub_info
from anywire.messages import Chunk, Credit, TaskRequest
from anywire.plugins import Plugins
from anywire.testing.doubles import Script
from anywire.testing.kit.clients import ClientTests
from anywire.testing.kit.deaths import DeathTests
from anywire.testing.kit.fields import FieldTests
from anywire.testing.kit.forgeries import ForgeryTests
from anywire.testing.kit.pauses import PauseTests
from anywire.testing.kit.pressure import PressureTests
from anywire.testing.kit.progress import ProgressTests
from anywire.testing.kit.rogues import RogueTests
from anywire.testing.kit.versions import VersionTests
from anywire.testing.recorder import PATIENCE, RecordingHubSink
from anywire.testing.rig import Rig, read, request, submit
from anywire.testing.transport_kit import TransportConformance
from anywire.transport import Reply
from anywire.transport_tools import Codec, Unpacker, frame

CODEC = Codec()


def _echo(task: TaskRequest, reply: Reply) -> None:
    reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))


class TestTcp(TransportConformance):
    transport = "tcp"

    @pytest.fixture
    def options(self, options_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return options_of("tcp")

    async def test_of_two_addresses_that_lead_to_one_hub_one_is_the_link(self, rig: Rig) -> None:
        hub, sink, info = await rig.hub()
        port = int(rig.options["agent_addresses"][0].rpartition(":")[2])
        both = [f"tcp://127.0.0.1:{port}", f"tcp://localhost:{port}"]
        _, agent, _ = await rig.port("a", _echo, options={"agent_addresses": both})
        await sink.event("reported", "a")
        for number in range(20):
            hub.send("a", request(info, f"t{number}", body="x"))
            await sink.final(f"t{number}")
        assert len(agent.named("hub_joined")) == 1
        assert not agent.named("hub_lost")
        assert not sink.named("lost")

    async def test_whoever_comes_second_takes_the_next_address_and_agents_serve_both(self, rig: Rig) -> None:
        hubs = [await rig.hub(f"h{number}") for number in range(2)]
        await rig.port("a", _echo)
        for hub, sink, info in hubs:
            await sink.event("joined", "a")
            hub.send("a", request(info, "t", body="x"))
            await sink.final("t")

    async def test_that_no_address_is_free_is_said_with_each(self, rig: Rig) -> None:
        taken = reserved.free_ports(1)[0]
        with (
            socket.create_server(("127.0.0.1", taken)),
            pytest.raises(errors.TransportUnavailable, match=rf"{taken}: in use.*transports\.tcp\.agent_addresses"),
        ):
            await rig.hub(options={"agent_addresses": [f"tcp://127.0.0.1:{taken}"]})

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "1195725856 bytes.*max_message_bytes"),
            ((300_000).to_bytes(4, "big") + b"\1" * 1000, "300000 bytes.*1 to 262144"),
            (b"\0\0\0\2\0\xc1", "not a message"),
            (b"\0\0\0\2\x63x", "kind"),
            (frame(CODEC.encode(Credit("h", "t", 1, 1))), "has not joined"),
        ],
    )
    async def test_nonsense_is_cut_off_and_disturbs_nobody(self, rig: Rig, sent: bytes, reason: str) -> None:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        port = int(rig.options["agent_addresses"][0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        *_, answer = Unpacker(4096).feed(await asyncio.wait_for(reader.read(), PATIENCE))
        assert re.search(reason, CODEC.decode(answer).reason)
        writer.close()
        assert await read(submit(pipeline, Script(tag="t", chunks=3))) == Script(tag="t", chunks=3).text()


class TestTcpOverUnixSockets(TransportConformance):
    transport = "tcp"

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        addresses = [f"unix://{tmp_path}/{number}" for number in range(5)]
        return {"agent_addresses": addresses[:3], "client_addresses": addresses[3:]}

    async def test_a_socket_is_its_users_alone_and_goes_with_its_end(self, rig: Rig, tmp_path: Path) -> None:
        hub, _, _ = await rig.hub()
        assert stat.S_IMODE((tmp_path / "0").stat().st_mode) == 0o600
        await hub.close()
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240

    async def test_the_socket_of_the_dead_is_taken_over_that_of_the_living_is_not(
        self, rig: Rig, tmp_path: Path
    ) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "0"))
            dead.listen()
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(tmp_path / "1"))
            alive.listen()
            only = {"agent_addresses": [f"unix://{tmp_path}/1"]}
            with pytest.raises(errors.TransportUnavailable, match="in use by another process"):
                await rig.hub(options=only)
            await rig.hub()
        assert (tmp_path / "0").exists()

    async def test_a_file_that_is_no_socket_is_left_alone(self, rig: Rig, tmp_path: Path) -> None:
        (tmp_path / "0").write_text("of somebody")
        with pytest.raises(errors.TransportUnavailable, match="no socket"):
            await rig.hub(options={"agent_addresses": [f"unix://{tmp_path}/0"]})
        assert (tmp_path / "0").read_text() == "of somebody"


# What is the same once a link stands, whatever it runs over: `TestTcp` has it.
in_the_long_form_alone(
    TestTcpOverUnixSockets,
    ClientTests,
    DeathTests,
    FieldTests,
    ForgeryTests,
    PauseTests,
    PressureTests,
    ProgressTests,
    RogueTests,
    VersionTests,
)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1:1", "no address"),
        ("tcp://:1", "no address"),
        ("tcp://h", "no address"),
        ("tcp://h:1/path", "no address"),
        ("tcp://h:65536", "up to 65535"),
        ("tcp://h:x", "up to 65535"),
        ("tcp://h:١", "up to 65535"),
        ("unix://relative", "whole path"),
        ("unix:///" + "x" * 103, "103 bytes"),
        ("unix:///a\0b", "whole path"),
        ("ipc:///x", "no address"),
    ],
)
def test_an_address_that_cannot_work_is_refused_by_name(address: str, what: str) -> None:
    with pytest.raises(errors.ConfigError, match=rf"agent_addresses.*{what}"):
        Plugins().create("transports", "tcp", {"agent_addresses": [address]})


@given(st.text())
def test_whatever_is_no_address_is_a_value_error(text: str) -> None:
    try:
        found = endpoint_of(text)
    except ValueError:
        return
    assert found.path or found.host


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True),
        ("unix:///x", True),
        ("tcp://0.0.0.0:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://elsewhere:1", False),
    ],
)
def test_who_can_reach_it(address: str, local: bool) -> None:
    assert is_local(address) is local
    transport = TcpTransport(TcpConfig(agent_addresses=[address]))
    assert transport.is_local is local
    assert transport.takes_any_agent is not local
    assert transport.keeps_clients_local


@pytest.mark.parametrize("address", ["tcp://::1:5570", "tcp://:::0", "tcp://[::1:5570", "tcp://::1]:5570"])
def test_an_ipv6_address_without_brackets_is_refused(address: str) -> None:
    """Which of its colons is that of the port, others that are told of it would not know."""
    with pytest.raises(ValueError, match="in brackets"):
        endpoint_of(address)


def test_one_address_may_stand_for_a_list() -> None:
    assert TcpConfig(agent_addresses="tcp://h:1").agent_addresses == ["tcp://h:1"]
    with pytest.raises(pydantic.ValidationError):
        TcpConfig(agent_addresses=[])


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has this option")
async def test_the_kernel_watches_the_network_of_each_connection() -> None:
    transport = TcpTransport(TcpConfig(agent_addresses=["tcp://127.0.0.1:0"]))
    hub = await transport.open_hub(hub_info(lease=2.0), "agent", RecordingHubSink())
    assert isinstance(hub, TcpHub)
    port = int(transport.meeting_options("127.0.0.1")["agent_addresses"][0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(reader.read(1), PATIENCE)
    (channel,) = hub.channels
    assert isinstance(channel, TcpChannel)
    assert channel._transport is not None
    connection = channel._transport.get_extra_info("socket")
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    writer.close()
    await hub.close()


async def test_that_others_may_read_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    transport = TcpTransport(TcpConfig(agent_addresses=["tcp://0.0.0.0:0"]))
    with caplog.at_level(logging.WARNING):
        hub = await transport.open_hub(hub_info(), "agent", RecordingHubSink())
    await hub.close()
    assert "neither encryption nor keys" in caplog.text
    assert transport.meeting_options("10.0.0.7")["agent_addresses"][0].startswith("tcp://10.0.0.7:")
