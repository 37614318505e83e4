"""The QoS of every reader and writer: what ``qos.xml``, or a user's file over it, says of its topic."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cyclonedds.core import DDSException, Policy, Qos
from cyclonedds.util import duration

from anywire.errors import TransportUnavailable
from anywire_dds import contract, user_data
from anywire_dds.contract import PROFILES, TopicName
from anywire_dds.older_binding import qos_provider

End = Literal["datawriter_qos", "datareader_qos"]

SHIPPED = Path(__file__).with_name("qos.xml")
LIBRARY = "anywire"
_ENDS: tuple[End, End] = ("datawriter_qos", "datareader_qos")


class Profiles(NamedTuple):
    """The QoS of all topics. ``source`` is the file a user named, or empty."""

    source: str
    policies: dict[tuple[TopicName, End], tuple[Any, ...]]

    def reader(self, topic: TopicName, *more: Any) -> Qos:
        """``more`` policies replace those of the file."""
        return Qos(*merged(self.policies[topic, "datareader_qos"], more))

    def writer(self, topic: TopicName, *more: Any) -> Qos:
        return Qos(*merged(self.policies[topic, "datawriter_qos"], more))


def merged(policies: Sequence[Any], over: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(({each.__scope__: each for each in policies} | {each.__scope__: each for each in over}).values())


def profiles(path: Path | None) -> Profiles:
    """The shipped QoS, with what the file at ``path`` says of it instead. Raises `TransportUnavailable`, naming the
    file, the place in it, and what would do."""
    if path is None:
        return _shipped()
    policies = _shipped().policies | {
        place: merged(_shipped().policies[place], over) for place, over in _read(path).items()
    }
    faults = contract.faults(policies)
    if faults:
        raise TransportUnavailable(f"transports.dds.qos: {path}: " + "; ".join(faults))
    return Profiles(str(path), policies)


@functools.cache
def _shipped() -> Profiles:
    return Profiles("", _read(SHIPPED))


def _read(path: Path) -> dict[tuple[TopicName, End], tuple[Any, ...]]:
    where = f"transports.dds.qos: {path}"
    try:
        root = ET.fromstring(path.read_bytes())
    except OSError as error:
        raise TransportUnavailable(f"{where} cannot be read: {error.strerror}") from error
    except ET.ParseError as error:
        raise TransportUnavailable(f"{where} is no XML: {error}") from error
    found = list(_places(root, where))
    with _complaints() as said:
        try:
            provider = qos_provider(path)
        except DDSException as error:
            said.seek(0)
            reason = _reason(said.read().decode(errors="replace"))
            raise TransportUnavailable(f"{where}: {reason}; {SHIPPED} shows how it is written") from error
    policies: dict[tuple[TopicName, End], tuple[Any, ...]] = {}
    for topic, end in found:
        get = provider.get_datawriter_qos if end == "datawriter_qos" else provider.get_datareader_qos
        policies[topic, end] = tuple(get(f"{LIBRARY}::{PROFILES[topic]}"))
    return policies


def _places(root: ET.Element, where: str) -> Iterator[tuple[TopicName, End]]:
    """What the file says something of. A name that means nothing is an error, and not something without effect."""
    topics = {profile: topic for topic, profile in PROFILES.items()}
    libraries = [each for each in _children(root, "qos_library") if each.get("name") == LIBRARY]
    if _tag(root) != "dds" or not libraries:
        raise TransportUnavailable(f'{where}: there is no <qos_library name="{LIBRARY}"> within <dds>')
    for profile in (each for library in libraries for each in _children(library, "qos_profile")):
        name = profile.get("name", "")
        if name not in topics:
            raise TransportUnavailable(f"{where}: no topic for qos_profile {name!r}; they are {', '.join(topics)}")
        if profile.get("base_name") is not None:
            raise TransportUnavailable(
                f"{where}: qos_profile {name!r} has a base_name, which Cyclone DDS does not follow: "
                "what is not said here is as in the shipped profile; repeat the rest"
            )
        for element in profile:
            tag = _tag(element)
            if tag not in _ENDS or element.get("name") is not None:
                raise TransportUnavailable(
                    f"{where}: <{tag}> in qos_profile {name!r} would have no effect; "
                    "there may be one <datawriter_qos> and one <datareader_qos>, without a name"
                )
            yield topics[name], tag


def _children(element: ET.Element, tag: str) -> list[ET.Element]:
    return [each for each in element if _tag(each) == tag]


def _tag(element: ET.Element) -> Any:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


@contextlib.contextmanager
def _complaints() -> Iterator[Any]:
    """A file with what is written to stderr meanwhile: the library says there, and only there, what is wrong with a
    profile. Nothing else runs on the event loop in between."""
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _reason(text: str) -> str:
    lines = [line.split(": ", 1)[-1].strip() for line in text.splitlines() if "ailed during read" not in line]
    return "; ".join(line.removeprefix("Error parsing system definition XML: ") for line in lines) or "no reason given"


def participant_qos(name: str, lease_ns: int, protocol: str) -> Qos:
    """``protocol`` is the version of the messages that its ends speak, empty where they speak none. The lease belongs
    to the participant: after so long a silence, everything of the peer is forgotten, and found anew when the peer
    returns. (A writer's own lease would only mark it dead: a paused peer that went on would never register again.)"""
    policies = [Policy.EntityName(name), Policy.Liveliness.Automatic(lease_ns)]
    return Qos(*policies, *([user_data.of_participant(protocol)] if protocol else []))


def partition_qos(partition: str) -> Qos:
    return Qos(Policy.Partition([partition]))


_NAMES = (
    "Reliability",
    "Durability",
    "History",
    "Liveliness",
    "Deadline",
    "Lifespan",
    "LatencyBudget",
    "TimeBasedFilter",
    "TransportPriority",
)
_VALUES = {
    "Deadline": "deadline",
    "Lifespan": "lifespan",
    "LatencyBudget": "budget",
    "TimeBasedFilter": "filter_time",
    "Liveliness": "lease_duration",
}


def describe(qos: Qos) -> str:
    """The policies of a granted QoS as one line, without those that ask for nothing."""
    return ", ".join(text for policy in qos if policy.__scope__ in _NAMES and (text := _text(policy)))


def _text(policy: Any) -> str:
    scope: str = policy.__scope__
    if scope in _VALUES:
        nanoseconds = getattr(policy, _VALUES[scope])
        return "" if nanoseconds in (0, duration(infinite=True)) else f"{scope} {nanoseconds / 1e9:g} s"
    if scope == "TransportPriority":
        return f"{scope} {policy.priority}" if policy.priority else ""
    return str(policy).removeprefix("Policy.").partition("(max_blocking_time")[0]


def differences(asked: Qos, granted: Qos) -> list[str]:
    """Each policy that was not granted as it was asked for, with both."""
    given = {policy.__scope__: policy for policy in granted}
    return [
        f"{policy.__scope__}: asked for {policy}, granted {given.get(policy.__scope__, 'nothing')}"
        for policy in asked
        if given.get(policy.__scope__) != policy
    ]
