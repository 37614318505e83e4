"""Every error a user, a plugin author or a client of Anywire can meet.

    AnywireError
    ├── ConfigError               bad_config          a setting is wrong; the message says which and what would do
    ├── PluginError               unknown_plugin      no plugin of that name, or it does not load
    ├── TransportError            transport_error     what a transport may raise or report
    │   ├── TransportUnavailable  transport_unavailable   it cannot be opened here
    │   ├── AgentUnavailable      agent_unavailable   no link to that agent (nothing was sent)
    │   ├── AgentLost             agent_lost          the link or the agent went while it held the task
    │   ├── PayloadTooLarge       payload_too_large   over the transport's or the server's limit
    │   └── Congested             congested           the write buffer is over its hard bound (nothing was sent)
    └── TaskError                 task_error          how one task can end, apart from an answer
        ├── InvalidRequest        invalid_request     the client's fault; never counts against an agent
        ├── ModelNotFound         model_not_found     no agent serves or has served that model
        ├── QueueFull             queue_full          the scheduler's queue is at its bound
        ├── NoAgent               no_agent            no agent for it appeared in time
        ├── ShuttingDown          shutting_down       the orchestrator ends; another one may take it
        ├── Refused               refused             an agent would not take it; the pipeline goes elsewhere
        ├── DeadlineExceeded      deadline_exceeded   its time was over
        ├── TaskCancelled         cancelled           somebody cancelled it
        ├── ReaderStalled         reader_stalled      its reader stopped reading for too long
        ├── NoProgress            no_progress         its agent did not accept it, or sent no token, in time
        ├── StreamCorrupted       stream_corrupted    a gap or duplicate in the stream
        ├── PluginFailed          plugin_failed       a scheduler raised, or gave what its contract does not allow
        └── EngineFailed          engine_failed       the engine failed, or gave an answer that is none

An error says what failed, never whether to retry: that is the pipeline's decision. ``code`` is stable and is
what travels; ``phase`` says what may have reached the agent (``not_sent``, ``maybe_sent``, ``streaming``).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Phase = Literal["not_sent", "maybe_sent", "streaming"]


class AnywireError(Exception):
    """Base of all errors of the framework; ``str()`` is a sentence for a person."""

    code: ClassVar[str] = "error"

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
    ) -> None:
        super().__init__(message)
        self.phase: Phase = phase
        self.agent_id = agent_id
        self.task_id = task_id
        self.param = param
        """The field of the request at fault, for `InvalidRequest`."""
        self.status = status
        """The HTTP status an engine gave, 0 when none did."""
        self.detail_code = detail_code
        """An engine's own error code (``context_length_exceeded`` …), empty when it gave none."""

    @property
    def message(self) -> str:
        return str(self)


class ConfigError(AnywireError):
    code = "bad_config"


class PluginError(AnywireError):
    code = "unknown_plugin"


class TransportError(AnywireError):
    code = "transport_error"


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


class ModelNotFound(TaskError):
    code = "model_not_found"


class QueueFull(TaskError):
    code = "queue_full"


class NoAgent(TaskError):
    code = "no_agent"


class ShuttingDown(TaskError):
    code = "shutting_down"


class Refused(TaskError):
    code = "refused"


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


def _subclasses(cls: type[AnywireError]) -> list[type[AnywireError]]:
    return [cls, *(each for sub in cls.__subclasses__() for each in _subclasses(sub))]


BY_CODE: dict[str, type[AnywireError]] = {cls.code: cls for cls in _subclasses(AnywireError)}


class WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels in `Chunk.error` (JSON text)."""

    code: str
    message: str
    param: str = ""
    status: int = 0
    detail_code: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WireError)


def to_wire(error: AnywireError) -> str:
    """The JSON text that stands for ``error`` in a final chunk."""
    wire = WireError(error.code, error.message, error.param, error.status, error.detail_code)
    return _encoder.encode(wire).decode()


def from_wire(text: str, *, phase: Phase, agent_id: str = "", task_id: str = "") -> AnywireError:
    """The error a final chunk carries; a code this version does not know becomes a `TaskError`."""
    try:
        wire = _decoder.decode(text)
    except msgspec.DecodeError as error:
        raise StreamCorrupted(
            f"agent {agent_id} sent an unreadable error: {error}", phase=phase, agent_id=agent_id, task_id=task_id
        ) from error
    return BY_CODE.get(wire.code, TaskError)(
        wire.message,
        phase=phase,
        agent_id=agent_id,
        task_id=task_id,
        param=wire.param,
        status=wire.status,
        detail_code=wire.detail_code,
    )
