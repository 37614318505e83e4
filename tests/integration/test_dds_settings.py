"""Options of the DDS transport: what is refused and how it says so, and what is in force in the end."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedds.core import DDSException
from tests.integration.emulated_hosts import emulated_hosts, needs_hosts

import reserved
from anywire.errors import AnywireError, ConfigError, TransportError, TransportUnavailable
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.plugins import Plugins
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire.testing.rig import Rig
from anywire_dds import DdsConfig, DdsTransport
from anywire_dds.config import LARGEST_DATAGRAM
from anywire_dds.faults import FAULTS, mapped
from anywire_experiment.network.hosts import run_on

CHOOSE = "auto"
"""The `interface` that Cyclone is to choose."""


@pytest.fixture
def dds_domain() -> Iterator[int]:
    """Of each test its own: a domain that is open in this process has its settings already."""
    with reserved.dds_domain() as domain:
        yield domain


@pytest.fixture
def domain(dds_domain: int) -> int:
    return dds_domain


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"domain": 9999}, r"transports\.dds\.domain: .*230.*9999"),
        ({"domian": 1}, "unknown key 'transports.dds.domian': did you mean 'domain'"),
        ({"fleet": "a/b"}, "fleet"),
        ({"fleet": "*"}, "fleet"),
        ({"lease": 0}, "lease"),
        ({"interface": ""}, "name an interface, or `auto`"),
        ({"multicast": "maybe"}, "multicast"),
        ({"participants_per_host": 121}, "participants_per_host"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Plugins().create("transports", "dds", options)


def test_nothing_is_opened_before_it_is_asked_for() -> None:
    threads = threading.active_count()
    Plugins().create("transports", "dds", {"interface": "nosuch0"})
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("interface", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("lo", True),
     ("auto", False), ("eth0", False), ("192.0.2.254", False), ("localhost.example", False)],
)  # fmt: skip
def test_only_a_loopback_interface_is_local(monkeypatch: pytest.MonkeyPatch, interface: str, local: bool) -> None:
    monkeypatch.delenv("CYCLONEDDS_URI", raising=False)
    transport = DdsTransport(DdsConfig(interface=interface))
    assert transport.is_local is local
    monkeypatch.setenv("CYCLONEDDS_URI", "<CycloneDDS/>")  # it may name more interfaces
    assert not transport.is_local


async def opened(config: DdsConfig) -> Any:
    return await DdsTransport(config).open_hub(HubInfo("h", 1), "agent", RecordingHubSink())


@pytest.mark.parametrize("interface", ["nosuch0", "192.0.2.254"])
async def test_an_interface_that_is_not_there(domain: int, interface: str) -> None:
    with pytest.raises(TransportUnavailable, match=f"{interface}: does not match.*check `interface`") as caught:
        await opened(DdsConfig(domain=domain, interface=interface))
    assert isinstance(caught.value.__cause__, DDSException)


@pytest.mark.parametrize("peer", ["x" * 64, f"{'x' * 64}:7410"])  # too long for a name: no server is asked
async def test_a_peer_without_an_address_is_named(domain: int, peer: str) -> None:
    with pytest.raises(TransportUnavailable, match=f"'{peer}' of `peers` has no address"):
        await opened(DdsConfig(domain=domain, multicast="off", peers=["127.0.0.1", peer]))
    hub = await opened(DdsConfig(domain=domain, multicast="off", peers=["127.0.0.1", "localhost:7410"]))
    await hub.close()


async def test_a_failed_opening_leaves_nothing_and_blocks_nothing(domain: int) -> None:
    def held() -> list[str]:
        gc.collect()
        return sorted(str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())

    with pytest.raises(TransportUnavailable):
        await opened(DdsConfig(domain=domain, interface="nosuch0"))
    before = len(held())
    with pytest.raises(TransportUnavailable):
        await opened(DdsConfig(domain=domain, interface="nosuch0"))
    assert len(held()) == before
    hub = await opened(DdsConfig(domain=domain))
    await hub.close()


async def test_more_processes_than_there_are_indices(domain: int) -> None:
    """An index is a pair of ports; here somebody else has taken the only pair."""
    import socket

    ports = [7400 + 250 * domain + 10, 7400 + 250 * domain + 11]
    taken = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
    try:
        for each, port in zip(taken, ports, strict=True):
            each.bind(("0.0.0.0", port))
        with pytest.raises(TransportUnavailable, match="raise `participants_per_host`"):
            await opened(DdsConfig(domain=domain, multicast="off", participants_per_host=1))
    finally:
        for each in taken:
            each.close()
    hub = await opened(DdsConfig(domain=domain, multicast="off", participants_per_host=1))
    await hub.close()


async def test_two_transports_of_one_process_must_agree_on_the_domain(domain: int) -> None:
    hub = await opened(DdsConfig(domain=domain))
    try:
        with pytest.raises(TransportUnavailable, match="open in this process with other settings"):
            await opened(DdsConfig(domain=domain, multicast="off"))
        second = await opened(DdsConfig(domain=domain, fleet="another", lease=3))
        await second.close()
    finally:
        await hub.close()
    again = await opened(DdsConfig(domain=domain, multicast="off"))
    await again.close()


async def test_a_domain_opened_by_other_code_of_the_process(domain: int) -> None:
    from cyclonedds.domain import Domain

    theirs = Domain(domain, "<CycloneDDS/>")
    try:
        with pytest.raises(TransportUnavailable, match="by other code"):
            await opened(DdsConfig(domain=domain))
    finally:
        theirs.__del__()


async def test_cyclonedds_uri_counts_beside_the_options(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "<CycloneDDS><Domain><General><AllowMulticast>spdp</AllowMulticast></General></Domain></CycloneDDS>"
    monkeypatch.setenv("CYCLONEDDS_URI", uri)
    for options, expected in (({}, "spdp"), ({"multicast": "off"}, "false")):
        transport = DdsTransport(DdsConfig(domain=domain, **options))
        hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
        assert transport.effective_settings()["multicast"] == expected
        await hub.close()


EXISTING = """<?xml version="1.0" encoding="UTF-8" ?>
<CycloneDDS xmlns="https://cdds.io/config" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
            xsi:schemaLocation="https://cdds.io/config https://example.org/cyclonedds.xsd">
  <Domain Id="any">
    <General>
      <!-- <Interfaces><NetworkInterface name="eth7"/></Interfaces> -->
      <Interfaces><NetworkInterface name="lo" multicast="default"/></Interfaces>
      <AllowMulticast>spdp</AllowMulticast>
    </General>
  </Domain>
</CycloneDDS>
"""
"""As set-ups of other Cyclone DDS programs export it."""


@pytest.mark.parametrize("form", ["file://{}", "{}"])
@pytest.mark.parametrize("interface", [None, "lo", "127.0.0.1"])
async def test_a_file_that_others_export_counts(
    domain: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, interface: str | None
) -> None:
    """With its namespace, and with an interface that the options may name too."""
    file = tmp_path / "cyclonedds.xml"
    file.write_text(EXISTING)
    monkeypatch.setenv("CYCLONEDDS_URI", form.format(file))
    options = {} if interface is None else {"interface": interface}
    transport = DdsTransport(DdsConfig(domain=domain, **options))
    hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
    settings = transport.effective_settings()
    assert settings["multicast"] == "spdp"
    assert settings["interfaces"].startswith("lo ")
    assert settings["datagram_bytes"] == str(LARGEST_DATAGRAM)
    await hub.close()


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        (EXISTING, {"interface": "eth7"}, "CYCLONEDDS_URI selects the network interface lo, .*`interface` .'eth7'"),
        ("file:///nowhere/cyclonedds.xml", {}, "CYCLONEDDS_URI names /nowhere/cyclonedds.xml, which cannot be read"),
        ('<CycloneDDS><Domain Id="231"/></CycloneDDS>', {}, "took nothing from it"),
        (EXISTING.replace('"lo"', '"nosuch0"'), {}, "nosuch0: does not match.*interface that CYCLONEDDS_URI selects"),
    ],
)
async def test_a_cyclonedds_uri_that_cannot_count_is_told(
    domain: int, monkeypatch: pytest.MonkeyPatch, uri: str, options: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("CYCLONEDDS_URI", uri)
    with pytest.raises(TransportUnavailable, match=says):
        await opened(DdsConfig(domain=domain, **options))
    monkeypatch.delenv("CYCLONEDDS_URI")
    hub = await opened(DdsConfig(domain=domain))
    await hub.close()


@pytest.mark.parametrize(("yaml", "expected"), [(False, "off"), (True, "on")])
def test_yaml_without_quotes_means_what_it_says(yaml: bool, expected: str) -> None:
    """``multicast: off`` is false to YAML."""
    assert DdsConfig.model_validate({"multicast": yaml}).multicast == expected


@needs_hosts
async def test_what_was_chosen_without_being_asked_is_told(tmp_path: Path) -> None:
    code = (
        "import asyncio, logging, sys; from anywire_dds.domain import acquire, release; "
        "from anywire_dds import DdsConfig; logging.basicConfig(); "
        "config = DdsConfig.model_validate(eval(sys.argv[1])); acquire(config); release(config)"
    )
    async with emulated_hosts(tmp_path) as two:
        host = two.hosts.agents
        await run_on(host, "ip", "link", "add", "second", "type", "veth", "peer", "name", "other")
        await run_on(host, "ip", "address", "add", "10.99.0.1/24", "dev", "second")
        for device in ("second", "other"):
            await run_on(host, "ip", "link", "set", device, "up")
        chosen = await two.run(host, "-c", code, f"{{'interface': {CHOOSE!r}}}")
        said = await chosen.logs("uses the network interface", "chose arbitrarily from", "`interface`")
        assert host.interface in said
        alone = await two.run(host, "-c", code, f"{{'interface': {host.interface!r}, 'multicast': 'off'}}")
        await alone.logs("has multicast off and no `peers`")
        for options in (
            {"interface": "lo", "multicast": "off"},
            {"interface": host.interface, "multicast": "off", "peers": ["10.78.0.1"]},
        ):
            quiet = await two.run(host, "-c", code, repr(options))
            await quiet.done()
            assert not [line for line in quiet.log if "peers" in line or "arbitrarily from" in line]


@pytest.mark.parametrize(
    "options",
    [
        {"multicast": "off"},
        {"multicast": "off", "interface": "127.0.0.1"},
        {"interface": "lo"},
        {"multicast": "discovery"},
        {"multicast": "off", "peers": ["127.0.0.1", "localhost"]},
    ],
    ids=str,
)
async def test_processes_find_each_other_on_every_kind_of_network(domain: int, options: dict[str, Any]) -> None:
    async with Rig("dds", {"domain": domain, **options}) as rig:
        agent = await rig.peer("agent", "a")
        await agent.event("ready")
        _, sink, _ = await rig.hub()
        await sink.event("joined", "a")


async def test_effective_settings_are_what_cyclone_says(domain: int) -> None:
    transport = DdsTransport(DdsConfig(domain=domain, lease=0.7, interface="lo", fleet="blue"))
    sink = RecordingHubSink()
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
    port = await transport.open_agent(AgentInfo("a", 1), "agent", RecordingAgentSink())
    port.report(AgentStatus("a", 1))
    joined = (await sink.event("joined", "a"))[3]
    settings = transport.effective_settings()
    await port.close()
    await hub.close()
    assert joined.lease_ms == 700
    assert settings["domain"] == str(domain)
    assert settings["fleet"] == "blue"
    assert settings["agent/lease"] == "0.7 s"
    assert settings["interfaces"].startswith("lo ")
    for topic in ("request writer", "response reader", "response writer", "control writer"):
        assert "KeepAll" in settings[f"agent/{topic}"]
        assert "Reliable" in settings[f"agent/{topic}"]
    assert "BestEffort" in settings["agent/status writer"]
    assert "TransientLocal" in settings["agent/register writer"]
    assert transport.effective_settings() == settings, "still told after the end, for the record"


def test_every_return_code_of_the_library_has_its_error() -> None:
    codes = {value for name, value in vars(DDSException).items() if name.startswith("DDS_RETCODE_") and value}
    assert codes == set(FAULTS)
    for code in (*codes, -99):
        fault = DDSException(code)
        error = mapped(fault, "doing this")
        assert isinstance(error, TransportError)
        assert isinstance(error, AnywireError)
        assert str(error).startswith("doing this failed: ")
        assert isinstance(mapped(fault, "doing this", opening=True), TransportUnavailable)
    assert os.environ.get("CYCLONEDDS_URI") is None
