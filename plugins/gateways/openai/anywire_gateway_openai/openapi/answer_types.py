"""What answers look like, for the API's description. Members that an engine, or a newer version, says besides may be
there everywhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from anywire.agent_health import AgentHealth
from anywire.caller import Role
from anywire.context import TaskView
from anywire.decision import Decision
from anywire.messages import Kind, State
from anywire.offers import Offer, OfferState


class ErrorDetail(Struct):
    """``code`` is stable. ``param`` names the member of the request at fault. An engine may have said more."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    """Why there is no answer."""

    error: ErrorDetail


class TransportFault(Struct):
    """Why an agent is not registered: in this API's form, or in the words of its transport."""


# The server


class Index(Struct):
    """``api`` is the path below which the API is, ``url`` the whole address of it where that is known."""

    name: str
    version: str
    api: str
    url: str | UnsetType = UNSET


class ServerVersion(Struct):
    name: str
    version: str


class Health(Struct):
    """``agents`` and ``models`` are numbers, told to those alone who may know them."""

    status: Literal["ok", "closing"]
    agents: int | UnsetType = UNSET
    models: int | UnsetType = UNSET


# Models and agents


class Model(Struct):
    """A model as all of its agents offer it together: the best state, the longest context, every kind of task.
    ``context_length`` and ``max_model_len`` are the same, in tokens, null when unknown. ``digest`` names the weights
    exactly, null when unknown or where agents have different ones. ``features`` says of a need whether one of the
    agents meets it; what is not named is unknown. ``agents`` is how many have it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    state: OfferState
    context_length: int | None
    max_model_len: int | None
    kinds: list[Kind]
    features: dict[str, bool]
    digest: str | None
    on_demand: bool
    agents: int


class Models(Struct):
    object: Literal["list"]
    data: list[Model]


AgentHealthTold = msgspec.defstruct(
    "AgentHealth",
    [
        *((each.name, each.type) for each in msgspec.structs.fields(AgentHealth) if each.name != "retry_in_s"),
        ("retry_in_ms", int),
    ],
    namespace={"__doc__": AgentHealth.__doc__.replace("retry_in_s", "retry_in_ms") if AgentHealth.__doc__ else None},
)
"""Health as it is told: times in whole milliseconds."""


class Load(Struct):
    active: int
    queued: int
    in_flight: int


class Agent(Struct):
    """An agent that is known now."""

    id: str
    incarnation: int
    host: str
    pid: int
    transport: str
    engine: str
    models: list[str]
    offers: list[Offer]
    state: State
    detail: str
    slots: int
    load: Load
    completed: int
    failed: int
    latency_ms: float
    specialization: str
    capabilities: list[str]
    device: str
    resources: dict[str, float]
    health: AgentHealthTold  # type: ignore[valid-type]


class Agents(Struct):
    object: Literal["list"]
    data: list[Agent]


class Ordered(Struct):
    """The agent's health after an order."""

    id: str
    object: Literal["agent"]
    health: AgentHealthTold  # type: ignore[valid-type]


# Tasks

_TASK: list[Any] = [
    ("id", str),
    ("object", Literal["task"]),
    *((each.name, each.type) for each in msgspec.structs.fields(TaskView) if each.name not in ("task_id", "caller")),
    ("tenant", str),
    ("caller", str),
]
Task = msgspec.defstruct("Task", _TASK, namespace={"__doc__": TaskView.__doc__})
TaskTold = msgspec.defstruct("TaskRecord", [*_TASK, ("error", str), ("message", str), ("decisions", list[Decision])])


class Tasks(Struct):
    object: Literal["list"]
    data: list[Task]  # type: ignore[valid-type]
    more: int


class CallerTold(Struct):
    object: Literal["caller"]
    id: str
    tenant: str
    role: Role
    needs_key: bool


class TaskCancelled(Struct):
    id: str
    object: Literal["task"]
    cancelled: bool


class TaskDeleted(Struct):
    id: str
    object: Literal["task"]
    deleted: bool


class TaskTaken(Struct):
    """A background task. ``answer`` is the path of its answer."""

    id: str
    object: Literal["task"]
    background: bool
    answer: str


NoMembers = Annotated[dict[str, Any], Meta(max_length=0)]
"""Of an event that only says its name, as ``reset``."""


class FollowedChunk(Struct):
    """``seq`` counts pieces of text: where it jumps, the follower was too slow."""

    seq: int
    pieces: int
    text: str
    final: bool
    extra: Any = UNSET
    usage: Any = UNSET
    finish_reason: str | UnsetType = UNSET


# Chats, completions, embeddings


class Usage(Struct):
    """Tokens as the engine counts them."""

    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET


class ChatMessage(Struct):
    role: str | UnsetType = UNSET
    content: Any = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType | None = UNSET


class ChatAnswerChoice(Struct):
    index: int
    message: ChatMessage
    finish_reason: str | None
    logprobs: dict[str, Any] | UnsetType | None = UNSET


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatAnswerChoice]
    usage: Usage | UnsetType = UNSET


class ChatPieceChoice(Struct):
    index: int
    delta: ChatMessage
    finish_reason: str | None


class ChatCompletionChunk(Struct):
    """``[DONE]`` follows the last one. ``choices`` is empty in the one with the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatPieceChoice]
    usage: Usage | UnsetType | None = UNSET


class CompletionChoice(Struct):
    index: int
    text: str
    finish_reason: str | None
    logprobs: dict[str, Any] | UnsetType | None = UNSET


class Completion(Struct):
    """Whole, or a piece of one; ``[DONE]`` follows the last piece."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class Embedding(Struct):
    """``embedding`` is a list of numbers, or base64 of float32 (little endian) where that was asked for."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] | UnsetType = UNSET


class EmbeddingList(Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage | UnsetType = UNSET


# Responses


class Response(Struct):
    """A response as OpenAI defines it, with what the request asked for. ``output`` are the items of the answer."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    usage: dict[str, Any] | None
    store: bool
    metadata: dict[str, Any]
    previous_response_id: str | None
    conversation: dict[str, Any] | None


class ResponseEvent(Struct):
    """``type`` says what it is, as OpenAI names it: ``response.output_text.delta``, ``response.completed`` …"""

    type: str
    sequence_number: int


class ResponseDeleted(Struct):
    id: str
    object: Literal["response"]
    deleted: bool


class ItemPage(Struct):
    """Items of a response or a conversation. ``after`` of the next page is ``last_id``."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
