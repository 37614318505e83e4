"""What errors look like in the API's description: a response for each status."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from anywire_gateway_openai.errors import CLIENT_GONE, STATUS
from anywire_gateway_openai.openapi.schemas import Schema, plain
from anywire_gateway_openai.openapi.told_headers import OF_ANSWERS, OF_ERRORS

ALWAYS = (400, 500, 503)
"""Statuses of errors that every endpoint may have."""
OF_BODIES = (408, 413, 415, 417)
OF_CALLERS = (401, 403)

_OF_HTTP: Mapping[int, str] = {
    400: "`key_in_url`: A key in a URL stays in logs.",
    403: "`origin_not_allowed`: A web page from elsewhere may not use this server.",
    404: "`not_found`, or a code that names what is not there: There is nothing of that name.",
    405: "`method_not_allowed`: The path has no such method.",
    408: "`body_timeout`: The body was not complete in time.",
    409: "A code that names what is in the way: It cannot be done as things are.",
    415: "`unsupported_media_type`: The body is sent as `application/json`.",
    417: "`expectation_failed`: The only `Expect` is `100-continue`.",
    426: "`upgrade_required`: The path is that of a WebSocket.",
    429: "`too_many_streams`: So many event streams are open already.",
    500: "`internal_error`: A fault of the server; its log has more.",
    503: "`overloaded`: The requests under way have too many bytes together.",
}
"""What errors mean that are of HTTP alone, or of several parts."""

OF_TASKS = frozenset(STATUS.values()) - {CLIENT_GONE}
"""Statuses with which a task may fail. A client that has gone sees none."""
STATUSES = sorted({*OF_TASKS, *_OF_HTTP})


def response(text: str, headers: Iterable[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """A response with these headers and contents by media type."""
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return {"description": text, "headers": told} | ({"content": dict(content)} if content else {})


def error_response(status: int, schema: Schema) -> dict[str, Any]:
    """The response of an error: its codes and what they mean. That of 401 says which keys are taken."""
    codes = [f"`{cls.code}`: {plain(inspect.getdoc(cls) or '')}"
             for cls, each in STATUS.items() if each == status and cls.code != "error"]  # fmt: skip
    if status in _OF_HTTP:
        codes.append(_OF_HTTP[status])
    told = _told("\n".join(f"- {each}" for each in codes), schema)
    if status == 401:
        told["headers"]["www-authenticate"] = {"schema": {"type": "string"}}
    return told


def others_refusal(schema: Schema) -> dict[str, Any]:
    """The response of an error with a status that an engine or a service has chosen."""
    return _told("What an engine or a service refuses.", schema)


def _told(text: str, schema: Schema) -> dict[str, Any]:
    return response(text, (*OF_ANSWERS, *OF_ERRORS), {"application/json": {"schema": schema}})
