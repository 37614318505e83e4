"""The QoS of every topic: what is written in ``idl/OrchestratorDDS.idl``, as Cyclone's policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cyclonedds.core import Policy, Qos
from cyclonedds.util import duration

Kind = Literal["announcement", "status", "message"]

_NO_WAIT = duration(nanoseconds=0)
"""max_blocking_time: a write that would have to wait for a slow reader fails at once instead."""

_POLICIES: dict[Kind, tuple[object, ...]] = {
    # Registrations: whoever comes later gets the newest of each life. Not disposed by dying, so that a reader can
    # tell a goodbye (disposed) from a death (no writers).
    "announcement": (
        Policy.Reliability.Reliable(_NO_WAIT),
        Policy.Durability.TransientLocal,
        Policy.History.KeepLast(1),
    ),
    "status": (
        Policy.Reliability.BestEffort,
        Policy.Durability.Volatile,
        Policy.History.KeepLast(1),
    ),
    # KEEP_ALL because every chunk counts. TRANSIENT_LOCAL because a reliable volatile reader misses what was written
    # before it has heard of the writer; the durability service keeps one acknowledged sample, not all of them.
    "message": (
        Policy.Reliability.Reliable(_NO_WAIT),
        Policy.Durability.TransientLocal,
        Policy.History.KeepAll,
        Policy.DurabilityService(
            cleanup_delay=duration(seconds=0),
            history=Policy.History.KeepLast(1),
            max_samples=-1,
            max_instances=-1,
            max_samples_per_instance=-1,
        ),
    ),
}


DETECTION = 0.8
"""Of the lease: when a silent participant is given up, so that its peers know within the lease and not just after."""


def participant_qos(name: str, lease_ns: int) -> Qos:
    """The lease belongs to the participant: when it runs out, everything of the peer is forgotten, and found anew
    when the peer returns. (A writer's own lease would only mark it dead: a paused peer that went on would never
    register again.)"""
    return Qos(Policy.EntityName(name), Policy.Liveliness.Automatic(round(lease_ns * DETECTION)))


def partition_qos(partition: str) -> Qos:
    return Qos(Policy.Partition([partition]))


def reader_qos(kind: Kind) -> Qos:
    return Qos(*(each for each in _POLICIES[kind] if not isinstance(each, Policy.DurabilityService)))


def writer_qos(kind: Kind, lease_ns: int = 0) -> Qos:
    """``lease_ns``, when given, is offered as the writer's own: it makes Cyclone assert the participant's liveliness
    more often, and nothing else here looks at it."""
    policies: Sequence[object] = _POLICIES[kind]
    if kind != "message":
        policies = (*policies, Policy.WriterDataLifecycle(autodispose=False))
    if lease_ns:
        policies = (*policies, Policy.Liveliness.Automatic(lease_ns))
    return Qos(*policies)


def describe(qos: Qos, names: Sequence[str] = ("Reliability", "Durability", "History", "Liveliness")) -> str:
    """The named policies of a granted QoS as one line."""
    found = [str(policy) for policy in qos if policy.__scope__ in names]
    return ", ".join(sorted(found))
