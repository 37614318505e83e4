"""The file with the QoS of the DDS transport: what it says is in force, and what it may not say is refused by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cyclonedds.core import Policy, Qos

from anywire.errors import TransportUnavailable
from anywire.messages import HubInfo
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import RecordingHubSink
from anywire.testing.rig import Rig
from anywire_dds import DdsConfig, DdsTransport, contract, qos

LIBRARY = '<dds>\n <qos_library name="anywire">\n{}\n </qos_library>\n</dds>'
PROFILE = '  <qos_profile name="{}">\n   {}\n  </qos_profile>'
RELIABLE = "<kind>RELIABLE_RELIABILITY_QOS</kind><max_blocking_time><sec>0</sec></max_blocking_time>"


def library(profile: str, *ends: str) -> str:
    return LIBRARY.format(PROFILE.format(profile, "\n   ".join(ends)))


def writer(policies: str) -> str:
    return f"<datawriter_qos>{policies}</datawriter_qos>"


def reader(policies: str) -> str:
    return f"<datareader_qos>{policies}</datareader_qos>"


def duration(seconds: int) -> str:
    return f"<duration><sec>{seconds}</sec></duration>"


def save(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fleet.xml"


@pytest.fixture
async def rig(dds_domain: int) -> AsyncIterator[Rig]:
    async with Rig("dds", {"domain": dds_domain}) as rig:
        yield rig


@pytest.fixture
async def warnings() -> AsyncIterator[LogRecorder]:
    with LogRecorder() as warnings:
        yield warnings


# What is shipped


def test_the_shipped_profile_keeps_the_contract_and_names_every_topic() -> None:
    shipped = qos.profiles(None)
    assert contract.faults(shipped.policies) == []
    assert {topic for topic, _ in shipped.policies} == set(contract.PROFILES)
    assert len(shipped.policies) == 2 * len(contract.PROFILES)


def test_the_shipped_file_named_by_a_user_changes_nothing() -> None:
    assert qos.profiles(qos.SHIPPED).policies == qos.profiles(None).policies


# What a user's file says


async def test_a_file_replaces_what_it_says_and_nothing_else(dds_domain: int, file: Path) -> None:
    period = "<deadline><period><sec>{}</sec></period></deadline>"
    apart = "<minimum_separation><nanosec>200000000</nanosec></minimum_separation>"
    ends = (
        writer(f"<reliability>{RELIABLE}</reliability>" + period.format(5)),
        reader(f"{period.format(9)}<time_based_filter>{apart}</time_based_filter>"),
    )
    save(file, library("status", *ends))
    transport = DdsTransport(DdsConfig(domain=dds_domain, qos=file))
    hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
    settings = transport.effective_settings()
    await hub.close()
    assert settings["qos"] == str(file)
    assert (
        settings["agent/status reader"]
        == "Deadline 9 s, Durability.Volatile, History.KeepLast(depth=1), Reliability.BestEffort, TimeBasedFilter 0.2 s"
    )
    assert "Reliability.Reliable" in settings["agent/response reader"]
    status = qos.profiles(file).writer("status")
    assert status[Policy.Reliability] == Policy.Reliability.Reliable(0)
    assert status[Policy.History] == Policy.History.KeepLast(1)
    assert status[Policy.WriterDataLifecycle].autodispose is False
    assert qos.profiles(file).writer("request") == qos.profiles(None).writer("request")


def test_other_libraries_in_the_file_are_somebody_elses(file: Path) -> None:
    other = '<qos_library name="ours"><qos_profile name="x"><topic_qos/></qos_profile></qos_library></dds>'
    file.write_text(library("status", reader("")).replace("</dds>", other))
    assert qos.profiles(file).policies == qos.profiles(None).policies


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<dds>", "is no XML: no element found: line 1"),
        ("<dds/>", 'no <qos_library name="anywire">'),
        ('<profiles><qos_library name="anywire"/></profiles>', 'no <qos_library name="anywire">'),
        (library("reqest", writer("")), "no topic for qos_profile 'reqest'; they are agent_registration, .*request"),
        (library("request", "<topic_qos/>"), "<topic_qos> in qos_profile 'request' would have no effect"),
        (library("request", '<datawriter_qos name="x"/>'), "without a name"),
        (library("request").replace('name="request"', 'name="request" base_name="a::b"'), "does not follow"),
        (library("request", writer("<histroy/>")), r"Unknown element 'histroy' .*line 4.*qos\.xml shows how"),
        (library("request", writer("<history><kind>KEEP_SOME</kind></history>")), "Invalid value 'KEEP_SOME' .*line 4"),
        (library("status", writer("<deadline><period><sec>x</sec></period></deadline>")), "Invalid value 'x' .*line 4"),
        (library("request", writer(""), writer("")), "duplicate name"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_with_the_place(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(TransportUnavailable, match=f"transports.dds.qos: {file}.*{says}"):
        qos.profiles(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(TransportUnavailable, match=f"{file} cannot be read: No such file"):
        qos.profiles(file)


def test_what_the_library_says_of_a_file_goes_into_the_error_alone(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(library("request", writer("<histroy/>")))
    with pytest.raises(TransportUnavailable):
        qos.profiles(file)
    assert capfd.readouterr() == ("", "")


def kind(policy: str, value: str) -> str:
    return f"<{policy}><kind>{value}_QOS</kind></{policy}>"


KEEP_LAST = "<history><kind>KEEP_LAST_HISTORY_QOS</kind><depth>64</depth></history>"
BEST_EFFORT = kind("reliability", "BEST_EFFORT_RELIABILITY")
VOLATILE, TRANSIENT_LOCAL = kind("durability", "VOLATILE_DURABILITY"), kind("durability", "TRANSIENT_LOCAL_DURABILITY")
EXCLUSIVE = kind("ownership", "EXCLUSIVE_OWNERSHIP")
BY_SOURCE = kind("destination_order", "BY_SOURCE_TIMESTAMP_DESTINATIONORDER")
BLOCKING = f"<reliability>{RELIABLE.replace('<sec>0', '<sec>1')}</reliability>"
BUDGET, LIFESPAN = f"<latency_budget>{duration(1)}</latency_budget>", f"<lifespan>{duration(1)}</lifespan>"
PRIORITY = "<transport_priority><value>3</value></transport_priority>"
FILTER = "<time_based_filter><minimum_separation><sec>1</sec></minimum_separation></time_based_filter>"
LIMITS = "<resource_limits><max_samples>4</max_samples></resource_limits>"
LEASE = "<liveliness><kind>AUTOMATIC_LIVELINESS_QOS</kind><lease_duration><sec>1</sec></lease_duration></liveliness>"
AUTODISPOSE = "autodispose_unregistered_instances"
DISPOSING = f"<writer_data_lifecycle><{AUTODISPOSE}>true</{AUTODISPOSE}></writer_data_lifecycle>"
MESSAGES = ("request", "control", "response", "stream")
REGISTRATIONS = ("agent_registration", "hub_registration")


def deadline(seconds: int) -> str:
    return f"<deadline><period><sec>{seconds}</sec></period></deadline>"


@pytest.mark.parametrize(
    ("profiles", "ends", "says"),
    [
        (MESSAGES, [writer(KEEP_LAST)], r"<datawriter_qos> of '{}': history: KeepLast\(depth=64\): it loses chunks"),
        (MESSAGES, [reader(KEEP_LAST)], r"<datareader_qos> of '{}': history: KeepLast\(depth=64\): it loses chunks"),
        (MESSAGES, [writer(BEST_EFFORT), reader(BEST_EFFORT)], "must be RELIABLE.*must be RELIABLE"),
        (REGISTRATIONS, [writer(BEST_EFFORT)], "a lost registration.*would not match: the reader requests RELIABLE"),
        ((*MESSAGES, *REGISTRATIONS), [writer(VOLATILE)], "must be TRANSIENT_LOCAL.*less durability"),
        (("status",), [reader(TRANSIENT_LOCAL)], "the writer offers less durability"),
        (MESSAGES, [writer(BLOCKING)], "max_blocking_time must be 0"),
        (("status",), [writer(deadline(9)), reader(deadline(5))], "a Deadline of 9 s, the reader requests 5 s"),
        (("status",), [reader(deadline(5))], "offers a Deadline of infinity"),
        (("response",), [writer(BUDGET)], "a LatencyBudget of 1 s, the reader requests 0 s"),
        (("stream",), [writer(deadline(5))], "the option `deadline`"),
        (("request",), [writer(LIFESPAN)], "the option `lifespan`"),
        (("response",), [writer(LIFESPAN)], "nobody is told"),
        (("request",), [writer(PRIORITY)], "the option `priorities`"),
        (("response",), [reader(FILTER)], "what it leaves out is lost"),
        (("status",), [writer(EXCLUSIVE)], "must be SHARED"),
        (("response",), [reader(LIMITS)], "resource_limits: "),
        (("control",), [writer(LEASE)], "set the option `lease`"),
        (REGISTRATIONS, [writer(DISPOSING)], "a death would look like a goodbye"),
        (("response",), [reader(BY_SOURCE)], "slow clock"),
    ],
)
def test_what_would_break_the_transport_is_refused_and_says_why(
    file: Path, profiles: tuple[str, ...], ends: list[str], says: str
) -> None:
    for profile in profiles:
        file.write_text(library(profile, *ends))
        with pytest.raises(TransportUnavailable, match=says.format(profile)) as caught:
            qos.profiles(file)
        assert profile in str(caught.value)


async def test_a_refused_file_opens_nothing(rig: Rig, file: Path) -> None:
    save(file, library("response", reader(KEEP_LAST)))
    with pytest.raises(TransportUnavailable, match="loses chunks"):
        await rig.hub(options={"qos": str(file)})
    await rig.hub()


# What was granted


def test_a_difference_between_asked_and_granted_is_named() -> None:
    asked = Qos(Policy.Durability.TransientLocal, Policy.History.KeepAll)
    granted = Qos(Policy.Durability.Volatile, Policy.History.KeepAll, Policy.Reliability.BestEffort)
    (difference,) = qos.differences(asked, granted)
    assert difference == "Durability: asked for Policy.Durability.TransientLocal, granted Policy.Durability.Volatile"


async def test_what_was_not_granted_is_a_finding(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qos, "differences", lambda asked, granted: ["History: asked for more, granted less"])
    transport = rig.new_transport()
    hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
    found = [what for what, _ in transport.findings()]
    await hub.close()
    assert "agent/response reader was not granted what it asked for: History: asked for more, granted less" in found


async def test_nothing_is_found_where_nothing_is_wrong(rig: Rig) -> None:
    transport = rig.new_transport()
    sink = RecordingHubSink()
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
    await rig.port("a")
    await sink.event("joined", "a")
    assert transport.findings() == []
    await hub.close()


# Peers that do not match


@pytest.mark.parametrize("where", ["one process", "two processes"])
async def test_a_peer_whose_qos_does_not_match_is_named_with_the_policy(
    rig: Rig, warnings: LogRecorder, where: str
) -> None:
    """An agent that may keep its chunks for 50 ms, and a hub that allows for no delay."""
    late = {"latency_budget": 0.05}
    transport = rig.new_transport()
    sink = RecordingHubSink()
    hub = await transport.open_hub(HubInfo("h", 1), "agent", sink)
    if where == "one process":
        await rig.port("a", options=late)
    else:
        rig.options.update(late)
        await (await rig.peer("agent", "a")).event("ready")
        rig.options.pop("latency_budget")
    try:
        # In one process the agent's end warns as well, before or after.
        told = await warnings.message("agent/response reader")
        await rig.port("b")
        await sink.event("joined", "b")
        ((what, remedy),) = transport.findings()
        assert "agent/response reader is not connected to 1 of its peers" in what
        assert "LATENCY_BUDGET" in what
        assert "compare `qos` and `latency_budget`" in remedy
        assert transport.effective_settings()["agent/response reader not matched by LATENCY_BUDGET"] == "1 peers"
        assert told == f"{what}: {remedy}"
        assert not sink.named("lost")
        assert [event[1] for event in sink.named("joined")] == ["b"]
    finally:
        await hub.close()
