"""Requests to agents (``agent.requests``): read, made a task of, and answered in the fields of their contract. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from anywire.caller import Caller
from anywire.errors import AnywireError
from anywire.messages import Chunk
from anywire.printable import printable
from anywire.submission import Submission
from anywire_service_nats.envelopes import Envelope, told_time
from anywire_service_nats.listening.plain_json import NOT_PLAIN, is_plain
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.subjects import ANSWER_COMPLETED, ANSWER_FAILED

MAX_ID_CHARS = 256
MAX_NAME_CHARS = 64
MAX_PROMPT_CHARS = 200_000
MAX_TOKENS = 1_000_000
MAX_CONSTRAINTS_BYTES = 16 * 1024
MAX_TEXT_BYTES = 512 * 1024
"""Bytes of an answer that are published; a longer one is cut, and says so."""
SHORTER_BYTES = 4 * 1024
"""Bytes of it where the server does not take that."""
SUMMARY_CHARS = 200
LEAST_TIME, MOST_TIME = 0.1, 86_400.0

AGENTS = ("DEV", "QA", "DEVOPS", "ARCHITECT", "DATA")
PHASES = {
    "DESIGN": "The task is in its design phase: say how it is to be done.",
    "BUILD": "The task is in its build phase: do it.",
    "TEST": "The task is in its test phase: say how to see that it was done well.",
    "DOCS": "The task is in its documentation phase: write what its users need to know.",
}


class NotARequest(Exception):
    """The payload is no request to an agent; the message says what is wrong with it."""


class AgentRequest(msgspec.Struct, frozen=True):
    """One request. ``name`` is its envelope's id. ``tokens`` is its budget, 0 for none, ``seconds`` likewise.
    ``ignored`` are the members of its input that have no effect here. ``owner`` is whose it is: names of one
    sender are not another's."""

    name: str
    task_id: str
    role: str
    phase: str
    prompt: str
    tokens: int = 0
    seconds: float = 0.0
    agents: int = 1
    constraints: dict[str, Any] = {}
    ignored: tuple[str, ...] = ()
    trace: str = ""
    priority: int = 0
    owner: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others; a request that is published again has the same."""
        owner = f"{len(self.owner)}:{self.owner}:" if self.owner else ""
        return f"agent:{owner}{self.task_id}:{self.role}:{self.name}"

    @property
    def digest(self) -> bytes:
        """What tells two requests with one key apart."""
        asked = (self.phase, self.prompt, self.tokens, self.seconds)
        return hashlib.sha256(msgspec.json.encode(asked)).digest()

    @property
    def agent_id(self) -> str:
        """Who answers it, as collectors count agents: the same for each time that it is answered."""
        return f"anywire-{self.role.lower()}-{hashlib.sha256(self.key.encode()).hexdigest()[:12]}"


def read_agent_request(envelope: Envelope) -> AgentRequest:
    """Raises `NotARequest`."""
    payload = envelope.payload
    given = payload.get("input")
    if not isinstance(given, Mapping):
        raise NotARequest("it has no input")
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT_CHARS:
        raise NotARequest(f"its input has no prompt of 1 to {MAX_PROMPT_CHARS} characters")
    role = _name(payload, "agent")
    phase = payload.get("phase")
    if phase is not None and (not isinstance(phase, str) or phase.upper() not in PHASES):
        raise NotARequest(f"its phase is none of {', '.join(PHASES)}")
    constraints = payload.get("constraints")
    constraints = constraints if isinstance(constraints, dict) else {}
    if not is_plain(constraints):
        raise NotARequest(f"its constraints {NOT_PLAIN}")
    if len(msgspec.json.encode(constraints)) > MAX_CONSTRAINTS_BYTES:
        raise NotARequest(f"its constraints have more than {MAX_CONSTRAINTS_BYTES} bytes")
    metadata = constraints.get("metadata")
    named = metadata.get("num_agents") if isinstance(metadata, Mapping) else None
    return AgentRequest(
        name=envelope.id,
        task_id=_id(payload, "task_id"),
        role=role,
        phase=phase.upper() if isinstance(phase, str) else "",
        prompt=prompt,
        tokens=int(_number(given.get("token_budget"), MAX_TOKENS)),
        seconds=_number(constraints.get("timeout_seconds"), MOST_TIME),
        agents=int(_number(payload.get("num_agents"), 1000) or _number(named, 1000)) or 1,
        constraints=constraints,
        ignored=tuple(name for name in ("tools", "workspace_spec") if given.get(name)),
        trace=envelope.trace,
        priority=envelope.priority,
    )


def submission_of(
    request: AgentRequest, system: str, model: str, caller: Caller, *, most_tokens: int, most_seconds: float
) -> Submission:
    """The task that answers it. ``system`` is the prompt of its role."""
    phase = PHASES.get(request.phase, "")
    messages = [
        {"role": "system", "content": f"{system}\n\n{phase}" if phase else system},
        {"role": "user", "content": request.prompt},
    ]
    body = {"model": model, "messages": messages, "max_tokens": min(request.tokens or most_tokens, most_tokens)}
    return Submission(
        "chat",
        model,
        msgspec.json.encode(body).decode(),
        priority=request.priority,
        deadline_s=max(LEAST_TIME, min(request.seconds or most_seconds, most_seconds)),
        trace=request.trace,
        caller=caller,
        hints={"task_type": request.phase} if request.phase else {},
    )


def completed(
    request: AgentRequest, chunk: Chunk, *, producer: str, now: float, seconds: float, model: str, agent: str
) -> Outgoing:
    """The answer. ``agent`` is who has made it here, with ``model``, in ``seconds``. Where the server does not take it
    as long as it is, the beginning of it is told."""
    text = "".join(chunk.deltas)
    usage = usage_of(chunk)
    metrics = {
        "tokens_in": usage.get("prompt_tokens", 0),
        "tokens_out": usage.get("completion_tokens", 0),
        "latency_ms": round(1000 * seconds),
    }
    proposal = {"author": request.agent_id, "model": model, "agent": agent, "finish_reason": chunk.finish_reason}
    payload = _head(request, "completed", now, seconds) | {
        "proposal": proposal | content_of(text, MAX_TEXT_BYTES),
        "constraints": request.constraints,
        "artifacts": [],
        "summary": printable(text.strip(), SUMMARY_CHARS),
        "metrics": metrics,
        "ignored": list(request.ignored),
    }
    out = _outgoing(request, ANSWER_COMPLETED, payload, producer, now)
    return with_shorter(out, payload | {"proposal": proposal | content_of(text, SHORTER_BYTES)})


def failed(request: AgentRequest, error: AnywireError, *, producer: str, now: float, seconds: float) -> Outgoing:
    """The answer where there is none."""
    payload = _head(request, "failed", now, seconds) | {"error": error.message, "error_type": error.code}
    return _outgoing(request, ANSWER_FAILED, payload, producer, now)


def usage_of(chunk: Chunk) -> dict[str, int]:
    """The numbers of a chunk's usage; none where it has none that can be read."""
    try:
        usage = msgspec.json.decode(chunk.usage) if chunk.usage else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    if not isinstance(usage, dict) or not is_plain(usage):
        return {}
    return {name: value for name, value in usage.items() if isinstance(value, int) and not isinstance(value, bool)}


def content_of(text: str, most: int) -> dict[str, Any]:
    """``text``, or its beginning where it has more than ``most`` bytes, and whether it was cut."""
    encoded = text.encode(errors="replace")
    return {"content": encoded[:most].decode(errors="ignore"), "cut": len(encoded) > most}


def with_shorter(out: Outgoing, payload: dict[str, Any]) -> Outgoing:
    """The same, with this payload where the server does not take its own."""
    shorter = msgspec.structs.replace(out.envelope, payload=payload)
    return msgspec.structs.replace(out, instead=(out.subject, shorter))


def _head(request: AgentRequest, status: str, now: float, seconds: float) -> dict[str, Any]:
    return {
        "task_id": request.task_id,
        "status": status,
        "agent_id": request.agent_id,
        "role": request.role,
        "num_agents": request.agents,
        "duration_ms": round(1000 * seconds),
        "timestamp": told_time(now),
    }


def _outgoing(request: AgentRequest, subject: str, payload: dict[str, Any], producer: str, now: float) -> Outgoing:
    envelope = Envelope(
        type=subject,
        id=f"{request.task_id}:{request.agent_id}",
        correlation=request.task_id,
        time=now,
        payload=payload,
        producer=producer,
        trace=request.trace,
        priority=request.priority,
        causation=request.name,
    )
    return Outgoing(subject, envelope, order=request.task_id)


def _id(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        raise NotARequest(f"it has no {name} of 1 to {MAX_ID_CHARS} printable characters")
    return value


def _name(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS or not value.isprintable():
        raise NotARequest(f"it names no {name}, such as {', '.join(AGENTS)}")
    return value


def _number(value: Any, most: float) -> float:
    """A positive number up to ``most``, also one that is text; 0 for everything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return 0.0
    return float(min(value, most))
