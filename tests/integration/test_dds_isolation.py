"""Who sees whom over DDS: fleets of one domain, domains, hosts without multicast, and the policies that see to it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from anywire import errors
from anywire.errors import TransportUnavailable
from anywire.messages import HubInfo, TaskRequest
from anywire.testing.doubles import Script
from anywire.testing.recorder import Recorder, RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig, read, submit
from anywire_dds import DdsConfig, DdsTransport, shared_memory
from anywire_dds.config import settings_xml
from anywire_dds.endpoints import Endpoints
from anywire_dds.hello import Hello, request_hello

AGENTS = 3
TASKS = 12


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


@pytest.mark.parametrize("apart", ["fleet", "domain"])
async def test_two_fleets_never_see_each_other_on_either_plane(
    dds_domain: int, other_dds_domain: int, apart: str
) -> None:
    """Each with an orchestrator, agents of the same names, a client and real tasks on both planes."""
    one = {"domain": dds_domain}
    two = one | {"fleet": "two"} if apart == "fleet" else {"domain": other_dds_domain}
    async with Rig("dds", one) as first, Rig("dds", two) as second:
        engines: dict[Rig, list[Recorder]] = {}
        for rig in (first, second):
            engines[rig] = [(await rig.agent(f"a{number}"))[1] for number in range(AGENTS)]
        for rig, tag in ((first, "one"), (second, "two")):
            pipeline = await rig.pipeline(*(f"a{number}" for number in range(AGENTS)))
            await rig.fleet(pipeline, "client")
            client = await rig.client()
            answers = [submit(pipeline, Script(tag=tag, chunks=3)) for _ in range(TASKS)]
            assert [await read(each) for each in answers] == [Script(tag=tag, chunks=3).text()] * TASKS
            stream = submit(client, Script(tag=f"client of {tag}", chunks=3))  # type: ignore[arg-type]
            assert await read(stream) == Script(tag=f"client of {tag}", chunks=3).text()
            assert len(pipeline.agents()) == AGENTS
        for rig, tag in ((first, "one"), (second, "two")):
            begun = [event[1] for engine in engines[rig] for event in engine.named("started")]
            assert sorted(begun) == sorted([tag] * TASKS + [f"client of {tag}"])


async def test_only_the_own_fleets_agents_and_hubs_are_ever_told_of(rig: Rig) -> None:
    sinks: dict[str, tuple[RecordingHubSink, RecordingAgentSink]] = {}
    for fleet in ("one", "two"):
        _, agent, _ = await rig.port(f"agent of {fleet}", options={"fleet": fleet})
        _, sink, _ = await rig.hub(f"hub of {fleet}", options={"fleet": fleet})
        sinks[fleet] = sink, agent
    # Whoever came first has had the time to see whoever came last: both have seen a third that came after.
    for fleet, (sink, agent) in sinks.items():
        await rig.port(f"last of {fleet}", options={"fleet": fleet})
        await sink.event("joined", f"last of {fleet}")
        await agent.event("hub_joined", f"hub of {fleet}")
    for fleet, (sink, agent) in sinks.items():
        assert {event[1] for event in sink.named("joined")} == {f"agent of {fleet}", f"last of {fleet}"}
        assert {event[1] for event in agent.named("hub_joined")} == {f"hub of {fleet}"}


# What the default policies do


async def test_what_is_written_before_its_reader_has_matched_arrives(rig: Rig) -> None:
    """TRANSIENT_LOCAL of messages, on which the first HELLO of a link relies."""
    arrived = Recorder()
    config = DdsConfig(**rig.options)
    early, late = Endpoints(config, "agent", 1000), Endpoints(config, "agent", 1000)
    hello = request_hello(Hello("early", 1, 1), 0)
    early.writer("request", "there").write(hello)

    def take() -> None:
        for data, sample in taken():
            if sample.valid_data:
                arrived.add("sample", data)

    taken = late.read("request", "there", take)
    await arrived.event("sample", hello)
    await early.close()
    await late.close()


async def test_an_agent_that_was_there_before_its_hub_is_found(rig: Rig) -> None:
    """TRANSIENT_LOCAL of registrations: they are written once."""
    agent = await rig.peer("agent", "early", lease=30.0)
    await agent.event("ready")
    for _ in range(3):
        hub, sink, _ = await rig.hub()
        await sink.event("joined", "early")
        await hub.close()


# Where multicast is missing


async def test_without_multicast_peers_are_found_and_nothing_is_sent_to_a_group(rig: Rig) -> None:
    rig.options |= {"multicast": "off", "interface": "lo"}
    agent = await rig.peer("agent", "a")
    await agent.event("ready")
    transport = rig.new_transport()
    sink = RecordingHubSink()
    with _Capture() as packets:
        hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
        await sink.event("joined", "a")
        settings = transport.effective_settings()
        await hub.close()
        reached = {to for to, _ in _packets(packets, rig.options["domain"])}
    assert settings["multicast"] == "false"
    assert reached == {"127.0.0.1"}


# What a transport priority does not do


async def test_cyclone_does_not_mark_the_packets_of_a_priority(rig: Rig) -> None:
    """As the documentation says; should a release of Cyclone map it to DSCP, that must change."""
    rig.options |= {"multicast": "off", "interface": "lo"}
    agent = await rig.peer("agent", "a")
    await agent.event("ready")
    hub, sink, info = await rig.hub(options={"priorities": [40]})
    await sink.event("joined", "a")
    with _Capture() as packets:
        for number in range(10):
            body = Script(tag=f"t{number}").body()
            hub.send("a", TaskRequest(info.hub_id, f"t{number}", 1, "chat", "scripted", body, priority=40, credit=9))
            await sink.final(f"t{number}")
        marks = {tos for _, tos in _packets(packets, rig.options["domain"])}
    assert marks == {0}


class _Capture:
    """A raw socket that has seen what went over the loopback interface meanwhile."""

    def __enter__(self) -> socket.socket:
        if os.geteuid() != 0:
            pytest.skip("missing: root, to capture packets")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
        self._socket.bind(("lo", 0x0800))
        self._socket.setblocking(False)
        return self._socket

    def __exit__(self, *failure: object) -> None:
        self._socket.close()


def _packets(captured: socket.socket, domain: int) -> list[tuple[str, int]]:
    """Of each UDP packet to a port of the domain: where to, and its type of service."""
    ports = range(7400 + 250 * domain, 7650 + 250 * domain)
    found: list[tuple[str, int]] = []
    while True:
        try:
            packet = captured.recv(65536)
        except BlockingIOError:
            return found
        header = (packet[0] & 15) * 4
        if packet[9] == socket.IPPROTO_UDP and len(packet) >= header + 4:
            port = struct.unpack_from("!H", packet, header + 2)[0]
            if port in ports:
                found.append((socket.inet_ntoa(packet[16:20]), packet[1]))


# Shared memory


async def test_shared_memory_that_is_not_there_is_refused_or_done_without(
    dds_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "why_not", lambda: "libpsmx_iox.so is not there")
    with pytest.raises(TransportUnavailable, match=r"not available, because libpsmx_iox\.so .*ENABLE_ICEORYX.*off"):
        await DdsTransport(DdsConfig(domain=dds_domain, shared_memory="on")).open_hub(
            HubInfo("h", 1), "agent", RecordingHubSink()
        )
    for setting, told in (("auto", "not available: libpsmx_iox.so is not there"), ("off", "off")):
        transport = DdsTransport(DdsConfig(domain=dds_domain, shared_memory=setting))
        sink = RecordingHubSink()
        hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
        assert transport.effective_settings()["shared memory"] == told
        await hub.close()


@pytest.mark.parametrize("there", [True, False])
async def test_dds_security_that_is_not_there_is_refused(dds_domain: int, tmp_path: Path, there: bool) -> None:
    """With the wheel, and with plugins for which there are no files."""
    files = ("identity_ca", "certificate", "private_key", "permissions_ca", "governance", "permissions")
    options: dict[str, Any] = {name: tmp_path / name for name in files}
    if there:
        options["plugins"] = tmp_path
        for name in ("auth", "crypto", "ac"):
            (tmp_path / f"libdds_security_{name}.so").touch()
    reason = "there is no file .*identity_ca" if there else r"not available, because .* \(libdds_security_auth"
    transport = DdsTransport(DdsConfig.model_validate({"domain": dds_domain, "security": options}))
    with pytest.raises(TransportUnavailable, match=reason):
        await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())


async def test_where_the_plugin_is_there_cyclone_is_told_to_load_it(
    dds_domain: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That it looks for it by that name shows that it took the configuration; there is none to be found here."""
    if not shared_memory.why_not():
        pytest.skip("the plugin is installed: whether it starts depends on iox-roudi")
    monkeypatch.setattr(shared_memory, "why_not", lambda: "")
    with pytest.raises(errors.TransportUnavailable, match="psmx_iox"):
        await DdsTransport(DdsConfig(domain=dds_domain, shared_memory="on")).open_hub(
            HubInfo("h", 1), "agent", RecordingHubSink()
        )
    assert "psmx" not in settings_xml(DdsConfig(shared_memory="on"))
