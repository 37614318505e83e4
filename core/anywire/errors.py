"""Every error a user, a plugin author or a client of Anywire can meet.

    AnywireError
    ├── ConfigError               bad_config          a setting is wrong; the message says which and what would do
    ├── PluginError               unknown_plugin      no plugin of that name, or it does not load
    ├── LaunchFailed              launch_failed       a launcher's process ended before it was ready
    ├── TransportError            transport_error     a transport failed in a way that has no code of its own
    │   ├── TransportUnavailable  transport_unavailable   a transport cannot be opened here
    │   ├── AgentUnavailable      agent_unavailable   no link to that agent (nothing was sent)
    │   ├── AgentLost             agent_lost          the link or the agent went while it held the task
    │   ├── PayloadTooLarge       payload_too_large   over the transport's or the server's limit
    │   └── Congested             congested           the write buffer to the agent is full (nothing was sent)
    └── TaskError                 task_error          the task failed in a way that has no code of its own
        ├── InvalidRequest        invalid_request     the client's fault; never counts against an agent
        ├── ModelNotFound         model_not_found     no agent serves or has served that model
        ├── ModelStopped          model_stopped       the model is stopped, and no request starts it
        ├── UnknownCommand        unknown_command     no command of that name there
        ├── Forbidden             forbidden           the caller's role does not allow it
        ├── Unauthenticated       unauthenticated     no key, or one that does not count (any more)
        ├── LimitReached          limit_reached       a limit of the caller's key; it says which, and until when
        ├── QueueFull             queue_full          the scheduler's queue is at its bound
        ├── DeadlineTooShort      deadline_too_short  the task would wait longer than its deadline; it says how long
        ├── NoAgent               no_agent            no agent for the task appeared in time
        ├── ShuttingDown          shutting_down       the orchestrator is stopping; another one may take the task
        ├── Refused               refused             an agent did not take the task, and no other one could
        ├── DeadlineExceeded      deadline_exceeded   the task's time was over
        ├── TaskCancelled         cancelled           somebody cancelled the task
        ├── ReaderStalled         reader_stalled      the answer's reader stopped reading for too long
        ├── NoProgress            no_progress         the agent did not accept the task, or sent no token, in time
        ├── StreamCorrupted       stream_corrupted    a gap or duplicate in the stream
        ├── PluginFailed          plugin_failed       a scheduler raised, or gave what its contract does not allow
        └── EngineFailed          engine_failed       the engine failed, or its answer is not valid

An error says what failed, never whether to retry: that is the pipeline's decision. ``code`` is stable and is
what travels; ``phase`` says what may have reached the agent (``not_sent``, ``maybe_sent``, ``streaming``); ``origin``
says where it arose (``client``, ``pipeline``, ``transport``, ``agent``, ``engine``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, get_args

import msgspec

from anywire.secrecy import tree_without_secrets, without_secrets

Phase = Literal["not_sent", "maybe_sent", "streaming"]
Origin = Literal["", "client", "pipeline", "transport", "agent", "engine"]
"""Where an error arose; empty when nobody has said."""

MAX_MEMBERS_BYTES = 16 * 1024
"""Bytes of what an engine said beside its error; longer ones are left out."""


class AnywireError(Exception):
    """Base of all errors of the framework; ``str()`` is a sentence for a person, without secrets
    (`anywire.secrecy`)."""

    code: ClassVar[str] = "error"
    arises: ClassVar[Origin] = "pipeline"
    """Where errors of this class arise unless one says otherwise."""

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

    @property
    def message(self) -> str:
        return str(self)

    def append(self, what: str) -> None:
        """Add a part to the message, after a semicolon."""
        self.args = (f"{self}; {without_secrets(what)}",)


class ConfigError(AnywireError):
    code = "bad_config"


class PluginError(AnywireError):
    code = "unknown_plugin"


class LaunchFailed(AnywireError):
    code = "launch_failed"


class TransportError(AnywireError):
    code = "transport_error"
    arises = "transport"


class TransportUnavailable(TransportError):
    code = "transport_unavailable"


class AgentUnavailable(TransportError):
    code = "agent_unavailable"


class AgentLost(TransportError):
    code = "agent_lost"


class PayloadTooLarge(TransportError):
    code = "payload_too_large"


class Congested(TransportError):
    code = "congested"


class TaskError(AnywireError):
    code = "task_error"


class InvalidRequest(TaskError):
    code = "invalid_request"
    arises = "client"


class ModelNotFound(TaskError):
    code = "model_not_found"


class ModelStopped(TaskError):
    code = "model_stopped"


class UnknownCommand(TaskError):
    code = "unknown_command"


class Forbidden(TaskError):
    code = "forbidden"
    arises = "client"


class Unauthenticated(TaskError):
    code = "unauthenticated"
    arises = "client"


class LimitReached(TaskError):
    code = "limit_reached"
    arises = "client"


class QueueFull(TaskError):
    code = "queue_full"


class DeadlineTooShort(TaskError):
    code = "deadline_too_short"


class NoAgent(TaskError):
    code = "no_agent"


class ShuttingDown(TaskError):
    code = "shutting_down"


class Refused(TaskError):
    code = "refused"
    arises = "agent"


class DeadlineExceeded(TaskError):
    code = "deadline_exceeded"


class TaskCancelled(TaskError):
    code = "cancelled"


class ReaderStalled(TaskError):
    code = "reader_stalled"


class NoProgress(TaskError):
    code = "no_progress"


class StreamCorrupted(TaskError):
    code = "stream_corrupted"


class PluginFailed(TaskError):
    code = "plugin_failed"


class EngineFailed(TaskError):
    code = "engine_failed"
    arises = "engine"


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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WireError)
_ORIGINS = frozenset(get_args(Origin))


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
    )
