"""Every error a user, a plugin author or a client of Anywire can meet. `docs/reference/errors.md` is made of this file.

Each class says of its errors what happened (its docstring) and what to do (``remedy``), where they arise (``arises``),
whether the pipeline sends the task again (``again``), and what they count against (``counts_against``). The pipeline,
the health of agents, events, metrics and the gateways go by what stands here.

``code`` is stable and is what travels; ``phase`` says what may have reached the agent (``not_sent``, ``maybe_sent``,
``streaming``); ``origin`` says who failed (``client``, ``pipeline``, ``transport``, ``agent``, ``engine``).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

import msgspec

from anywire.secrecy import tree_without_secrets, without_secrets

Phase = Literal["not_sent", "maybe_sent", "streaming"]
Origin = Literal["", "client", "pipeline", "transport", "agent", "engine"]
"""Who failed; empty when nobody has said."""
Again = Literal["", "elsewhere", "anywhere"]
"""Whether the pipeline sends a task again after such an error, while `pipeline.max_attempts` and `pipeline.retries`
allow it: never; to another agent that is free; to any agent, another one first."""
Blamed = Literal["", "agent", "link", "model"]
"""What an error counts against: nothing, the agent, the link to it, or the one model of the agent that was asked."""
Concerned = Literal["", "model"]
"""What an agent says its error is of: itself, or the model that was asked alone, while its others may be well."""

Failure = TypeVar("Failure", bound=Exception)

MAX_MEMBERS_BYTES = 16 * 1024
"""Bytes of what an engine said beside its error; longer ones are left out."""
OVERLOADED = frozenset((429, 503, 529))
"""Statuses with which a server says that it has too much to do and has done nothing."""


class AnywireError(Exception):
    """Base of all errors of the framework; ``str()`` is a sentence for a person, without secrets
    (`anywire.secrecy`)."""

    code: ClassVar[str] = "error"
    arises: ClassVar[Origin] = "pipeline"
    """Who failed where an error of this class does not say otherwise."""
    again: ClassVar[Again] = ""
    counts_against: ClassVar[Blamed] = ""
    remedy: ClassVar[str] = "Read the log of the orchestrator."
    """What a person can do, in a sentence or two."""

    def __init__(
        self,
        message: str,
        *,
        phase: Phase = "not_sent",
        agent_id: str = "",
        task_id: str = "",
        param: str = "",
        status: int = 0,
        detail_code: str = "",
        retry_after: float = 0.0,
        origin: Origin = "",
        members: Mapping[str, Any] | None = None,
        concerns: Concerned = "",
    ) -> None:
        super().__init__(without_secrets(message))
        self.phase: Phase = phase
        self.agent_id = agent_id
        self.task_id = task_id
        self.param = param
        """The field of the request at fault, for `InvalidRequest`."""
        self.status = status
        """The HTTP status an engine gave, 0 when none did."""
        self.detail_code = detail_code
        """An engine's own error code (``context_length_exceeded`` …), empty when it gave none."""
        self.retry_after = retry_after
        """Seconds after which it is worth to try again, 0 when nobody knows."""
        self.origin: Origin = origin or self.arises
        self.members: Mapping[str, Any] = tree_without_secrets(members) if members else {}
        """What the engine said besides, as plain JSON types."""
        self.concerns: Concerned = concerns
        """Whether what failed is the model alone, as its engine knows."""
        self.exhausted = False
        """Whether the pipeline has tried as often as it may: one that tries again adds to what is too much already."""

    @property
    def message(self) -> str:
        return str(self)

    @property
    def blames(self) -> Blamed:
        """What this error counts against. An engine's 4xx says nothing against anybody here, unless it says so of the
        model."""
        if self.concerns == "model" and self.counts_against == "agent":
            return "model"
        return "" if 400 <= self.status < 500 else self.counts_against

    @property
    def did_nothing(self) -> bool:
        """Whether it is certain that no engine has begun the task."""
        return self.phase == "not_sent" or self.status in OVERLOADED

    def add(self, text: str) -> None:
        """Say ``text`` after the message."""
        self.args = (f"{self}{without_secrets(text)}",)


class ConfigError(AnywireError):
    """A setting is wrong; the message says which and what would do."""

    code = "bad_config"
    remedy = "Change the setting that the message names."


class PluginError(AnywireError):
    """No plugin of that name is installed, or it does not load."""

    code = "unknown_plugin"
    remedy = "Install its distribution, or correct the name: `anywire plugins` lists those that are there."


class LaunchFailed(AnywireError):
    """A launcher's process ended before it was ready."""

    code = "launch_failed"
    remedy = "Read the log of the process: the message says how it ended."


class TransportError(AnywireError):
    """A transport failed in a way that has no code of its own."""

    code = "transport_error"
    arises: ClassVar[Origin] = "transport"
    remedy = "Run `anywire doctor` on both machines."


class TransportUnavailable(TransportError):
    """A transport cannot be opened here."""

    code = "transport_unavailable"
    counts_against = "link"
    remedy = "Run `anywire doctor`: it says what is missing."


class AgentUnavailable(TransportError):
    """There is no link to that agent."""

    code = "agent_unavailable"
    again = "anywhere"
    counts_against = "link"
    remedy = "See with `anywire agents` which agents are there, and over which transport."


class AgentLost(TransportError):
    """The link or the agent went while it held the task."""

    code = "agent_lost"
    again = "anywhere"
    counts_against = "agent"
    remedy = (
        "Read the log of the agent. A stream that had begun goes on elsewhere only where its engine can resume, and "
        "`pipeline.resume` is on."
    )


class PayloadTooLarge(TransportError):
    """The request is over the transport's or the server's limit."""

    code = "payload_too_large"
    arises = "client"
    remedy = "Send less, or raise the limit that the message names."


class Congested(TransportError):
    """The write buffer to the agent is full; nothing was sent."""

    code = "congested"
    remedy = "Give the agent's host more bandwidth, or raise the transport's `buffer_bytes`."


class TaskError(AnywireError):
    """The task failed in a way that has no code of its own."""

    code = "task_error"
    remedy = "Read the message, and the log of the agent."


class InvalidRequest(TaskError):
    """The request is at fault."""

    code = "invalid_request"
    arises = "client"
    remedy = "Correct the request: `param` names the field."


class ModelNotFound(TaskError):
    """No agent serves or has served that model."""

    code = "model_not_found"
    arises = "client"
    remedy = "Ask for one of those that `/v1/models` lists."


class ModelStopped(TaskError):
    """The model is stopped, and no request starts it."""

    code = "model_stopped"
    remedy = "Start the model at its agent (`anywire models start MODEL`), or let requests start it (`on_demand`)."


class UnknownCommand(TaskError):
    """There is no command of that name there."""

    code = "unknown_command"
    arises = "client"
    remedy = "Send one of those that the message lists."


class Forbidden(TaskError):
    """The caller's role does not allow it."""

    code = "forbidden"
    arises = "client"
    remedy = "Use a key with the role that the message names."


class Unauthenticated(TaskError):
    """No key was shown, or one that does not count (any more)."""

    code = "unauthenticated"
    arises = "client"
    remedy = "Show a key of `anywire keys create`."


class LimitReached(TaskError):
    """A limit of the caller's key is reached; the message says which, and until when."""

    code = "limit_reached"
    arises = "client"
    remedy = "Come back after `Retry-After`, or have the limit of the key raised."


class QueueFull(TaskError):
    """The scheduler's queue is at its bound."""

    code = "queue_full"
    remedy = "Come back after `Retry-After`. Add agents, or raise `scheduler.max_queue_size`."


class DeadlineTooShort(TaskError):
    """The task would wait longer than its deadline; the message says how long."""

    code = "deadline_too_short"
    remedy = "Come back after `Retry-After`, or allow more time (`x-anywire-timeout`)."


class NoAgent(TaskError):
    """No agent for the task appeared in time."""

    code = "no_agent"
    remedy = (
        "Start an agent with the model. Where the message names agents that are drained, isolated or quarantined, "
        "repair them, then run `anywire restore AGENT`. `Retry-After` says when the first of them is tried again. A "
        "longer `pipeline.agent_wait` bridges a restart."
    )


class ShuttingDown(TaskError):
    """The orchestrator is stopping; another one may take the task."""

    code = "shutting_down"
    remedy = "Try again, at another orchestrator if there is one."


class Refused(TaskError):
    """An agent did not take the task, and no other one could."""

    code = "refused"
    arises = "agent"
    again = "anywhere"
    remedy = "Try again. Agents refuse while they drain, and where all their slots are taken."


class DeadlineExceeded(TaskError):
    """The task's time was over."""

    code = "deadline_exceeded"
    remedy = "Allow more time (`x-anywire-timeout`, `pipeline.deadline`), or ask for a shorter answer."


class TaskCancelled(TaskError):
    """Somebody cancelled the task, or its client went away."""

    code = "cancelled"
    arises = "client"
    remedy = "Nothing: this is what the client wanted."


class ReaderStalled(TaskError):
    """The answer's reader stopped reading for too long."""

    code = "reader_stalled"
    arises = "client"
    remedy = "Read the stream as it comes, or raise `pipeline.reader_timeout`."


class NoProgress(TaskError):
    """The agent did not accept the task, or sent no token, in time."""

    code = "no_progress"
    arises = "agent"
    again = "anywhere"
    counts_against = "agent"
    remedy = "Look at the agent and its engine, or raise the time that the message names."


class StreamCorrupted(TaskError):
    """There was a gap or a duplicate in the stream, or something that is no answer."""

    code = "stream_corrupted"
    arises = "agent"
    counts_against = "agent"
    remedy = "Report it: the agent, or the transport, breaks its contract."


class PluginFailed(TaskError):
    """A scheduler raised, or gave what its contract does not allow."""

    code = "plugin_failed"
    remedy = "Read the log of the orchestrator, which names the plugin."


class EngineFailed(TaskError):
    """The engine failed, or its answer is not valid."""

    code = "engine_failed"
    arises = "engine"
    again = "elsewhere"
    counts_against = "agent"
    remedy = "Read the log of the engine and that of its agent."


def _subclasses(cls: type[AnywireError]) -> list[type[AnywireError]]:
    return [cls, *(each for sub in cls.__subclasses__() for each in _subclasses(sub))]


BY_CODE: dict[str, type[AnywireError]] = {cls.code: cls for cls in _subclasses(AnywireError)}


class WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels in `Chunk.error` and `CommandResult.error` (JSON text)."""

    code: str
    message: str
    param: str = ""
    status: int = 0
    detail_code: str = ""
    retry_after_ms: int = 0
    origin: str = ""
    members: dict[str, Any] = {}
    concerns: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WireError)
_ORIGINS = frozenset(get_args(Origin))


def another(error: Failure) -> Failure:
    """One that says the same, for the next one who asks. An error that was raised refers to all that its readers have,
    and whoever keeps it among that keeps a large request until the next look for cycles."""
    try:
        return copy(error)
    except Exception:  # a plugin's own, which is made in another way
        return error


def to_wire(error: AnywireError) -> str:
    """The JSON text that stands for ``error`` in a final chunk or result. Members that are no JSON, or too long, are
    left out."""
    retry_after_ms = round(error.retry_after * 1000) if 0 < error.retry_after < 1e9 else 0
    members: dict[str, Any] = {}
    if error.members:
        try:
            if len(_encoder.encode(error.members)) <= MAX_MEMBERS_BYTES:
                members = dict(error.members)
        except (TypeError, ValueError, RecursionError):
            pass
    wire = WireError(
        error.code,
        error.message,
        error.param,
        error.status,
        error.detail_code,
        retry_after_ms,
        "" if error.origin == error.arises else error.origin,
        members,
        error.concerns,
    )
    return _encoder.encode(wire).decode()


def from_wire(text: str, *, phase: Phase, agent_id: str = "", task_id: str = "") -> AnywireError:
    """The error a final chunk carries; a code this version does not know becomes a `TaskError`."""
    try:
        wire = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise StreamCorrupted(
            f"agent {agent_id} sent an unreadable error: {error}", phase=phase, agent_id=agent_id, task_id=task_id
        ) from error
    origin = cast("Origin", wire.origin) if wire.origin in _ORIGINS else ""
    return BY_CODE.get(wire.code, TaskError)(
        wire.message,
        phase=phase,
        agent_id=agent_id,
        task_id=task_id,
        param=wire.param,
        status=wire.status,
        detail_code=wire.detail_code,
        retry_after=max(0, min(wire.retry_after_ms, 10**9)) / 1000,
        origin=origin,
        members=wire.members if len(text) <= 2 * MAX_MEMBERS_BYTES else None,
        concerns="model" if wire.concerns == "model" else "",
    )
