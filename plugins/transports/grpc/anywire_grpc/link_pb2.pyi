from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STARTING: _ClassVar[State]
    READY: _ClassVar[State]
    DRAINING: _ClassVar[State]
    FAILED: _ClassVar[State]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    CHAT: _ClassVar[Kind]
    COMPLETION: _ClassVar[Kind]
    EMBEDDING: _ClassVar[Kind]
    RERANK: _ClassVar[Kind]
    TOKENIZE: _ClassVar[Kind]
    DETOKENIZE: _ClassVar[Kind]
    TRANSCRIPTION: _ClassVar[Kind]
    SPEECH: _ClassVar[Kind]
    IMAGE: _ClassVar[Kind]

class ProgressState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROGRESSSTATE_UNSPECIFIED: _ClassVar[ProgressState]
    QUEUED: _ClassVar[ProgressState]
    LOADING: _ClassVar[ProgressState]
    RUNNING: _ClassVar[ProgressState]
    TOOL: _ClassVar[ProgressState]
STATE_UNSPECIFIED: State
STARTING: State
READY: State
DRAINING: State
FAILED: State
KIND_UNSPECIFIED: Kind
CHAT: Kind
COMPLETION: Kind
EMBEDDING: Kind
RERANK: Kind
TOKENIZE: Kind
DETOKENIZE: Kind
TRANSCRIPTION: Kind
SPEECH: Kind
IMAGE: Kind
PROGRESSSTATE_UNSPECIFIED: ProgressState
QUEUED: ProgressState
LOADING: ProgressState
RUNNING: ProgressState
TOOL: ProgressState

class HubFrame(_message.Message):
    __slots__ = ("hello", "tasks", "cancels", "credits", "commands")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    hello: HubHello
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRequest]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    credits: _containers.RepeatedCompositeFieldContainer[Credit]
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    def __init__(self, hello: _Optional[_Union[HubHello, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[TaskRequest, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., credits: _Optional[_Iterable[_Union[Credit, _Mapping]]] = ..., commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ...) -> None: ...

class AgentFrame(_message.Message):
    __slots__ = ("hello", "chunks", "statuses", "results", "progress")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    hello: AgentHello
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    statuses: _containers.RepeatedCompositeFieldContainer[AgentStatus]
    results: _containers.RepeatedCompositeFieldContainer[CommandResult]
    progress: _containers.RepeatedCompositeFieldContainer[Progress]
    def __init__(self, hello: _Optional[_Union[AgentHello, _Mapping]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., statuses: _Optional[_Iterable[_Union[AgentStatus, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[CommandResult, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[Progress, _Mapping]]] = ...) -> None: ...

class HubHello(_message.Message):
    __slots__ = ("hub_id", "incarnation", "host", "pid", "lease_ms", "protocol", "proof")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    incarnation: int
    host: str
    pid: int
    lease_ms: int
    protocol: str
    proof: str
    def __init__(self, hub_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., lease_ms: _Optional[int] = ..., protocol: _Optional[str] = ..., proof: _Optional[str] = ...) -> None: ...

class AgentHello(_message.Message):
    __slots__ = ("info", "status")
    INFO_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    info: AgentInfo
    status: AgentStatus
    def __init__(self, info: _Optional[_Union[AgentInfo, _Mapping]] = ..., status: _Optional[_Union[AgentStatus, _Mapping]] = ...) -> None: ...

class AgentInfo(_message.Message):
    __slots__ = ("agent_id", "incarnation", "host", "pid", "engine", "specialization", "capabilities", "device", "boot_id", "lease_ms", "protocol", "proof")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SPECIALIZATION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    incarnation: int
    host: str
    pid: int
    engine: str
    specialization: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    device: str
    boot_id: str
    lease_ms: int
    protocol: str
    proof: str
    def __init__(self, agent_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., engine: _Optional[str] = ..., specialization: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., device: _Optional[str] = ..., boot_id: _Optional[str] = ..., lease_ms: _Optional[int] = ..., protocol: _Optional[str] = ..., proof: _Optional[str] = ...) -> None: ...

class AgentStatus(_message.Message):
    __slots__ = ("agent_id", "incarnation", "state", "offers", "slots", "active", "queued", "resources", "detail")
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    incarnation: int
    state: State
    offers: str
    slots: int
    active: int
    queued: int
    resources: _containers.ScalarMap[str, float]
    detail: str
    def __init__(self, agent_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., offers: _Optional[str] = ..., slots: _Optional[int] = ..., active: _Optional[int] = ..., queued: _Optional[int] = ..., resources: _Optional[_Mapping[str, float]] = ..., detail: _Optional[str] = ...) -> None: ...

class TaskRequest(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "kind", "model", "body", "stream", "resume", "priority", "time_left_ms", "credit", "hops", "trace", "progress", "attempts_left", "tenant", "session", "parent", "policy", "hints", "prefer", "avoid")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_LEFT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    PREFER_FIELD_NUMBER: _ClassVar[int]
    AVOID_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    task_id: str
    attempt: int
    kind: Kind
    model: str
    body: str
    stream: bool
    resume: str
    priority: int
    time_left_ms: int
    credit: int
    hops: int
    trace: str
    progress: bool
    attempts_left: int
    tenant: str
    session: str
    parent: str
    policy: str
    hints: str
    prefer: _containers.RepeatedScalarFieldContainer[str]
    avoid: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[Kind, str]] = ..., model: _Optional[str] = ..., body: _Optional[str] = ..., stream: _Optional[bool] = ..., resume: _Optional[str] = ..., priority: _Optional[int] = ..., time_left_ms: _Optional[int] = ..., credit: _Optional[int] = ..., hops: _Optional[int] = ..., trace: _Optional[str] = ..., progress: _Optional[bool] = ..., attempts_left: _Optional[int] = ..., tenant: _Optional[str] = ..., session: _Optional[str] = ..., parent: _Optional[str] = ..., policy: _Optional[str] = ..., hints: _Optional[str] = ..., prefer: _Optional[_Iterable[str]] = ..., avoid: _Optional[_Iterable[str]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "seq", "deltas", "extra", "final", "finish_reason", "usage", "error", "received_ns", "started_ns", "first_ns", "last_ns", "resumable", "attempts_used")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_NS_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_USED_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    task_id: str
    attempt: int
    seq: int
    deltas: _containers.RepeatedScalarFieldContainer[str]
    extra: str
    final: bool
    finish_reason: str
    usage: str
    error: str
    received_ns: int
    started_ns: int
    first_ns: int
    last_ns: int
    resumable: bool
    attempts_used: int
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ..., deltas: _Optional[_Iterable[str]] = ..., extra: _Optional[str] = ..., final: _Optional[bool] = ..., finish_reason: _Optional[str] = ..., usage: _Optional[str] = ..., error: _Optional[str] = ..., received_ns: _Optional[int] = ..., started_ns: _Optional[int] = ..., first_ns: _Optional[int] = ..., last_ns: _Optional[int] = ..., resumable: _Optional[bool] = ..., attempts_used: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "state", "detail")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    task_id: str
    attempt: int
    state: ProgressState
    detail: str
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[ProgressState, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "reason")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    task_id: str
    attempt: int
    reason: str
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "chunks")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    task_id: str
    attempt: int
    chunks: int
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("hub_id", "id", "name", "arguments", "target", "time_left_ms", "credit", "tenant", "role")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    id: str
    name: str
    arguments: str
    target: _containers.RepeatedScalarFieldContainer[str]
    time_left_ms: int
    credit: int
    tenant: str
    role: str
    def __init__(self, hub_id: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ..., target: _Optional[_Iterable[str]] = ..., time_left_ms: _Optional[int] = ..., credit: _Optional[int] = ..., tenant: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class CommandResult(_message.Message):
    __slots__ = ("hub_id", "id", "seq", "data", "final", "error")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    id: str
    seq: int
    data: str
    final: bool
    error: str
    def __init__(self, hub_id: _Optional[str] = ..., id: _Optional[str] = ..., seq: _Optional[int] = ..., data: _Optional[str] = ..., final: _Optional[bool] = ..., error: _Optional[str] = ...) -> None: ...
