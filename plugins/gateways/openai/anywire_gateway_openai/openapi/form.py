"""What an endpoint takes and gives, said beside its handler by `described`, and read by the API's description.

A type is whatever msgspec can read or write (a struct, ``list[int]``, ``dict[str, Any]`` …), a pydantic model, or a
tuple of those for one or the other. Where the handler checks its body with a type, that is the one to name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from anywire.route import Route
from anywire_gateway_openai.openapi.answer_types import Error

Handler = TypeVar("Handler", bound=Callable[..., Any])
_FORM = "anywire_form"
"""Attribute of a handler that has one."""

JSON, EVENTS, LINES = "application/json", "text/event-stream", "application/x-ndjson"
NOTHING: Mapping[Any, Any] = {}


class Query(NamedTuple):
    """One member of a query. ``schema`` is JSON Schema."""

    meaning: str
    schema: Mapping[str, Any] = {"type": "string"}


class Form(NamedTuple):
    """``takes`` is the type of the body, None where none is read; it is sent as ``takes_as``, and may be left out where
    ``may_be_empty``. ``refuses`` are members of the body that are refused, each with the reason.

    ``gives`` is the type of a whole answer's JSON, None where no answer is JSON; ``status`` is the answer's, and
    ``also`` has the types of answers with other statuses that are no errors (None: an empty answer). ``events`` is the
    type of the data of each event, but for the last where that is ``last_event``; ``lines`` is that of each line of
    JSON; both are None where nothing is streamed so. ``others`` are media types of other answers.

    ``is_task`` says that the endpoint makes a task, and takes the headers of one; ``is_answer`` that it tells what has
    become of one, or of a command: with the headers of an answer, and with whatever error. The first includes the
    second. ``errors`` are the statuses of errors beside those that every endpoint has, ``fault`` is the type of an
    error's JSON.
    """

    takes: Any = None
    takes_as: str = JSON
    may_be_empty: bool = False
    refuses: Mapping[str, str] = NOTHING
    gives: Any = None
    status: int = 200
    also: Mapping[int, Any] = NOTHING
    events: Any = None
    last_event: str = ""
    lines: Any = None
    others: tuple[str, ...] = ()
    query: Mapping[str, Query] = NOTHING
    is_task: bool = False
    is_answer: bool = False
    errors: tuple[int, ...] = ()
    fault: Any = Error

    @property
    def fails_anyhow(self) -> bool:
        """Whether it fails in every way that a task does."""
        return self.is_task or self.is_answer


def described(form: Form) -> Callable[[Handler], Handler]:
    """Say of a handler what its endpoint takes and gives."""

    def mark(handler: Handler) -> Handler:
        handler.__dict__[_FORM] = form
        return handler

    return mark


def form_of(handler: object) -> Form | None:
    """What `described` has said of it, None where it was not used."""
    form = getattr(handler, _FORM, None)
    return form if isinstance(form, Form) else None


def form_of_route(route: Route) -> Form:
    """What a service says of its route."""
    return Form(
        takes=Any if route.takes is None and route.method in ("POST", "PUT", "PATCH") else route.takes,
        may_be_empty=route.takes is None,
        gives=Any if route.gives is None else route.gives,
        query={name: Query(meaning) for name, meaning in route.query.items()},
    )
