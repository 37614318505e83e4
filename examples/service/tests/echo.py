"""A service with a model of its own, as a file."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from anywire.context import Context
from anywire.engine import Delta
from anywire.errors import InvalidRequest
from anywire.hookspecs import hookimpl
from anywire.offers import Offer
from anywire.service import Service
from anywire.submission import Submission


class Echo(Service):
    name = "echo"

    async def start(self, context: Context) -> None: ...
    async def close(self) -> None: ...

    def offers(self) -> tuple[Offer, ...]:
        return (Offer("echo", kinds=("chat",)),)

    async def answer(self, task_id: str, submission: Submission) -> AsyncGenerator[Delta, None]:
        try:
            messages = json.loads(submission.body)["messages"]
            words = [each["content"] for each in messages if each["role"] == "user"][-1].split()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InvalidRequest("the last message of a user must be text", param="messages") from error
        for word in words:
            yield Delta(f"{word} ")
        count = len(words)
        usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count}
        yield Delta(finish_reason="stop", usage=json.dumps(usage))


@hookimpl
def anywire_register(kind: str) -> dict[str, type] | None:
    return {"echo": Echo} if kind == "services" else None
