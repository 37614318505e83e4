"""The page of the HTTP API, from the gateway's table of routes, its headers, statuses and settings."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, get_type_hints

import pydantic

from anywire.pipeline_settings import PipelineConfig
from anywire_gateway_openai import OpenAIGatewayConfig, headers, request_headers
from anywire_gateway_openai.endpoint_table import BASES, Endpoint, own_endpoints
from anywire_gateway_openai.errors import STATUS
from anywire_gateway_openai.openapi.document import document
from errors_page import meaning, told
from tables import row, table

BASE, *OTHERS = BASES

PAGE = """\
# HTTP API

{note}

The gateway `openai` serves the OpenAI HTTP API, and beside it what an operator asks for. Its
[README](../../plugins/gateways/openai/README.md) tells of bodies, WebSocket, progress, web pages, callers and metrics.
Every client of OpenAI's API works with the base URL `http://127.0.0.1:8080{base}`.

## Paths

{others} is the same as `{base}`.

{paths}
`/openapi.json` tells all of it to programs, with types: [the gateway's own part](openapi.json) as a file.

HEAD is answered as GET, without the body. The role is the least that a client's key must have, where keys are
configured; a path without one is for everybody. `agents/register` asks for the token of the transport that takes the
agent; where clients need keys and the transport asks for no token and no identity, it takes none.

## Keys

Where keys are configured (`access.keys`), a client shows its own as `Authorization: Bearer KEY`, `x-api-key: KEY` or
`api-key: KEY`. A browser, which can set no header of a WebSocket, offers the subprotocols `anywire` and
`anywire-key.KEY`. A key in a URL is refused, as URLs stay in logs. No key, or one that does not count (any more), is
answered with 401 (`invalid_api_key`), a key without the role with 403 (`forbidden`), a task of another tenant with 404.
When a key is revoked or expires, its streams end with an error, and its WebSockets are closed with 4401.

## Headers of a request

All are optional. One that is out of its bounds is refused with 400, and the error's `param` names it.

{request}
`x-anywire-tenant` (128 printable characters) names who pays and whom fairness counts, where no keys are configured.

```sh
curl -si http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \\
  -H 'x-anywire-priority: 10' -H 'x-anywire-timeout: 30' \\
  -d '{{"model": "synthetic", "messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 8}}'
```

```text
HTTP/1.1 200 OK
…x-anywire-task: …
x-anywire-transport: …
x-anywire-agent: …
x-anywire-attempts: 1
x-anywire-model: synthetic
x-anywire-ignored: priority
x-anywire-stages: received-admitted;dur=…
…many then much my or more my could…
```

## Headers of an answer

{answer}
## Priorities

`x-anywire-priority` is read by schedulers that order by it, such as `priority` of `anywire-schedulers`. The default
scheduler `fifo` does not: an answer then says `x-anywire-ignored: priority`. With `anywire chat` it is `--priority`, in
Python `priority=`.

## Timeouts

A client sets the longest time of its task with `x-anywire-timeout`; without it `pipeline.deadline` counts. When
it is over, the task ends with 504. These settings bound the rest:

{times}
## Errors

An error is `{{"error": {{"message", "type", "param", "code"}}}}` with one of these statuses. In a stream that has begun
it is an event `data: {{"error": …}}`, and no `data: [DONE]` follows. An engine's own 4xx passes through.
[Errors](errors.md) says of each who failed, whether it is tried again, and what to do.

{statuses}
Others are of HTTP alone: 405 (another method), 408 (the body did not come in time), 415 (not `application/json`), 417
(an `Expect` other than `100-continue`), 426 (no WebSocket handshake).
"""


class _Handlers:
    """Stands for an instance of a class of handlers: its attributes are the class's functions."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name, None)


def own() -> list[Endpoint]:
    """The gateway's endpoints, with functions in place of bound methods."""
    handlers: dict[str, Any] = {
        name: _Handlers(cls) for name, cls in get_type_hints(own_endpoints).items() if name != "return"
    }
    return own_endpoints(**handlers)


def openapi_text() -> str:
    """The gateway's own part of `/openapi.json`, with keys."""
    told = document(own(), BASES, version("anywire"), needs_key=True)
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def endpoints() -> Iterator[tuple[str, str, str, str]]:
    """Method, path, role and meaning of everything that is served. Exits where a handler says nothing."""
    for each in own():
        if each.path.startswith(tuple(OTHERS)):
            continue
        if not each.summary:
            sys.exit(f"{each.handler.__module__}.{each.handler.__qualname__} has no docstring")
        yield each.method, f"`{each.path}`", f"`{each.role}`" if each.role else "", each.summary.replace("``", "`")


def whole_table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    return "\n".join(table(head, (row(*each) for each in rows))) + "\n"


def table_of(module: Any) -> str:
    """The table in a module's docstring."""
    rows = re.findall(r"^\|.*\|$", inspect.getdoc(module) or "", flags=re.MULTILINE)
    return "\n".join(rows).replace("``", "`") + "\n"


def times() -> Iterator[tuple[str, str, str]]:
    models: tuple[tuple[str, type[pydantic.BaseModel]], ...] = (
        ("pipeline.", PipelineConfig),
        ("gateways.openai.", OpenAIGatewayConfig),
    )
    for prefix, model in models:
        yield from times_of(prefix, model)


def times_of(prefix: str, model: type[pydantic.BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            yield from times_of(f"{prefix}{name}.", inner)
        elif (field.description or "").startswith("Seconds"):
            default = "(empty)" if field.default is None else f"`{field.default:g}`"
            yield f"`{prefix}{name}`", default, field.description or ""


def statuses() -> Iterator[tuple[str, str, str]]:
    """Status, code and meaning of every class of errors, by status."""
    for cls, status in sorted(STATUS.items(), key=lambda each: each[1]):
        yield str(status), f"`{told(cls)}`", meaning(cls)


def http_page(note: str) -> str:
    return PAGE.format(
        note=note,
        base=BASE,
        others=" and ".join(f"`{each}`" for each in OTHERS),
        paths=whole_table(("method", "path", "role", "answer"), endpoints()),
        request=table_of(request_headers),
        answer=table_of(headers),
        times=whole_table(("setting", "default", "meaning"), times()),
        statuses=whole_table(("status", "code", "when"), statuses()),
    )
