"""The wire types of ``idl/LlamaDDS.idl``, the contract of the llama.cpp DDS service, with its topics and their QoS."""

import re
from dataclasses import dataclass
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float32, int32, sequence
from cyclonedds.util import duration

from anywire_dds.cdr import Malformed

REQUEST_TOPIC = "llama_chat_completion_request"
RESPONSE_TOPIC = "llama_chat_completion_response"
STATUS_TOPIC = "llama_server_status"

HISTORY = 8
"""Samples a peer's reader keeps until its application takes them, of all requests together."""

DEADLINE = 2.0
"""Seconds within which a server writes its next status."""

_LIVELINESS = duration(seconds=1)


@dataclass
@final
class ChatMessage(IdlStruct, typename="llama.ChatMessage"):  # type: ignore[misc,call-arg]
    role: str
    content: str


@dataclass
@final
class ChatCompletionRequest(IdlStruct, typename="llama.ChatCompletionRequest"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    messages: sequence[ChatMessage]
    temperature: float32
    max_tokens: int32
    stream: bool
    top_p: sequence[float32]
    n: sequence[int32]
    stop: sequence[str]


@dataclass
@final
class ChatCompletionResponse(IdlStruct, typename="llama.ChatCompletionResponse"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    content: str
    finish_reason: str
    is_final: bool
    prompt_tokens: int32
    completion_tokens: int32


@dataclass
@final
class ServerStatus(IdlStruct, typename="llama.ServerStatus"):  # type: ignore[misc,call-arg]
    server_id: str
    slots_idle: int32
    slots_processing: int32
    model_loaded: str
    ready: bool


@dataclass
@final
class EmbeddingRequest(IdlStruct, typename="llama.EmbeddingRequest"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    input: str


@dataclass
@final
class EmbeddingResponse(IdlStruct, typename="llama.EmbeddingResponse"):  # type: ignore[misc,call-arg]
    request_id: str
    model: str
    embedding: sequence[float32]
    tokens: int32


TYPES: dict[str, Any] = {
    REQUEST_TOPIC: ChatCompletionRequest,
    RESPONSE_TOPIC: ChatCompletionResponse,
    STATUS_TOPIC: ServerStatus,
}


def reader_qos(topic: str) -> Qos:
    """What is asked of the peers' writers. Messages are kept until they are taken, however many there are."""
    if topic == STATUS_TOPIC:
        return _status_qos()
    return Qos(
        Policy.Reliability.Reliable(duration(seconds=10)), Policy.Durability.TransientLocal, Policy.History.KeepAll
    )


def writer_qos(topic: str) -> Qos:
    """What is offered to the peers' readers. A write that would have to wait fails at once."""
    if topic == STATUS_TOPIC:
        return _status_qos()
    return Qos(
        Policy.Reliability.Reliable(duration(nanoseconds=0)),
        Policy.Durability.TransientLocal,
        Policy.History.KeepLast(HISTORY),
        # By default a reader that matches late gets the last sample only.
        Policy.DurabilityService(
            cleanup_delay=duration(seconds=0),
            history=Policy.History.KeepLast(HISTORY),
            max_samples=-1,
            max_instances=-1,
            max_samples_per_instance=-1,
        ),
    )


def _status_qos() -> Qos:
    return Qos(
        Policy.Reliability.BestEffort,
        Policy.Durability.Volatile,
        Policy.History.KeepLast(1),
        Policy.Deadline(duration(seconds=DEADLINE)),
        Policy.Liveliness.Automatic(_LIVELINESS),
    )


def pack(sample: Any) -> bytes:
    """The sample as it is written. Raises `ValueError` for what the wire cannot carry."""
    try:
        data: bytes = sample.serialize()
    except Exception as error:  # the library lets through whatever its machines meet
        raise ValueError(f"{type(sample).__name__} cannot be written to the wire: {error}") from error
    return data.ljust(len(data) + 3 & ~3, b"\0")


def unpack(topic: str, data: bytes) -> Any:
    """The sample of that topic. Raises `Malformed`."""
    try:
        return TYPES[topic].deserialize(data)
    except Exception as error:  # the library lets through whatever its machines meet
        raise Malformed(f"not readable as {TYPES[topic].__name__}: {error}") from error


ERROR = "error"
"""The finish_reason of a final response that tells an error. Its content is a text, by custom in brackets."""

_ERROR = re.compile(r"(?:\A|\n)\[Error: (?:([a-z_]+): )?(.*)\]\s*\Z", re.DOTALL)


def error_text(code: str, message: str) -> str:
    return f"[Error: {code}: {message}]"


def read_error(response: ChatCompletionResponse) -> tuple[str, str] | None:
    """Code and message of the error that a final response tells, None when it is an answer. The code is empty where the
    server names none."""
    if response.finish_reason != ERROR:
        return None
    found = _ERROR.search(response.content)
    if found is None:
        return "", response.content.strip() or "the server says that it failed, and not why"
    return found[1] or "", found[2]


def gateway_id(hub_id: str) -> str:
    """The server_id of an orchestrator's gateway, unless it is told another."""
    return f"anywire-{hub_id}"
