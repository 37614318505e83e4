"""Who is there, and how: registrations and reports as packed samples, and back."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from anywire.errors import PayloadTooLarge, TransportError
from anywire.messages import AgentInfo, AgentStatus, HubInfo, State
from anywire.offers import MAX_OFFERS_BYTES
from anywire_dds.cdr import UNPACKABLE, Malformed
from anywire_dds.endpoints import CODECS

MAX_STATUS_BYTES = 1024 * 1024
MAX_GAUGES = 1000
"""What one report may hold, and no more than `MAX_OFFERS_BYTES` of offers; a larger one is malformed."""

_STATES = frozenset(get_args(State))
_gauges = msgspec.json.Decoder(dict[str, float])


def pack_agent(info: AgentInfo, lease_ms: int) -> bytes:
    return CODECS["register"].pack(
        info.incarnation, info.pid, lease_ms,
        info.agent_id, info.host, info.engine, info.specialization, info.device, info.boot_id, info.capabilities,
    )  # fmt: skip


def to_agent(values: tuple[Any, ...], protocol: str) -> AgentInfo:
    incarnation, pid, lease_ms, agent_id, host, engine, specialization, device, boot_id, capabilities = values
    return AgentInfo(
        agent_id, incarnation, host, pid, engine, specialization, capabilities, device, boot_id, lease_ms, protocol
    )


def pack_hub(info: HubInfo, lease_ms: int) -> bytes:
    return CODECS["hub"].pack(info.incarnation, info.pid, lease_ms, info.hub_id, info.host)


def to_hub(values: tuple[Any, ...], protocol: str) -> HubInfo:
    incarnation, pid, lease_ms, hub_id, host = values
    return HubInfo(hub_id, incarnation, host, pid, lease_ms, protocol)


def pack_status(status: AgentStatus, revision: int) -> bytes:
    """Raises `PayloadTooLarge` for more than a report may hold, or `TransportError` for what cannot be encoded."""
    try:
        sample = CODECS["status"].pack(
            status.incarnation, revision, status.slots, status.active, status.queued, status.agent_id, status.state,
            status.detail, msgspec.json.encode(status.resources).decode(), status.offers, "",
        )  # fmt: skip
    except (*UNPACKABLE, msgspec.MsgspecError) as error:
        raise TransportError(f"a report that cannot be written to the wire: {error}") from error
    if len(sample) > MAX_STATUS_BYTES or len(status.offers) > MAX_OFFERS_BYTES or len(status.resources) > MAX_GAUGES:
        raise PayloadTooLarge(
            f"a report of {len(sample)} bytes, {len(status.offers)} of them offers, and {len(status.resources)} "
            f"gauges; no more than {MAX_STATUS_BYTES}, {MAX_OFFERS_BYTES} and {MAX_GAUGES} are possible"
        )
    return sample


def read_status(data: bytes) -> tuple[int, AgentStatus]:
    """The report and its revision. Raises `Malformed` for one that is out of type or bounds. What its offers say is
    not read here."""
    if len(data) > MAX_STATUS_BYTES:
        raise Malformed(f"{len(data)} bytes are no report")
    incarnation, revision, slots, active, queued, agent_id, state, detail, resources, offers, _ = CODECS[
        "status"
    ].unpack(data)
    try:
        gauges = _gauges.decode(resources)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"gauges that are no object of numbers: {error}") from error
    status = AgentStatus(agent_id, incarnation, state, offers, slots, active, queued, gauges, detail)
    if not in_bounds(status):
        raise Malformed(
            f"state {state[:40]!r}, {slots} slots, {active} active, {queued} queued, {len(offers)} characters of "
            f"offers, {len(gauges)} gauges"
        )
    return revision, status


def in_bounds(status: AgentStatus) -> bool:
    """Whether it can be a report; of whom it is, is checked by others."""
    return (
        status.state in _STATES
        and min(status.slots, status.active, status.queued) >= 0
        and len(status.offers) <= MAX_OFFERS_BYTES
        and len(status.resources) <= MAX_GAUGES
    )
