import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecuteDeliberationRequest(_message.Message):
    __slots__ = ("task_id", "task_description", "role", "constraints", "agents", "vllm_url", "vllm_model")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    VLLM_URL_FIELD_NUMBER: _ClassVar[int]
    VLLM_MODEL_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_description: str
    role: str
    constraints: TaskConstraints
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    vllm_url: str
    vllm_model: str
    def __init__(self, task_id: _Optional[str] = ..., task_description: _Optional[str] = ..., role: _Optional[str] = ..., constraints: _Optional[_Union[TaskConstraints, _Mapping]] = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., vllm_url: _Optional[str] = ..., vllm_model: _Optional[str] = ...) -> None: ...

class ExecuteBacklogReviewDeliberationRequest(_message.Message):
    __slots__ = ("task_id", "task_description", "role", "constraints", "agents", "vllm_url", "vllm_model")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    VLLM_URL_FIELD_NUMBER: _ClassVar[int]
    VLLM_MODEL_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_description: str
    role: str
    constraints: BacklogReviewTaskConstraints
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    vllm_url: str
    vllm_model: str
    def __init__(self, task_id: _Optional[str] = ..., task_description: _Optional[str] = ..., role: _Optional[str] = ..., constraints: _Optional[_Union[BacklogReviewTaskConstraints, _Mapping]] = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., vllm_url: _Optional[str] = ..., vllm_model: _Optional[str] = ...) -> None: ...

class TaskConstraints(_message.Message):
    __slots__ = ("story_id", "plan_id", "timeout_seconds", "max_retries", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STORY_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    story_id: str
    plan_id: str
    timeout_seconds: int
    max_retries: int
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, story_id: _Optional[str] = ..., plan_id: _Optional[str] = ..., timeout_seconds: _Optional[int] = ..., max_retries: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BacklogReviewTaskConstraints(_message.Message):
    __slots__ = ("story_id", "timeout_seconds", "max_retries", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STORY_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    story_id: str
    timeout_seconds: int
    max_retries: int
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, story_id: _Optional[str] = ..., timeout_seconds: _Optional[int] = ..., max_retries: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Agent(_message.Message):
    __slots__ = ("id", "role", "model", "prompt_template")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    role: str
    model: str
    prompt_template: str
    def __init__(self, id: _Optional[str] = ..., role: _Optional[str] = ..., model: _Optional[str] = ..., prompt_template: _Optional[str] = ...) -> None: ...

class ExecuteDeliberationResponse(_message.Message):
    __slots__ = ("task_id", "deliberation_id", "status", "message")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DELIBERATION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    deliberation_id: str
    status: str
    message: str
    def __init__(self, task_id: _Optional[str] = ..., deliberation_id: _Optional[str] = ..., status: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class GetDeliberationStatusRequest(_message.Message):
    __slots__ = ("deliberation_id",)
    DELIBERATION_ID_FIELD_NUMBER: _ClassVar[int]
    deliberation_id: str
    def __init__(self, deliberation_id: _Optional[str] = ...) -> None: ...

class GetDeliberationStatusResponse(_message.Message):
    __slots__ = ("status", "result", "error_message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    result: DeliberationResult
    error_message: str
    def __init__(self, status: _Optional[str] = ..., result: _Optional[_Union[DeliberationResult, _Mapping]] = ..., error_message: _Optional[str] = ...) -> None: ...

class DeliberationResult(_message.Message):
    __slots__ = ("agent_id", "proposal", "reasoning", "score", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    proposal: str
    reasoning: str
    score: float
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, agent_id: _Optional[str] = ..., proposal: _Optional[str] = ..., reasoning: _Optional[str] = ..., score: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("include_stats",)
    INCLUDE_STATS_FIELD_NUMBER: _ClassVar[int]
    include_stats: bool
    def __init__(self, include_stats: _Optional[bool] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status", "uptime_seconds", "stats")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    status: str
    uptime_seconds: int
    stats: RayExecutorStats
    def __init__(self, status: _Optional[str] = ..., uptime_seconds: _Optional[int] = ..., stats: _Optional[_Union[RayExecutorStats, _Mapping]] = ...) -> None: ...

class RayExecutorStats(_message.Message):
    __slots__ = ("total_deliberations", "active_deliberations", "completed_deliberations", "failed_deliberations", "average_execution_time_ms")
    TOTAL_DELIBERATIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_DELIBERATIONS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_DELIBERATIONS_FIELD_NUMBER: _ClassVar[int]
    FAILED_DELIBERATIONS_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_EXECUTION_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    total_deliberations: int
    active_deliberations: int
    completed_deliberations: int
    failed_deliberations: int
    average_execution_time_ms: float
    def __init__(self, total_deliberations: _Optional[int] = ..., active_deliberations: _Optional[int] = ..., completed_deliberations: _Optional[int] = ..., failed_deliberations: _Optional[int] = ..., average_execution_time_ms: _Optional[float] = ...) -> None: ...

class GetActiveJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetActiveJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobInfo]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobInfo, _Mapping]]] = ...) -> None: ...

class JobInfo(_message.Message):
    __slots__ = ("job_id", "name", "status", "submission_id", "role", "task_id", "start_time", "end_time", "runtime")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    name: str
    status: str
    submission_id: str
    role: str
    task_id: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    runtime: str
    def __init__(self, job_id: _Optional[str] = ..., name: _Optional[str] = ..., status: _Optional[str] = ..., submission_id: _Optional[str] = ..., role: _Optional[str] = ..., task_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runtime: _Optional[str] = ...) -> None: ...
