"""Tasks and deliberations that are submitted by message: read, and answered. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import msgspec

from anywire.caller import Caller
from anywire.errors import AnywireError, InvalidRequest
from anywire.messages import Chunk, Kind
from anywire.submission import Submission
from anywire_service_nats.envelopes import (
    ID_HEADER,
    PRIORITY_HEADER,
    STATE_HEADER,
    TRACE_HEADER,
    Envelope,
    carried_trace,
    told_time,
)
from anywire_service_nats.listening.held import Held
from anywire_service_nats.listening.plain_json import NOT_PLAIN, is_plain
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.requests.agent_request import (
    MAX_TEXT_BYTES,
    SHORTER_BYTES,
    content_of,
    with_shorter,
)
from anywire_service_nats.subjects import SUBMITTED_COMPLETED, SUBMITTED_FAILED

SubmittedKind = Literal["chat", "completion", "embedding", "deliberation"]

NAME_HEADER = "Anywire-Id"
"""What the sender calls the submission. A stream knows ``Nats-Msg-Id`` again whoever sends it; this is its tenant's."""
REPLY_HEADER = "Anywire-Reply"
TIMEOUT_HEADER = "Anywire-Timeout"
SESSION_HEADER = "Anywire-Session"
MAX_ID_CHARS = 256
MAX_SUBJECT_CHARS = 256
MOST_TIME = 86_400.0

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


class NotASubmission(Exception):
    """The message is nothing that could be submitted; what it says is why."""


class SubmissionMessage(msgspec.Struct, frozen=True):
    """One submission. ``name`` is what its sender calls it, ``reply`` a subject to which the sender wants its end,
    ``seconds`` its time, 0 for the usual one."""

    kind: SubmittedKind
    name: str
    request: dict[str, Any]
    reply: str = ""
    seconds: float = 0.0
    session: str = ""
    trace: str = ""
    priority: int = 0

    def key(self, caller: Caller) -> str:
        """What tells it from all others: senders of one tenant have names of their own for each kind."""
        tenant = caller.tenant or caller.id
        return f"submit:{self.kind}:{len(tenant)}:{tenant}:{self.name}"

    @property
    def digest(self) -> bytes:
        """What tells two submissions with one name apart."""
        return hashlib.sha256(msgspec.json.encode(self.request, order="deterministic")).digest()


def read_submission(held: Held, reply_prefix: str) -> SubmissionMessage:
    """The message is named by ``Anywire-Id``, else by ``Nats-Msg-Id``, else by the ``id`` in a deliberation's body,
    else by its place in its stream. Raises `NotASubmission`."""
    kind = held.subject.rpartition(".")[2]
    if kind not in get_args(SubmittedKind):
        raise NotASubmission(f"its subject ends with none of {', '.join(get_args(SubmittedKind))}")
    try:
        request = msgspec.json.decode(held.data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise NotASubmission("it is no JSON") from None
    if not isinstance(request, dict):
        raise NotASubmission("it is no JSON object")
    if not is_plain(request):
        raise NotASubmission(f"it {NOT_PLAIN}")
    heads = held.headers
    own = request.get("id") if kind == "deliberation" else None
    name = heads.get(NAME_HEADER) or heads.get(ID_HEADER) or (own if isinstance(own, str) else "")
    name = name or f"{held.stream}-{held.sequence}-{round(held.at * 1000)}"
    if len(name) > MAX_ID_CHARS or not name.isprintable():
        raise NotASubmission(f"its name has more than {MAX_ID_CHARS} characters, or some that cannot be printed")
    reply = reply_subject(heads, reply_prefix)
    if not reply and heads.get(REPLY_HEADER):
        raise NotASubmission(f"{REPLY_HEADER} must be a subject that begins with {reply_prefix}")
    return SubmissionMessage(
        kind=cast("SubmittedKind", kind),
        name=name,
        request=request,
        reply=reply,
        seconds=_seconds(heads),
        session=heads.get(SESSION_HEADER, "")[:MAX_ID_CHARS],
        trace=carried_trace(heads.get(TRACE_HEADER, ""), heads.get(STATE_HEADER, "")),
        priority=_priority(heads),
    )


def reply_subject(heads: Mapping[str, str], reply_prefix: str) -> str:
    """The subject to which the sender wants replies; empty where it names none, or none that it may name."""
    reply = heads.get(REPLY_HEADER, "")
    if reply.startswith(reply_prefix) and len(reply) <= MAX_SUBJECT_CHARS and _SUBJECT.fullmatch(reply):
        return reply
    return ""


def task_of(message: SubmissionMessage, caller: Caller) -> Submission:
    """Raises `InvalidRequest` that names the member at fault."""
    request = message.request
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("model is required", param="model")
    if request.get("stream"):
        raise InvalidRequest("what is submitted by message is not streamed: leave `stream` out", param="stream")
    needed = {"chat": "messages", "completion": "prompt", "embedding": "input"}[message.kind]
    if not request.get(needed):
        raise InvalidRequest(f"{needed} is required", param=needed)
    if message.kind == "chat" and not isinstance(request[needed], list):
        raise InvalidRequest("messages must be a list", param=needed)
    return Submission(
        cast("Kind", message.kind),
        model,
        msgspec.json.encode(request).decode(),
        priority=message.priority,
        deadline_s=message.seconds,
        trace=message.trace,
        caller=caller,
        session=message.session,
    )


def deliberation_of(message: SubmissionMessage) -> dict[str, Any]:
    """The request as REST has it, with an id."""
    request = message.request
    timeout = {"timeout": message.seconds} if message.seconds and request.get("timeout") is None else {}
    return {"id": message.name} | request | timeout


class Origin(msgspec.Struct, frozen=True):
    """Whose answer it is: names are their tenant's."""

    kind: str
    name: str
    trace: str = ""
    priority: int = 0
    tenant: str = ""


def task_completed(
    origin: Origin, chunk: Chunk, *, key: str, producer: str, now: float, task_id: str, model: str, agent: str
) -> Outgoing:
    """``extra`` is what text cannot carry, as an OpenAI answer has it: the tool calls, the embedding."""
    text = "".join(chunk.deltas)
    payload: dict[str, Any] = {
        "task_id": task_id,
        "model": model,
        "agent_id": agent,
        "finish_reason": chunk.finish_reason,
    }
    if (usage := _parsed(chunk.usage)) is not None:
        payload["usage"] = usage
    shorter = payload | content_of(text, SHORTER_BYTES) | ({"cut": True} if chunk.extra else {})
    payload |= content_of(text, MAX_TEXT_BYTES)
    if len(chunk.extra) > MAX_TEXT_BYTES:
        payload["cut"] = True
    elif (extra := _parsed(chunk.extra)) is not None:
        payload["extra"] = extra
    elif chunk.extra:
        payload["cut"] = True
    return _outgoing(origin, SUBMITTED_COMPLETED, payload, key, producer, now, shorter)


def deliberation_completed(
    origin: Origin, whole: Mapping[str, Any], *, key: str, producer: str, now: float
) -> Outgoing:
    """``whole`` is the deliberation as REST tells it."""
    told = {name: whole[name] for name in ("winner", "reason", "cost", "links") if name in whole}
    payload = {"deliberation_id": whole["id"], "deliberation_status": whole["status"]} | told
    if not whole.get("winner"):
        payload |= {"error": str(whole.get("reason") or whole["status"]), "error_type": str(whole["status"])}
        return _outgoing(origin, SUBMITTED_FAILED, payload, key, producer, now)
    answer = str(whole["answer"])
    shorter = payload | content_of(answer, SHORTER_BYTES)
    return _outgoing(
        origin, SUBMITTED_COMPLETED, payload | content_of(answer, MAX_TEXT_BYTES), key, producer, now, shorter
    )


def refused(origin: Origin, error: AnywireError, *, key: str, producer: str, now: float) -> Outgoing:
    payload: dict[str, Any] = {"error": error.message, "error_type": error.code}
    if error.param:
        payload["param"] = error.param
    return _outgoing(origin, SUBMITTED_FAILED, payload, key, producer, now)


def _outgoing(
    origin: Origin,
    subject: str,
    payload: dict[str, Any],
    key: str,
    producer: str,
    now: float,
    shorter: dict[str, Any] | None = None,
) -> Outgoing:
    status = subject.rpartition(".")[2]
    head = {"id": origin.name, "kind": origin.kind, "status": status, "timestamp": told_time(now)}
    if origin.tenant:
        head["tenant"] = origin.tenant
    envelope = Envelope(
        type=subject,
        # Keys are of any length and text; ids go into headers.
        id=f"submitted:{hashlib.sha256(key.encode()).hexdigest()}",
        correlation=origin.name,
        time=now,
        payload=head | payload,
        producer=producer,
        trace=origin.trace,
        priority=origin.priority,
    )
    out = Outgoing(subject, envelope, order=origin.name)
    return out if shorter is None else with_shorter(out, head | shorter)


def _seconds(heads: Mapping[str, str]) -> float:
    text = heads.get(TIMEOUT_HEADER, "")
    if not text:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_TIME:
        raise NotASubmission(f"{TIMEOUT_HEADER} must be seconds, more than 0 and at most {MOST_TIME:g}")
    return seconds


def _priority(heads: Mapping[str, str]) -> int:
    text = heads.get(PRIORITY_HEADER, "") or "0"
    if not re.fullmatch(r"-?[0-9]{1,4}", text):
        raise NotASubmission(f"{PRIORITY_HEADER} must be a whole number of at most 4 digits")
    return int(text)


def _parsed(text: str) -> Any:
    """None for what is no JSON, and for what cannot be kept."""
    try:
        found = msgspec.json.decode(text) if text else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if is_plain(found) else None
