"""Headers of requests and answers, for the API's description: what they mean stands in the modules that read and write
them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from anywire.submission import MAX_NAME_CHARS
from anywire_gateway_openai import headers, request_headers
from anywire_gateway_openai.idempotency import MAX_KEY_CHARS
from anywire_gateway_openai.openapi.schemas import plain
from anywire_gateway_openai.request_headers import MAX_ATTEMPTS, MAX_PRIORITY, MAX_TIMEOUT_S

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
_FLAG: Schema = {"type": "boolean"}
_ROW = re.compile(r"^\| ``(?P<name>[\w-]+)`` \| (?P<meaning>.*?) \|", re.MULTILINE)

OF_TASKS: Mapping[str, Schema] = {
    "x-anywire-timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "x-anywire-priority": {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    "x-anywire-session": _NAME,
    "x-anywire-parent": _NAME,
    "x-anywire-prefer": TEXT,
    "x-anywire-avoid": TEXT,
    "x-anywire-hints": TEXT,
    "x-anywire-policy": _NAME,
    "x-anywire-attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS},
    "x-anywire-progress": _FLAG,
    "x-anywire-stages": _FLAG,
    "x-anywire-explain": _FLAG,
    "x-anywire-background": _FLAG,
    "idempotency-key": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[!-~]+$"},
    "cache-control": {"type": "string", "maxLength": 256},
    "traceparent": TEXT,
    "tracestate": TEXT,
}
"""Headers that say something of a task, with what they may hold."""
OF_REQUESTS: Mapping[str, Schema] = {"x-request-id": TEXT, **OF_TASKS}

OF_ANSWERS = ("x-request-id",)
OF_TASK_ANSWERS = (
    "x-anywire-task",
    "x-anywire-agent",
    "x-anywire-transport",
    "x-anywire-attempts",
    "x-anywire-model",
    "x-anywire-stages",
    "x-anywire-decision",
    "x-anywire-replayed",
    "x-anywire-trace",
    "x-anywire-ignored",
    "x-anywire-estimated",
    "x-anywire-cache",
    "x-anywire-cache-similarity",
    "x-anywire-fallback",
)
OF_TAKEN = ("location", "retry-after")
"""Of a 202."""
OF_ERRORS = (
    "x-anywire-origin",
    "x-anywire-task",
    "x-anywire-agent",
    "x-anywire-attempts",
    "x-anywire-trace",
    "x-should-retry",
    "retry-after",
    "retry-after-ms",
)
_SCHEMAS: Mapping[str, Schema] = {
    "x-anywire-attempts": {"type": "integer", "minimum": 1},
    "x-anywire-origin": {"enum": ["client", "pipeline", "transport", "agent", "engine"]},
    "x-anywire-replayed": {"enum": ["true"]},
    "x-anywire-estimated": {"enum": ["true"]},
    "x-anywire-cache": {"enum": ["hit", "miss"]},
    "x-anywire-cache-similarity": {"type": "number"},
    "x-anywire-trace": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "x-should-retry": {"enum": ["true", "false"]},
    "retry-after": {"type": "integer", "minimum": 0},
    "retry-after-ms": {"type": "integer", "minimum": 0},
}


def parameters() -> dict[str, Any]:
    """A component for each header of a request."""
    meanings = meanings_of(request_headers)
    return {
        name: {
            "name": name,
            "in": "header",
            "required": False,
            "description": meanings.get(name, ""),
            "schema": dict(schema),
        }
        for name, schema in OF_REQUESTS.items()
    }


def answer_headers() -> dict[str, Any]:
    """A component for each header of an answer."""
    meanings = meanings_of(headers)
    return {
        name: {
            "description": meanings.get(name, ""),
            "required": name in OF_ANSWERS,
            "schema": dict(_SCHEMAS.get(name, TEXT)),
        }
        for name in dict.fromkeys((*OF_ANSWERS, *OF_TASK_ANSWERS, *OF_TAKEN, *OF_ERRORS))
    }


def meanings_of(module: ModuleType) -> dict[str, str]:
    """What each header means, by the table in the module's text."""
    found = _ROW.finditer(inspect.getdoc(module) or "")
    return {each["name"]: plain(each["meaning"]) for each in found}
