"""The page of errors, from what `anywire.errors` says of each class and the gateway of its status."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from anywire import errors
from anywire.errors import AnywireError
from anywire_gateway_openai.errors import FINAL, status_of
from tables import row, table

PAGE = """\
# Errors

{note}

Every error has a stable `code`, which an answer's body, events, metrics, logs and experiments name, and an `origin`:
who failed. `x-anywire-origin` tells it to a client, `TaskEnded.origin` and `AttemptEnded.origin` to subscribers,
`anywire_task_errors_total` to Prometheus. Where an engine gave a `code` of its own, the answer's body and the log's
line of the request have that one; events and metrics have the code of this page.

| origin | who failed |
|---|---|
| `client` | the request is at fault, or its client went away |
| `pipeline` | the orchestrator: nobody could take the task in time, it is shutting down, a plugin of it failed |
| `transport` | the link between orchestrator and agent |
| `agent` | the agent: it said nothing, or something that is no answer |
| `engine` | the engine behind the agent |

An orchestrator that is an agent of another one passes errors on with the origin that they had, and what arose below it
makes it rest while others answer, but never quarantines it.

*Sent again* is what the pipeline does, while `pipeline.max_attempts` and `pipeline.retries` allow it and the client has
seen no token. `elsewhere`: another agent gets the task, once one is free. Where there is none, an engine that says with
429, 503 or 529 that it has too much to do, and with `Retry-After` that it will soon have less, is asked again after
that time, up to `pipeline.retries.longest`. `anywhere`: any agent that is there gets it, another one first. What was
not sent, or was refused before the first token, costs no attempt. A stream that has begun goes on at another agent
where its engine can resume.

*Counts against* is whose circuit breaker (`pipeline.breaker`) counts it. An engine's own 4xx counts against nobody.

*Client* is whether a client that tries again may do better. `no`: the answer says `x-should-retry: false`, as it also
does where the pipeline has tried several times, or where the budget for retries is used up.

{table}
## What happened, and what to do

{meanings}"""


def classes() -> list[type[AnywireError]]:
    """Every class of errors with a code of its own, the base last. Exits where one says too little."""
    found = [cls for cls in errors.BY_CODE.values() if cls is not AnywireError]
    for cls in found:
        if not cls.__doc__ or "remedy" not in vars(cls):
            sys.exit(f"{cls.__module__}.{cls.__qualname__} says not what happened, or not what to do")
    return [*found, AnywireError]


def meaning(cls: type[AnywireError]) -> str:
    """What happened, in a sentence."""
    if cls is AnywireError:
        return "A fault of the server; its log has more."
    return (inspect.getdoc(cls) or "").replace("\n", " ").replace("``", "`")


def told(cls: type[AnywireError]) -> str:
    """The code that a client is told."""
    return "internal_error" if cls is AnywireError else cls.code


def _rows() -> Iterator[str]:
    for cls in classes():
        yield row(
            f"`{told(cls)}`",
            f"`{cls.__name__}`",
            cls.arises,
            str(status_of(cls(""))),
            cls.again or "no",
            cls.counts_against or "nobody",
            "no" if issubclass(cls, FINAL) else "yes",
        )


def errors_page(note: str) -> str:
    head = ("code", "class", "origin", "HTTP", "sent again", "counts against", "client")
    meanings = (row(f"`{told(cls)}`", meaning(cls), cls.remedy) for cls in classes())
    return PAGE.format(
        note=note,
        table="\n".join(table(head, _rows())) + "\n",
        meanings="\n".join(table(("code", "what happened", "what to do"), meanings)) + "\n",
    )
