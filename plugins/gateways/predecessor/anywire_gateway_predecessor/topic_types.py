"""The wire types of ``idl/PredecessorDDS.idl``, with their topics and QoS."""

from dataclasses import dataclass
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float32, int32, int64
from cyclonedds.util import duration

from anywire_dds.cdr import Malformed

REQUEST_TOPIC = "client/request"
RESPONSE_TOPIC = "client/response"
HISTORY = 128
"""Samples that a peer's reader keeps until its application takes them."""


@dataclass
@final
class ClientRequest(IdlStruct, typename="orchestrator.ClientRequest"):  # type: ignore[misc,call-arg]
    request_id: str
    client_id: str
    task_type: str
    messages_json: str
    priority: int32
    timeout_ms: int32
    requires_context: bool
    created_at: int64
    stream: bool
    max_tokens: int32
    temperature: float32


@dataclass
@final
class ClientResponse(IdlStruct, typename="orchestrator.ClientResponse"):  # type: ignore[misc,call-arg]
    request_id: str
    client_id: str
    content: str
    is_final: bool
    prompt_tokens: int32
    completion_tokens: int32
    processing_time_ms: int32
    success: bool
    error_message: str


TYPES: dict[str, Any] = {REQUEST_TOPIC: ClientRequest, RESPONSE_TOPIC: ClientResponse}


def reader_qos(topic: str) -> Qos:
    """What is asked of the peers' writers. Requests are kept until they are taken, however many there are."""
    return Qos(Policy.Reliability.Reliable(duration(seconds=120)), Policy.Durability.Volatile, Policy.History.KeepAll)


def writer_qos(topic: str) -> Qos:
    """What is offered to the peers' readers. A write that would have to wait fails at once."""
    return Qos(
        Policy.Reliability.Reliable(duration(nanoseconds=0)),
        Policy.Durability.Volatile,
        Policy.History.KeepLast(HISTORY),
    )


def pack(sample: Any) -> bytes:
    """The sample as it is written; text that the wire cannot carry is replaced."""
    for name in ("content", "error_message"):
        text = getattr(sample, name).replace("\0", "\N{REPLACEMENT CHARACTER}")
        setattr(sample, name, text.encode(errors="replace").decode())
    data: bytes = sample.serialize()
    return data.ljust(len(data) + 3 & ~3, b"\0")


def unpack(data: bytes) -> ClientRequest:
    """Raises `Malformed`."""
    try:
        request: ClientRequest = ClientRequest.deserialize(data)
    except Exception as error:  # the library lets through whatever its machines meet
        raise Malformed(f"not readable as ClientRequest: {error}") from error
    return request
