"""What an agent may say of itself: a stranger's values are checked against their type and bounds before anything is
kept.

Each check returns what is wrong as part of a sentence, empty when nothing is.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from anywire.messages import (
    MAX_COMMAND_BYTES,
    MAX_PROOF_CHARS,
    AgentInfo,
    AgentStatus,
    Chunk,
    CommandResult,
    Progress,
    ProgressState,
    State,
)
from anywire.offers import read_offers
from anywire.printable import printable

MAX_NAME = 256
"""Characters of an id, a model's name, a host …"""
MAX_KINDS = 32
"""Kinds, and features, of one offer."""
MAX_SLOTS = 65536
MAX_GAUGES = 256
MAX_CAPABILITIES = 64
MAX_DETAIL = 4096
"""Characters; a longer detail is cut."""
MAX_GAUGE = 1e300
MAX_COUNT = 2**31
MAX_TIME_NS = 2**63
MAX_TIME_MS = 2**53
MAX_DEPTH = 64
"""Names of a command's target."""
MIN_LEASE_MS, MAX_LEASE_MS = 10, 3_600_000

_STATES = frozenset(get_args(State))
_PROGRESS_STATES = frozenset(get_args(ProgressState))


def check_info(info: AgentInfo) -> str:
    """What is wrong with an announcement."""
    if not is_name(info.agent_id):
        return "its id is no name"
    if not is_count(info.incarnation, 2**63) or not is_count(info.pid, 2**63):
        return "its incarnation or its process id is out of bounds"
    if not is_count(info.lease_ms, MAX_LEASE_MS) or info.lease_ms < MIN_LEASE_MS:
        return f"its lease is not between {MIN_LEASE_MS} and {MAX_LEASE_MS} ms"
    texts = (info.host, info.engine, info.specialization, info.device, info.boot_id, info.protocol)
    if not all(is_text(text) for text in texts):
        return "one of its descriptions is not printable or too long"
    if not is_names(info.capabilities, MAX_CAPABILITIES):
        return "its capabilities are no short list of names"
    return "" if is_proof(info.proof) else "its proof is not printable or too long"


def check_status(status: AgentStatus, before: AgentStatus) -> str:
    """What is wrong with a status; what is the same as in the one ``before`` is not checked again."""
    if not is_one_of(status.state, _STATES):
        return f"it reports a state that is none: {printable(str(status.state)[:50])!r}"
    if type(status.detail) is not str:
        return "it reports a detail that is no text"
    if not (is_count(status.slots, MAX_SLOTS) and is_count(status.active, MAX_COUNT)):
        return f"it reports slots that are not between 0 and {MAX_SLOTS}"
    if not is_count(status.queued, MAX_COUNT):
        return "it reports a queue out of bounds"
    if status.offers != before.offers:
        fault = check_offers(status.offers)
        if fault:
            return fault
    gauges = status.resources
    if not isinstance(gauges, dict) or len(gauges) > MAX_GAUGES or not all(map(_is_gauge, gauges.items())):
        return "it reports gauges that are no finite numbers"
    return ""


def check_offers(text: object) -> str:
    """What is wrong with the text of an agent's offers."""
    try:
        offered = read_offers(text) if isinstance(text, str) else ()
    except ValueError as error:
        return str(error)
    if not isinstance(text, str):
        return "its offers are no text"
    names = []
    for offer in offered:
        names.append(offer.model)
        if offer.kinds or offer.features:
            if len(offer.kinds) > MAX_KINDS or len(offer.features) > MAX_KINDS:
                return "it offers a model with too many kinds or features"
            names += offer.kinds
            names += offer.features
        if offer.digest:
            names.append(offer.digest)
        if len(offer.detail) > MAX_DETAIL:
            return "it offers a model with a detail that is too long"
        if not (0 <= offer.slots <= MAX_SLOTS and 0 <= offer.context <= MAX_COUNT):
            return "it offers a model whose slots or context are out of bounds"
    if not all(0 < len(name) <= MAX_NAME for name in names) or not "".join(names).isprintable():
        return "it offers a model with a name that is empty, too long or not printable"
    return ""


def check_chunk(chunk: Chunk) -> str:
    """What is wrong with the types and bounds of a chunk of an open attempt; its order is not looked at."""
    deltas, extra = chunk.deltas, chunk.extra
    if type(chunk.seq) is not int or type(deltas) is not tuple or type(extra) is not str:
        return "a chunk whose members are not of their types"
    for delta in deltas:
        if type(delta) is not str:
            return "a chunk whose deltas are no texts"
    if not (chunk.final or chunk.error):
        return ""
    if not (type(chunk.final) is bool and type(chunk.finish_reason) is type(chunk.usage) is type(chunk.error) is str):
        return "a final chunk whose members are not of their types"
    received, started, first, last = chunk.received_ns, chunk.started_ns, chunk.first_ns, chunk.last_ns
    if not (type(received) is type(started) is type(first) is type(last) is type(chunk.attempts_used) is int):
        return "a final chunk whose times or attempts are no integers"
    most = MAX_TIME_NS
    if not (0 <= received <= most and 0 <= started <= most and 0 <= first <= most and 0 <= last <= most):
        return "a final chunk with times out of bounds"
    return "" if 0 <= chunk.attempts_used <= MAX_COUNT else "a final chunk with attempts out of bounds"


def check_result(result: CommandResult) -> str:
    """What is wrong with a result of a command under way; its order is not looked at."""
    if type(result.seq) is not int or type(result.final) is not bool or type(result.error) is not str:
        return "a result of a command whose members are not of their types"
    if type(result.data) is not str or len(result.data) > MAX_COMMAND_BYTES:
        return f"a result of a command that is no text of at most {MAX_COMMAND_BYTES} bytes"
    try:
        msgspec.json.decode(result.data or "null")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return f"a result of a command that is no JSON: {error}"
    return ""


def check_progress(progress: Progress) -> str:
    """What is wrong with what an agent says of an attempt."""
    if not is_one_of(progress.state, _PROGRESS_STATES):
        return f"a progress that is none: {printable(str(progress.state)[:50])!r}"
    if not isinstance(progress.detail, str) or len(progress.detail) > MAX_DETAIL:
        return "a progress whose detail is too long"
    return ""


def cleaned(status: AgentStatus) -> AgentStatus:
    """A checked status with a detail that can be shown anywhere."""
    detail = status.detail
    if detail and (len(detail) > MAX_DETAIL or not detail.isprintable()):
        return msgspec.structs.replace(status, detail=printable(detail[:MAX_DETAIL]))
    return status


def is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isprintable()


def is_text(text: object) -> bool:
    return isinstance(text, str) and (not text or is_name(text))


def is_proof(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_PROOF_CHARS and text.isascii() and text.isprintable()


def is_names(names: object, limit: int) -> bool:
    """Whether these are at most so many names."""
    return isinstance(names, tuple) and len(names) <= limit and all(map(is_name, names))


def is_one_of(text: object, words: frozenset[str]) -> bool:
    return isinstance(text, str) and text in words


def is_count(value: object, limit: int) -> bool:
    return is_whole(value, 0, limit)


def is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def is_flag(value: object) -> bool:
    return value is True or value is False


def _is_gauge(gauge: tuple[object, object]) -> bool:
    name, value = gauge
    return is_name(name) and type(value) in (float, int) and -MAX_GAUGE < value < MAX_GAUGE  # type: ignore[operator]
