"""The one table of what the gateway serves: method, path, the role that a caller needs, and what answers.

Everything follows from it: what is found, which methods a path allows, who is let in, the page of the API, its
description, and the tests of who is not. Routes of services join it with their own roles (`service_routes`).

A new endpoint is a line in `own_endpoints`. Its handler has a docstring, whose first paragraph says what it answers,
and `anywire_gateway_openai.openapi.form.described` with what it takes and gives: the type that checks its body, the
type of its answer, that of the data of its events, the members of its query, the statuses of its errors beside those
that every endpoint has, and whether it makes a task. Then `openapi.json` tells of it, and tests hold its answers to
that.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from anywire.caller import Role
from anywire.route import Route
from anywire_gateway_openai.agent_commands import AgentCommandHandler
from anywire_gateway_openai.agent_orders import AgentOrderHandlers
from anywire_gateway_openai.anthropic.error_form import ANTHROPIC_FORM
from anywire_gateway_openai.anthropic.handlers import MessageHandlers
from anywire_gateway_openai.background import BackgroundHandlers
from anywire_gateway_openai.catalogue import CatalogueHandlers
from anywire_gateway_openai.errors import OPENAI_FORM, ErrorForm
from anywire_gateway_openai.event_streams import EventHandler
from anywire_gateway_openai.metrics import Metrics
from anywire_gateway_openai.ollama.catalogue import OllamaCatalogue
from anywire_gateway_openai.ollama.error_form import OLLAMA_FORM
from anywire_gateway_openai.ollama.handlers import OllamaHandlers
from anywire_gateway_openai.openapi.form import Form, form_of, form_of_route
from anywire_gateway_openai.openapi.handler import ApiDescription
from anywire_gateway_openai.registration import RegistrationHandler
from anywire_gateway_openai.responses.creating import ResponseHandler
from anywire_gateway_openai.responses.kept import KeptResponseHandlers
from anywire_gateway_openai.task_views import TaskViewHandlers
from anywire_gateway_openai.tasks import TaskHandlers
from anywire_gateway_openai.websocket import ChatSockets
from anywire_gateway_openai.whole.handlers import WholeHandlers

Handler = Callable[..., Awaitable[web.StreamResponse]]
"""Gets the request, and after it a text for each name in braces of the path."""
BASES = ("/v1", "/api/v1")
OLLAMA = "/api"
_NAME = re.compile(r"\{(\w+)\}")


class Endpoint(NamedTuple):
    """``path`` is the whole path; a name in braces stands for the rest of it, or for a part. ``role`` is the least that
    a caller needs, None where everybody is let in; without keys it counts only with ``always``, as for services.
    ``errors`` is the form of what goes wrong there. ``route`` is what a service has said of it, None for the gateway's
    own.
    """

    method: str
    path: str
    role: Role | None
    handler: Handler
    always: bool = False
    errors: ErrorForm = OPENAI_FORM
    route: Route | None = None

    @property
    def summary(self) -> str:
        """What it answers: the first paragraph of the handler's docstring, or what the service says of its route."""
        if self.route is not None:
            return self.route.summary
        return (inspect.getdoc(self.handler) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def form(self) -> Form:
        """What it takes and gives, as far as that was said."""
        return form_of_route(self.route) if self.route is not None else form_of(self.handler) or Form()


Methods = Mapping[str, Endpoint]


class EndpointTable:
    """Finds endpoints by path. Where several match, whole paths go first, then those that stand first."""

    def __init__(self, endpoints: Iterable[Endpoint], name: str = "[^/].*") -> None:
        """``name`` is the pattern of what a name in braces stands for."""
        self.endpoints = list(endpoints)
        self._exact: dict[str, dict[str, Endpoint]] = {}
        named: dict[str, dict[str, Endpoint]] = {}
        for each in self.endpoints:
            (named if "{" in each.path else self._exact).setdefault(each.path, {})[each.method] = each
        self._named = [(_pattern(path, name), methods) for path, methods in named.items()]

    def exact(self, path: str) -> Methods | None:
        """The endpoints at a path without names, by method."""
        return self._exact.get(path)

    def named(self, path: str) -> tuple[Methods, tuple[str, ...]] | None:
        """The endpoints at a path with names, by method, and what the names stand for."""
        for pattern, methods in self._named:
            match = pattern.fullmatch(path)
            if match is not None:
                return methods, match.groups()
        return None

    def at(self, path: str) -> tuple[Methods, tuple[str, ...]] | None:
        exact = self._exact.get(path)
        return (exact, ()) if exact is not None else self.named(path)


def path_names(path: str) -> list[str]:
    """The names in the braces of ``path``."""
    return _NAME.findall(path)


def _pattern(path: str, name: str) -> re.Pattern[str]:
    """What ``path`` matches: a group for each name in braces, which is anything that ``name`` matches."""
    parts = re.split(r"\{\w+\}", path)
    return re.compile(f"({name})".join(map(re.escape, parts)), re.DOTALL)


def own_endpoints(
    tasks: TaskHandlers,
    responses: ResponseHandler,
    kept: KeptResponseHandlers,
    messages: MessageHandlers,
    background: BackgroundHandlers,
    views: TaskViewHandlers,
    events: EventHandler,
    catalogue: CatalogueHandlers,
    commands: AgentCommandHandler,
    orders: AgentOrderHandlers,
    registration: RegistrationHandler,
    sockets: ChatSockets,
    metrics: Metrics,
    whole: WholeHandlers,
    ollama: OllamaHandlers,
    ollamas: OllamaCatalogue,
    description: ApiDescription,
) -> list[Endpoint]:
    """The gateway's own. What is observed needs the role `observe`, as it tells of everybody; whose tasks are seen and
    cancelled follows the caller. Who may register is the transport's to say."""
    below: Sequence[tuple[str, str, Role | None, Any]] = (
        ("POST", "/chat/completions", "use", tasks.chat),
        ("GET", "/chat/completions", "use", sockets.chat_beside_post),
        ("POST", "/chat/completions_stream", "use", tasks.chat_stream),
        ("GET", "/ws/chat", "use", sockets.chat),
        ("POST", "/completions", "use", tasks.completion),
        ("POST", "/embeddings", "use", tasks.embedding),
        ("POST", "/rerank", "use", whole.rerank),
        ("POST", "/reranking", "use", whole.rerank),
        ("POST", "/tokenize", "use", whole.tokenize),
        ("POST", "/detokenize", "use", whole.detokenize),
        ("POST", "/audio/transcriptions", "use", whole.transcription),
        ("POST", "/audio/speech", "use", whole.speech),
        ("POST", "/images/generations", "use", whole.image),
        ("POST", "/responses", "use", responses.create),
        ("GET", "/responses/{id}/input_items", "use", kept.input_items),
        ("POST", "/responses/{id}/cancel", "use", kept.cancel),
        ("GET", "/responses/{id}", "use", kept.get),
        ("DELETE", "/responses/{id}", "use", kept.delete),
        ("GET", "/models", "use", catalogue.models),
        ("GET", "/models/{id}", "use", catalogue.model),
        ("GET", "/tasks", "use", views.list),
        ("GET", "/tasks/{id}/follow", "use", views.follow),
        ("GET", "/tasks/{id}/answer", "use", background.answer),
        ("DELETE", "/tasks/{id}/answer", "use", background.forget),
        ("GET", "/tasks/{id}", "use", views.get),
        ("DELETE", "/tasks/{id}", "use", views.cancel),
        ("GET", "/events", "use", events.events),
        ("GET", "/caller", "use", catalogue.caller),
        ("GET", "/agents", "observe", catalogue.agents),
        ("POST", "/agents/register", None, registration.register),
        ("GET", "/stats", "observe", catalogue.stats),
    )
    of_anthropic: Sequence[tuple[str, str, Role, Any]] = (
        ("POST", "/messages", "use", messages.create),
        ("POST", "/messages/count_tokens", "use", messages.count_tokens),
    )
    # Without keys too these are for operators alone.
    ordering: Sequence[tuple[str, str, Role, Any]] = (
        # First, as commands have any names.
        ("POST", "/agents/{id}/commands/{name}", "operate", commands.command),
        ("POST", "/agents/{id}/drain", "operate", orders.drain),
        ("POST", "/agents/{id}/isolate", "operate", orders.isolate),
        ("POST", "/agents/{id}/restore", "operate", orders.restore),
    )
    beside: Sequence[tuple[str, str, Role | None, Any]] = (
        ("GET", "/health", None, catalogue.health),
        ("GET", "/version", "use", catalogue.version),
        ("GET", "/metrics", "observe", metrics.handle),
        ("GET", "/openapi.json", "use", description.describe),
    )
    of_ollama: Sequence[tuple[str, str, Role, Any]] = (
        ("POST", "/chat", "use", ollama.chat),
        ("POST", "/generate", "use", ollama.generate),
        ("POST", "/embed", "use", ollama.embed),
        ("POST", "/embeddings", "use", ollama.embeddings),
        ("GET", "/version", "use", ollamas.version),
        ("GET", "/tags", "use", ollamas.tags),
        ("GET", "/ps", "use", ollamas.ps),
        ("POST", "/show", "use", ollamas.show),
        ("POST", "/pull", "use", ollamas.pull),
        ("POST", "/push", "use", ollamas.push),
        ("POST", "/create", "use", ollamas.create),
        ("POST", "/copy", "use", ollamas.copy),
        ("DELETE", "/delete", "use", ollamas.delete),
        ("GET", "/blobs/{id}", "use", ollamas.blob),
        ("POST", "/blobs/{id}", "use", ollamas.blob),
    )
    return [
        *(Endpoint("GET", path, "use", catalogue.index) for path in ("/", *BASES)),
        Endpoint("GET", "/healthz", None, catalogue.alive),
        Endpoint("GET", "/readyz", None, catalogue.health),
        *(Endpoint(method, base + path, *rest) for base in ("", *BASES) for method, path, *rest in beside),
        *(Endpoint(method, base + path, *rest) for base in BASES for method, path, *rest in below),
        *(
            Endpoint(method, base + path, role, handler, errors=ANTHROPIC_FORM)
            for base in BASES
            for method, path, role, handler in of_anthropic
        ),
        *(
            Endpoint(method, base + path, role, handler, always=True)
            for base in BASES
            for method, path, role, handler in ordering
        ),
        Endpoint("POST", "/v2/rerank", "use", whole.rerank),  # Cohere's
        *(
            Endpoint(method, OLLAMA + path, role, handler, errors=OLLAMA_FORM)
            for method, path, role, handler in of_ollama
        ),
    ]
