"""What a QoS profile may not say: with what the transport would lose messages, stand still, or not connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from cyclonedds.core import Policy
from cyclonedds.util import duration

TopicName = Literal["register", "hub", "status", "request", "control", "response", "stream"]

PROFILES: dict[TopicName, str] = {
    "register": "agent_registration",
    "hub": "hub_registration",
    "status": "status",
    "request": "request",
    "control": "control",
    "response": "response",
    "stream": "stream",
}
"""The names of the profiles in the file. (``register`` is no identifier there: it is a word of C.)"""

_INFINITE: int = duration(infinite=True)
_ANNOUNCEMENTS = ("register", "hub")
_MESSAGES = ("request", "control", "response", "stream")
_ALL = (*_ANNOUNCEMENTS, "status", *_MESSAGES)
_BOTH = ("datawriter_qos", "datareader_qos")
_WRITER = ("datawriter_qos",)
_READER = ("datareader_qos",)


class Rule(NamedTuple):
    """Of these topics and ends ``scope`` must satisfy ``holds``; else ``why`` it must not be, and what would do."""

    topics: tuple[str, ...]
    ends: tuple[str, ...]
    scope: str
    holds: Callable[[Any], bool]
    why: str


_RELIABLE = Policy.Reliability.Reliable
_RULES = (
    Rule(
        _MESSAGES, _BOTH, "Reliability", lambda p: isinstance(p, _RELIABLE),
        "a lost message would leave a gap in an answer: it must be RELIABLE_RELIABILITY_QOS",
    ),
    Rule(
        _ANNOUNCEMENTS, _BOTH, "Reliability", lambda p: isinstance(p, _RELIABLE),
        "a lost registration is not repeated: it must be RELIABLE_RELIABILITY_QOS",
    ),
    Rule(
        _ALL, _WRITER, "Reliability", lambda p: not isinstance(p, _RELIABLE) or p.max_blocking_time == 0,
        "a slow reader would stop the whole process for so long: max_blocking_time must be 0",
    ),
    Rule(
        _MESSAGES, _BOTH, "History", lambda p: p == Policy.History.KeepAll,
        "it loses chunks that come faster than they are read: it must be KEEP_ALL_HISTORY_QOS",
    ),
    Rule(
        _ANNOUNCEMENTS, _BOTH, "Durability", lambda p: p == Policy.Durability.TransientLocal,
        "who comes later would never hear of those who are there: it must be TRANSIENT_LOCAL_DURABILITY_QOS",
    ),
    Rule(
        _MESSAGES, _BOTH, "Durability", lambda p: p == Policy.Durability.TransientLocal,
        "what is written before its reader has matched would be lost: it must be TRANSIENT_LOCAL_DURABILITY_QOS",
    ),
    Rule(
        _ANNOUNCEMENTS, _WRITER, "WriterDataLifecycle", lambda p: not p.autodispose,
        "a death would look like a goodbye: autodispose_unregistered_instances must be false",
    ),
    Rule(
        (*_ANNOUNCEMENTS, "control", "response", "stream"), _WRITER, "Lifespan", lambda p: p.lifespan == _INFINITE,
        "what expires unread is lost and nobody is told: leave it out",
    ),
    Rule(
        ("request",), _WRITER, "Lifespan", lambda p: p.lifespan == _INFINITE,
        "what a hub does about expired requests needs the option `lifespan`: set that and leave this out",
    ),
    Rule(
        (*_ANNOUNCEMENTS, *_MESSAGES), _READER, "TimeBasedFilter", lambda p: p.filter_time == 0,
        "what it leaves out is lost: leave it out",
    ),
    Rule(
        _ALL, _BOTH, "Ownership", lambda p: p == Policy.Ownership.Shared,
        "only one of several peers would be heard: it must be SHARED_OWNERSHIP_QOS",
    ),
    Rule(
        _ALL, _BOTH, "DestinationOrder", lambda p: p == Policy.DestinationOrder.ByReceptionTimestamp,
        "what a peer with a slow clock says would be dropped: it must be "
        "BY_RECEPTION_TIMESTAMP_DESTINATIONORDER_QOS",
    ),
    Rule(
        _ALL, _BOTH, "Liveliness", lambda p: False,
        "the lease belongs to the participant: leave it out and set the option `lease`",
    ),
    Rule(
        _MESSAGES, _BOTH, "ResourceLimits", lambda p: False,
        "messages are bounded per link by the transport, and a full cache would stop the link: leave it out",
    ),
    Rule(
        ("stream",), _BOTH, "Deadline", lambda p: False,
        "its period is the option `deadline`: set that and leave this out",
    ),
    Rule(
        _ALL, _WRITER, "TransportPriority", lambda p: p.priority == 0,
        "a writer for each priority is made by the option `priorities`: set that and leave this out",
    ),
)  # fmt: skip


def faults(policies: Mapping[tuple[TopicName, Any], tuple[Any, ...]]) -> list[str]:
    """A sentence for every policy that breaks the contract, and for every topic whose ends would not match."""
    return [*_broken(policies), *_unmatched(policies)]


def _broken(policies: Mapping[tuple[TopicName, Any], tuple[Any, ...]]) -> Iterator[str]:
    for (topic, end), found in policies.items():
        for rule in _RULES:
            if topic not in rule.topics or end not in rule.ends:
                continue
            for policy in found:
                if policy.__scope__ == rule.scope and not rule.holds(policy):
                    yield f"<{end}> of {PROFILES[topic]!r}: {_element(policy)}: {rule.why}"


def _unmatched(policies: Mapping[tuple[TopicName, Any], tuple[Any, ...]]) -> Iterator[str]:
    for topic in dict.fromkeys(topic for topic, _ in policies):
        for reason in incompatible(policies[topic, "datawriter_qos"], policies[topic, "datareader_qos"]):
            yield f"{PROFILES[topic]!r}: its writers and readers would not match: {reason}"


def incompatible(offered: tuple[Any, ...], requested: tuple[Any, ...]) -> list[str]:
    """The policies with which a writer offers less than a reader requests."""
    has = {policy.__scope__: policy for policy in offered}
    wants = {policy.__scope__: policy for policy in requested}
    reasons = []
    if isinstance(wants.get("Reliability"), _RELIABLE) and not isinstance(has.get("Reliability"), _RELIABLE):
        reasons.append("the reader requests RELIABLE, the writer offers BEST_EFFORT")
    levels = [Policy.Durability.Volatile, Policy.Durability.TransientLocal, Policy.Durability.Transient,
              Policy.Durability.Persistent]  # fmt: skip
    volatile = Policy.Durability.Volatile
    if levels.index(has.get("Durability", volatile)) < levels.index(wants.get("Durability", volatile)):
        reasons.append(f"the reader requests {wants['Durability']}, the writer offers less durability")
    for scope, member, default in (("Deadline", "deadline", _INFINITE), ("LatencyBudget", "budget", 0)):
        offer = getattr(has.get(scope), member, default)
        want = getattr(wants.get(scope), member, default)
        if offer > want:
            reasons.append(f"the writer offers a {scope} of {_seconds(offer)}, the reader requests {_seconds(want)}")
    return reasons


def _element(policy: Any) -> str:
    """The policy as the file names it: ``History.KeepLast(depth=1)`` as ``history: KeepLast(depth=1)``."""
    scope: str = policy.__scope__
    name = "".join(f"_{each.lower()}" if each.isupper() else each for each in scope).lstrip("_")
    return f"{name}: {str(policy).removeprefix('Policy.').removeprefix(scope).lstrip('.')}"


def _seconds(nanoseconds: int) -> str:
    return "infinity" if nanoseconds == _INFINITE else f"{nanoseconds / 1e9:g} s"
