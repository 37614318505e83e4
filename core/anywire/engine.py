"""The contract of an engine: what turns a task into text on an agent's machine.

An engine is driven by one agent. ``start`` is awaited once before anything else and ``close`` once at the end,
also after a failed ``start``. Between the two the agent calls ``run`` for up to ``slots`` tasks at a time.

``run`` is an async generator of `Delta`. The agent stops it by cancelling the task that iterates it, and closes it:
the generator sees ``CancelledError`` where it awaits or ``GeneratorExit`` where it yields, and a ``finally`` (or
``async with``) frees whatever the task held, at once. The agent makes
chunks of deltas, counts, retries and refuses: none of that is the engine's.

A command is run beside the tasks in the same way, by `Engine.command`.

A task of `anywire.messages.WholeKind` is answered by one delta whose ``extra`` is a JSON object:

``rerank``
    ``query``, ``documents`` (texts, or objects with a ``text``) and ``top_n`` in the body; ``results`` in the answer,
    each with ``index`` and ``relevance_score``.
``tokenize``
    ``prompt``, or a chat's ``messages`` and ``tools``; ``add_special_tokens`` (default true; a chat's template decides
    for itself), ``return_token_strs``. The answer: ``tokens``, ``count``, ``max_model_len`` where it is known, and
    ``token_strs`` where they were asked for.
``detokenize``
    ``tokens``; the answer: ``prompt``.
``transcription``
    ``file`` (base64), ``filename``, ``content_type``, and OpenAI's own members. The answer is OpenAI's, or ``content``
    and ``content_type`` of a text that is no JSON.
``speech``
    OpenAI's members; the answer: ``audio`` (base64) and ``content_type``.
``image``
    OpenAI's members; the answer is OpenAI's.

What ``run`` raises: `InvalidRequest` when the request is at fault, with the engine's status and parameter;
`EngineFailed` for everything else, with ``__cause__``. An answer without any token is `EngineFailed` too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.errors import UnknownCommand
from anywire.messages import ProgressState, State, TaskRequest
from anywire.offers import Offer


class Delta(msgspec.Struct, frozen=True, gc=False):
    """One step of an answer: usually one token's text.

    ``extra`` is JSON text for what plain text of choice 0 cannot carry: for ``chat`` and ``completion`` the
    OpenAI ``choices`` list of this step (tool calls, log probabilities, further choices) or an object with it and the
    members beside it (``system_fingerprint`` …), for ``embedding`` the ``data`` list, for the other kinds the object
    that the module's text tells. With ``extra`` set, ``text`` still holds choice 0's text, so that it can be counted
    and resumed.
    ``usage`` is the OpenAI usage object as JSON text, on the last delta that knows it.
    For a task with ``stream`` false one delta may hold the whole answer; the agent joins several. ``attempts_used`` is
    said by an orchestrator alone: how many attempts it has made for the task.

    ``parts`` are the texts of several tokens that were there at once, if ``text`` is these together: each is delivered
    as a delta of its own. Yielded in one step they cost less than one by one. Whoever looks at ``text`` alone misses
    nothing but where one token ends and the next begins.
    """

    text: str = ""
    extra: str = ""
    finish_reason: str = ""
    usage: str = ""
    attempts_used: int = 0
    parts: tuple[str, ...] = ()


class EngineProgress(msgspec.Struct, frozen=True, gc=False):
    """What an answer that is under way does, yielded by ``run`` beside its deltas: ``queued`` and ``loading`` before
    the first token, ``running``, or ``tool`` while a tool of the engine works. Sent where the client asks for it."""

    state: ProgressState
    detail: str = ""


class EngineStatus(msgspec.Struct, frozen=True):
    """What an engine can do now. ``offers`` are its models, those too that are not ready. ``detail`` says why when
    ``state`` is ``failed``.

    ``slots`` is for an engine whose slots change while it lives; None leaves them to the agent's configuration.
    ``any_model``: it wants to be asked for models that it does not list too, and answers for them itself.
    ``queued`` is how many tasks wait inside of it. ``resources`` are gauges to be reported beside the agent's own
    (`anywire.messages.GAUGES`).
    """

    state: State = "ready"
    offers: tuple[Offer, ...] = ()
    detail: str = ""
    slots: int | None = None
    any_model: bool = False
    queued: int = 0
    resources: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple([offer.model for offer in self.offers])


Create = Callable[[str, Mapping[str, Any], str], "Engine"]
"""Makes another engine: of its name, its settings, and where these stand in the configuration (``engine.inner``), for
errors."""


class Engine(ABC):
    """One engine, configured. ``__init__`` does no I/O."""

    name: ClassVar[str]
    Config: ClassVar[type[pydantic.BaseModel]]
    capabilities: tuple[str, ...] = ("chat",)
    """Task kinds (`anywire.messages.Kind`) and features; ``resume`` when ``run`` honours `TaskRequest.resume`
    for every model (for some models: the feature ``resume`` of their offers). Of the class, or of
    one engine by its config; the same for the engine's whole life. The kinds are those of offers that name none."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def assemble(self, create: Create) -> None:  # noqa: B027 - optional for a plugin
        """Called once, after it was made, so that it can make the engine that it puts something before with ``create``,
        which raises `ConfigError` and `PluginError`. `capabilities` count as they are after it."""

    @abstractmethod
    async def start(self, changed: Callable[[], None]) -> None:
        """Make it usable. ``changed`` is to be called on the event loop whenever `status` differs from before:
        a model loaded, the server behind it died or came back. Raises `EngineFailed` (with the last lines it
        logged) or `ConfigError` when it can never work as configured."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything, end every child process; idempotent."""

    @abstractmethod
    def status(self) -> EngineStatus:
        """The state now; cheap, called at every heartbeat."""

    @abstractmethod
    def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        """Answer ``task``; see the module's text."""

    def resumable(self, task: TaskRequest) -> bool:
        """Whether an answer to ``task`` that breaks off can be resumed from its text by another engine of this sort."""
        return "resume" in self.capabilities

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Carry out a command: yield any number of results, plain JSON types of at most 64 KiB each. It is stopped and
        closed like `run`. Raises `UnknownCommand` at once for a name it does not know, and otherwise, also while it
        runs, `InvalidRequest` and `EngineFailed`."""
        raise UnknownCommand(f"the engine {self.name} has no command {name!r}")
