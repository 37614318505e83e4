"""The OpenAPI 3.1 document of an API, made of its table of endpoints: a pure function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from anywire.caller import Role
from anywire.route import Route
from anywire_gateway_openai.errors import ErrorForm, HttpError
from anywire_gateway_openai.openapi import told_headers
from anywire_gateway_openai.openapi.error_responses import (
    ALWAYS,
    OF_BODIES,
    OF_CALLERS,
    OF_TASKS,
    STATUSES,
    error_response,
    others_refusal,
    response,
)
from anywire_gateway_openai.openapi.form import EVENTS, JSON, LINES, Form
from anywire_gateway_openai.openapi.schemas import Schema, Schemas, plain

OPENAPI = "3.1.0"
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `anywire keys create`."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
"""How a caller may show a key."""
SAID_OF_EVENTS = "Each server-sent event. Where the answer fails, the last one has `error` in its data."
SAID_OF_LINES = "Lines of JSON, each of the schema `x-line-schema`. Where the answer fails, the last one has `error`."
MEANINGS = {101: "A WebSocket.", 202: "There is no answer yet.", 304: "Nothing has changed.",
            503: "The same, while nothing is taken in any more."}  # fmt: skip
"""Of answers that are no errors, and are not the usual ones."""
OTHERS = "4XX"
"""What OpenAPI calls every status of a refusal that is not named."""
_NAME = re.compile(r"\{(\w+)\}")


class Served(Protocol):
    """An endpoint, as `anywire_gateway_openai.endpoint_table.Endpoint` is one."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def role(self) -> Role | None: ...
    @property
    def errors(self) -> ErrorForm: ...
    @property
    def route(self) -> Route | None: ...
    @property
    def summary(self) -> str: ...
    @property
    def form(self) -> Form: ...


def document(endpoints: Iterable[Served], bases: Sequence[str], version: str, *, needs_key: bool) -> dict[str, Any]:
    """The document, as plain JSON types. ``bases`` are the paths below which the same is served: it is told of the
    first, and of what is at the root too, there alone. A type that has no schema may be anything."""
    told = list(_each_once(list(endpoints), bases))
    schemas = Schemas(kind for each in told for kind in _types_of(each))
    paths: dict[str, dict[str, Any]] = {}
    for each in told:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas, bases[0], needs_key)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Anywire",
            "version": version,
            "summary": "The HTTP API of an orchestrator.",
            "description": f"What is below `{bases[0]}` is below {' and '.join(f'`{each}`' for each in bases[1:])} "
            "too. The role that a caller needs is named in each operation's `security`; where no keys are configured, "
            "none is needed there.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "parameters": told_headers.parameters(),
            "headers": told_headers.answer_headers(),
            "responses": _errors(told, schemas),
            "securitySchemes": KEYS,
        },
    }


def _each_once(endpoints: Sequence[Served], bases: Sequence[str]) -> Iterator[Served]:
    """Without paths at which is what another path has."""
    known = {(each.method, each.path) for each in endpoints}
    for each in endpoints:
        base = next((base for base in bases if f"{each.path}/".startswith(f"{base}/")), None)
        if base is not None:
            rest = each.path.removeprefix(base)
            if (each.method, rest or "/") in known or (base != bases[0] and (each.method, bases[0] + rest) in known):
                continue
        yield each


def _types_of(endpoint: Served) -> Iterator[Any]:
    form = endpoint.form
    told = (form.takes, form.gives, form.events, form.lines, _fault(endpoint), *form.also.values())
    yield from (each for each in told if each is not None)


def _fault(endpoint: Served) -> Any:
    """The type of an error's JSON."""
    return endpoint.errors.told_as if endpoint.form.fault is None else endpoint.form.fault


def _told_status(endpoint: Served, status: int) -> int:
    """What clients of an endpoint get for a status of OpenAI's form."""
    return endpoint.errors.status(HttpError(status, "", ""))


def _errors(endpoints: Iterable[Served], schemas: Schemas) -> dict[str, Any]:
    """A response for each status of errors, in each of their forms."""
    found: dict[str, Any] = {}
    for each in {_fault(each): each for each in endpoints}.values():
        by_status: dict[int, list[int]] = {}
        for status in STATUSES:
            by_status.setdefault(_told_status(each, status), []).append(status)
        schema = schemas.of(_fault(each))
        found |= {_error_name(each, told): error_response(of, schema) for told, of in by_status.items()}
        found[_error_name(each, OTHERS)] = others_refusal(schema)
    return found


def _operation(endpoint: Served, schemas: Schemas, base: str, needs_key: bool) -> dict[str, Any]:
    form, route, path = endpoint.form, endpoint.route, endpoint.path.removeprefix(base)
    names = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _NAME.findall(path)
    ]
    query = [
        {"name": name, "in": "query", "required": False, "description": each.meaning, "schema": dict(each.schema)}
        for name, each in form.query.items()
    ]
    headers = told_headers.OF_REQUESTS if form.is_task else ("x-request-id",)
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}_{re.sub(r'[^a-zA-Z0-9]+', '_', path).strip('_') or 'index'}",
        "tags": [path.strip("/").split("/", 1)[0] or "server"],
        "summary": plain(endpoint.summary),
        "parameters": [*names, *query, *({"$ref": f"#/components/parameters/{name}"} for name in headers)],
        "security": _security(endpoint.role, needs_key),
        "responses": _responses(endpoint, schemas),
    }
    if form.takes is not None:
        schema = schemas.without(form.takes, form.refuses)
        operation["requestBody"] = {"required": not form.may_be_empty, "content": {form.takes_as: {"schema": schema}}}
    if route is not None and route.service:
        operation["x-anywire-service"] = route.service
    return operation


def _security(role: Role | None, needs_key: bool) -> list[dict[str, list[str]]]:
    if role is None:
        return []
    keys: list[dict[str, list[str]]] = [{name: [role]} for name in KEYS]
    return keys if needs_key else [{}, *keys]


def _responses(endpoint: Served, schemas: Schemas) -> dict[str, Any]:
    form, route = endpoint.form, endpoint.route
    headers = (*told_headers.OF_ANSWERS, *(told_headers.OF_TASK_ANSWERS if form.fails_anyhow else ()))
    found: dict[str, Any] = {}
    if route is not None:  # it may answer as it wants
        content = {"*/*": {}} if route.gives is None else _content(endpoint, schemas)
        found["2XX"] = response("What the service answers.", headers, content)
    elif form.status:
        found[str(form.status)] = response(
            MEANINGS.get(form.status, "The answer."), headers, _content(endpoint, schemas)
        )
    for status, kind in form.also.items():
        more = told_headers.OF_TAKEN if status == 202 else ()
        given = {JSON: {"schema": schemas.of(kind)}} if kind is not None else {}
        found[str(status)] = response(MEANINGS.get(status, "Another answer."), (*headers, *more), given)
    for status in _errors_of(endpoint):
        found.setdefault(str(status), {"$ref": f"#/components/responses/{_error_name(endpoint, status)}"})
    if form.fails_anyhow or route is not None:
        found[OTHERS] = {"$ref": f"#/components/responses/{_error_name(endpoint, OTHERS)}"}
    return found


def _content(endpoint: Served, schemas: Schemas) -> dict[str, Any]:
    form, fault = endpoint.form, _fault(endpoint)
    content: dict[str, Any] = {}
    if form.gives is not None:
        content[JSON] = {"schema": schemas.of(form.gives)}
    if form.events is not None:
        content[EVENTS] = {"schema": _event(schemas.any_of(form.events, fault), form.last_event)}
    if form.lines is not None:
        content[LINES] = {
            "schema": {"type": "string", "description": SAID_OF_LINES},
            "x-line-schema": schemas.of(form.lines),
        }
    return content | {each: {"schema": {"type": "string"}} for each in form.others}


def _event(data: Schema, last: str) -> Schema:
    """Clients that know server-sent events validate each of them by the schema of such a stream."""
    text: Schema = {"contentMediaType": JSON, "contentSchema": data}
    if last:
        text = {"anyOf": [{"const": last}, text]}
    members = {"data": {"type": "string"} | text, "event": {"type": "string"}, "id": {"type": "string"}}
    return {"type": "object", "description": SAID_OF_EVENTS, "properties": members, "required": ["data"]}


def _errors_of(endpoint: Served) -> list[int]:
    form = endpoint.form
    found = {*ALWAYS, *form.errors}
    if endpoint.role is not None:
        found |= {*OF_CALLERS}
    if form.takes is not None:
        found |= {*OF_BODIES}
    if _NAME.search(endpoint.path):
        found.add(404)
    if form.fails_anyhow or endpoint.route is not None:
        found |= OF_TASKS
    return sorted({_told_status(endpoint, each) for each in found})


def _error_name(endpoint: Served, status: int | str) -> str:
    return f"{_fault(endpoint).__name__}{status}"
