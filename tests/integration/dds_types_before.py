"""The wire types of DDS as they were before versions were told; registrations have stayed as they were.

Annotations here are objects, not text: the library cannot resolve ``bool`` from text.
"""

from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final, keylist
from cyclonedds.idl.types import int32, int64, sequence, uint64


@dataclass
@final
@keylist(["incarnation", "agent_id"])
class AgentRegistration(IdlStruct, typename="anywire.AgentRegistration"):  # type: ignore[misc,call-arg]
    incarnation: int64
    pid: int32
    lease_ms: int32
    agent_id: str
    host: str
    engine: str
    specialization: str
    device: str
    boot_id: str
    capabilities: sequence[str]


@dataclass
@final
@keylist(["incarnation", "hub_id"])
class HubRegistration(IdlStruct, typename="anywire.HubRegistration"):  # type: ignore[misc,call-arg]
    incarnation: int64
    pid: int32
    lease_ms: int32
    hub_id: str
    host: str


@dataclass
@final
class TaskRequest(IdlStruct, typename="anywire.TaskRequest"):  # type: ignore[misc,call-arg]
    link: uint64
    time_left_ms: int64
    frame: int32
    attempt: int32
    priority: int32
    credit: int32
    hops: int32
    stream: bool
    hub_id: str
    task_id: str
    kind: str
    model: str
    body: str
    resume: str
    trace: str


@dataclass
@final
class TaskResponse(IdlStruct, typename="anywire.TaskResponse"):  # type: ignore[misc,call-arg]
    link: uint64
    received_ns: int64
    started_ns: int64
    first_ns: int64
    last_ns: int64
    frame: int32
    attempt: int32
    seq: int32
    is_final: bool
    hub_id: str
    task_id: str
    extra: str
    finish_reason: str
    usage: str
    error: str
    deltas: sequence[str]


@dataclass
@final
class Control(IdlStruct, typename="anywire.Control"):  # type: ignore[misc,call-arg]
    link: uint64
    frame: int32
    attempt: int32
    chunks: int32
    kind: str
    hub_id: str
    task_id: str
    reason: str
