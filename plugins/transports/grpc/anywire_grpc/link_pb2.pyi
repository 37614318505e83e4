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
STATE_UNSPECIFIED: State
STARTING: State
READY: State
DRAINING: State
FAILED: State
KIND_UNSPECIFIED: Kind
CHAT: Kind
COMPLETION: Kind
EMBEDDING: Kind

class HubFrame(_message.Message):
    __slots__ = ("hello", "tasks", "cancels", "credits", "drains")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    DRAINS_FIELD_NUMBER: _ClassVar[int]
    hello: HubHello
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRequest]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    credits: _containers.RepeatedCompositeFieldContainer[Credit]
    drains: _containers.RepeatedCompositeFieldContainer[Drain]
    def __init__(self, hello: _Optional[_Union[HubHello, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[TaskRequest, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., credits: _Optional[_Iterable[_Union[Credit, _Mapping]]] = ..., drains: _Optional[_Iterable[_Union[Drain, _Mapping]]] = ...) -> None: ...

class AgentFrame(_message.Message):
    __slots__ = ("hello", "chunks", "statuses")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    hello: AgentHello
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    statuses: _containers.RepeatedCompositeFieldContainer[AgentStatus]
    def __init__(self, hello: _Optional[_Union[AgentHello, _Mapping]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., statuses: _Optional[_Iterable[_Union[AgentStatus, _Mapping]]] = ...) -> None: ...

class HubHello(_message.Message):
    __slots__ = ("hub_id", "incarnation", "host", "pid", "lease_ms")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    incarnation: int
    host: str
    pid: int
    lease_ms: int
    def __init__(self, hub_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class AgentHello(_message.Message):
    __slots__ = ("info", "status")
    INFO_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    info: AgentInfo
    status: AgentStatus
    def __init__(self, info: _Optional[_Union[AgentInfo, _Mapping]] = ..., status: _Optional[_Union[AgentStatus, _Mapping]] = ...) -> None: ...

class AgentInfo(_message.Message):
    __slots__ = ("agent_id", "incarnation", "host", "pid", "engine", "specialization", "capabilities", "device", "boot_id", "lease_ms")
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
    def __init__(self, agent_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., engine: _Optional[str] = ..., specialization: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., device: _Optional[str] = ..., boot_id: _Optional[str] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class AgentStatus(_message.Message):
    __slots__ = ("agent_id", "incarnation", "state", "models", "slots", "active", "queued", "resources", "detail")
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
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    incarnation: int
    state: State
    models: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    active: int
    queued: int
    resources: _containers.ScalarMap[str, float]
    detail: str
    def __init__(self, agent_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., models: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., active: _Optional[int] = ..., queued: _Optional[int] = ..., resources: _Optional[_Mapping[str, float]] = ..., detail: _Optional[str] = ...) -> None: ...

class TaskRequest(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "kind", "model", "body", "stream", "resume", "priority", "time_left_ms", "credit", "hops", "trace")
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
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[Kind, str]] = ..., model: _Optional[str] = ..., body: _Optional[str] = ..., stream: _Optional[bool] = ..., resume: _Optional[str] = ..., priority: _Optional[int] = ..., time_left_ms: _Optional[int] = ..., credit: _Optional[int] = ..., hops: _Optional[int] = ..., trace: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("hub_id", "task_id", "attempt", "seq", "deltas", "extra", "final", "finish_reason", "usage", "error", "received_ns", "started_ns", "first_ns", "last_ns")
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
    def __init__(self, hub_id: _Optional[str] = ..., task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., seq: _Optional[int] = ..., deltas: _Optional[_Iterable[str]] = ..., extra: _Optional[str] = ..., final: _Optional[bool] = ..., finish_reason: _Optional[str] = ..., usage: _Optional[str] = ..., error: _Optional[str] = ..., received_ns: _Optional[int] = ..., started_ns: _Optional[int] = ..., first_ns: _Optional[int] = ..., last_ns: _Optional[int] = ...) -> None: ...

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

class Drain(_message.Message):
    __slots__ = ("hub_id", "reason")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    reason: str
    def __init__(self, hub_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
