"""The wire types of ``idl/OrchestratorDDS.idl``, in the same order and under the same names.

The IDL is the contract and says what each member means; a test holds these classes to it. Annotations here are objects,
not text: the library cannot resolve ``bool`` from text. Cyclone announces to others the type it takes from
these classes; the messages themselves are packed by `anywire_dds.cdr`.
"""

from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final, keylist
from cyclonedds.idl.types import int32, int64, sequence, uint64

FRAME_MESSAGE = 0
FRAME_HELLO = 1
FRAME_WINDOW = 2
FRAME_COMMAND = 3
FRAME_RESULT = 4
FRAME_PROGRESS = 5


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
@keylist(["incarnation", "agent_id"])
class AgentStatus(IdlStruct, typename="anywire.AgentStatus"):  # type: ignore[misc,call-arg]
    incarnation: int64
    revision: int64
    slots: int32
    active: int32
    queued: int32
    agent_id: str
    state: str
    detail: str
    resources: str
    offers: str
    more: str


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
    attempts_left: int32
    stream: bool
    progress: bool
    hub_id: str
    task_id: str
    kind: str
    model: str
    body: str
    resume: str
    trace: str
    tenant: str
    session: str
    parent: str
    policy: str
    hints: str
    more: str
    prefer: sequence[str]
    avoid: sequence[str]


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
    attempts_used: int32
    is_final: bool
    resumable: bool
    hub_id: str
    task_id: str
    extra: str
    finish_reason: str
    usage: str
    error: str
    more: str
    deltas: sequence[str]


@dataclass
@final
class ClientRequest(IdlStruct, typename="anywire.ClientRequest"):  # type: ignore[misc,call-arg]
    link: uint64
    time_left_ms: int64
    frame: int32
    attempt: int32
    priority: int32
    credit: int32
    hops: int32
    attempts_left: int32
    stream: bool
    progress: bool
    hub_id: str
    task_id: str
    kind: str
    model: str
    body: str
    resume: str
    trace: str
    tenant: str
    session: str
    parent: str
    policy: str
    hints: str
    more: str
    prefer: sequence[str]
    avoid: sequence[str]


@dataclass
@final
class ClientResponse(IdlStruct, typename="anywire.ClientResponse"):  # type: ignore[misc,call-arg]
    link: uint64
    received_ns: int64
    started_ns: int64
    first_ns: int64
    last_ns: int64
    frame: int32
    attempt: int32
    seq: int32
    attempts_used: int32
    is_final: bool
    resumable: bool
    hub_id: str
    task_id: str
    extra: str
    finish_reason: str
    usage: str
    error: str
    more: str
    deltas: sequence[str]


@dataclass
@final
@keylist(["attempt", "task_id"])
class TaskStream(IdlStruct, typename="anywire.TaskStream"):  # type: ignore[misc,call-arg]
    link: uint64
    received_ns: int64
    started_ns: int64
    first_ns: int64
    last_ns: int64
    frame: int32
    attempt: int32
    seq: int32
    attempts_used: int32
    is_final: bool
    resumable: bool
    hub_id: str
    task_id: str
    extra: str
    finish_reason: str
    usage: str
    error: str
    more: str
    deltas: sequence[str]


@dataclass
@final
@keylist(["attempt", "task_id"])
class ClientStream(IdlStruct, typename="anywire.ClientStream"):  # type: ignore[misc,call-arg]
    link: uint64
    received_ns: int64
    started_ns: int64
    first_ns: int64
    last_ns: int64
    frame: int32
    attempt: int32
    seq: int32
    attempts_used: int32
    is_final: bool
    resumable: bool
    hub_id: str
    task_id: str
    extra: str
    finish_reason: str
    usage: str
    error: str
    more: str
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
    more: str


@dataclass
@final
@keylist(["seat"])
class Candidate(IdlStruct, typename="anywire.Candidate"):  # type: ignore[misc,call-arg]
    incarnation: int64
    pid: int32
    lease_ms: int32
    strength: int32
    term: int32
    rank: int32
    seat: str
    hub_id: str
    host: str
