"""What an agent may say of itself: a stranger's values are checked against their type and bounds before anything is
kept.

Each check returns what is wrong as part of a sentence, empty when nothing is.
"""

from __future__ import annotations

import math
from typing import get_args

import msgspec

from anywire.messages import AgentInfo, AgentStatus, State

MAX_NAME = 256
"""Characters of an id, a model's name, a host …"""
MAX_MODELS = 1000
MAX_SLOTS = 65536
MAX_GAUGES = 256
MAX_CAPABILITIES = 64
MAX_DETAIL = 4096
"""Characters; a longer detail is cut."""
MAX_COUNT = 2**31
MIN_LEASE_MS, MAX_LEASE_MS = 10, 3_600_000

_STATES = frozenset(get_args(State))


def check_info(info: AgentInfo) -> str:
    """What is wrong with an announcement."""
    if not _is_name(info.agent_id):
        return "its id is no name"
    if not _is_count(info.incarnation, 2**63):
        return "its incarnation is out of bounds"
    if not _is_count(info.lease_ms, MAX_LEASE_MS) or info.lease_ms < MIN_LEASE_MS:
        return f"its lease is not between {MIN_LEASE_MS} and {MAX_LEASE_MS} ms"
    texts = (info.host, info.engine, info.specialization, info.device, info.boot_id)
    if not all(_is_text(text) for text in texts):
        return "one of its descriptions is not printable or too long"
    if len(info.capabilities) > MAX_CAPABILITIES or not all(_is_name(each) for each in info.capabilities):
        return "its capabilities are no short list of names"
    return ""


def check_status(status: AgentStatus, before: AgentStatus) -> str:
    """What is wrong with a status; what is the same as in the one ``before`` is not checked again."""
    if status.state not in _STATES:
        return f"it reports a state that is none: {str(status.state)[:50]!r}"
    if not (_is_count(status.slots, MAX_SLOTS) and _is_count(status.active, MAX_COUNT)):
        return f"it reports slots that are not between 0 and {MAX_SLOTS}"
    if not _is_count(status.queued, MAX_COUNT):
        return "it reports a queue out of bounds"
    if status.models != before.models:
        if len(status.models) > MAX_MODELS:
            return f"it reports {len(status.models)} models, the limit is {MAX_MODELS}"
        if not all(_is_name(model) for model in status.models):
            return "it reports a model whose name is empty, too long or not printable"
    if len(status.resources) > MAX_GAUGES or not all(
        _is_name(name) and isinstance(value, float | int) and math.isfinite(value)
        for name, value in status.resources.items()
    ):
        return "it reports gauges that are no finite numbers"
    return ""


def cleaned(status: AgentStatus) -> AgentStatus:
    """A checked status with each model once and a detail that can be shown anywhere."""
    models: tuple[str, ...] = tuple(dict.fromkeys(status.models))
    detail = status.detail
    if detail and (len(detail) > MAX_DETAIL or not detail.isprintable()):
        detail = printable(detail[:MAX_DETAIL])
    if len(models) == len(status.models) and detail is status.detail:
        return status
    return msgspec.structs.replace(status, models=models, detail=detail)


def printable(text: str) -> str:
    """``text`` with every character that is not printable as a space."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def _is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_text(text: object) -> bool:
    return isinstance(text, str) and (not text or _is_name(text))


def _is_count(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value <= limit
