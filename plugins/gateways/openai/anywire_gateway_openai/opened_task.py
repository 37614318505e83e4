"""A request's task from its submission to its end, for APIs beside OpenAI's chats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aiohttp import web

from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire.messages import Chunk
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire_gateway_openai.headers import answer_headers, stages_text
from anywire_gateway_openai.idempotency import Reader
from anywire_gateway_openai.notes import TASK
from anywire_gateway_openai.once import Once
from anywire_gateway_openai.reading import next_chunks
from anywire_gateway_openai.request_headers import TaskHeaders, task_headers
from anywire_gateway_openai.tasks import cancel_for, nothing, tell_whose, telling_decision


class OpenedTask(NamedTuple):
    """``explain`` lets the answer tell how its agent was chosen, where that is asked for. With a ``reader`` other
    requests read the task too."""

    stream: TaskStream
    reader: Reader | None
    explain: Callable[[], None]

    async def chunks(self) -> list[Chunk]:
        """What waits, at least one chunk. Raises what the task ended with."""
        return await next_chunks(self.reader or self.stream)

    async def result(self) -> Chunk:
        """The whole answer. Raises as `chunks`."""
        chunk = await (self.reader or self.stream).result()
        self.explain()
        return chunk

    def headers(self, ignored: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """Those of a whole answer; ``ignored`` are members of the request without effect."""
        stages = ("x-anywire-stages", stages_text(self.stream.stages))
        return [*answer_headers(self.stream, ignored), stages]

    def cancel(self, reason: str) -> None:
        """End the task, unless others read it."""
        if self.reader is None:
            self.stream.cancel(reason)


def headers_here(request: web.BaseRequest, what: str) -> TaskHeaders:
    """The headers of a request whose answer ``what`` is not given in the background. Raises `InvalidRequest`."""
    headers = task_headers(request.headers)
    if headers.background:
        raise InvalidRequest(
            f"{what} is not made in the background: leave the header x-anywire-background out",
            param="x-anywire-background",
        )
    return headers


@contextmanager
def opened(
    request: web.BaseRequest, context: Context, once: Once, submission: Submission, headers: TaskHeaders, digest: bytes
) -> Iterator[OpenedTask]:
    """The task of ``submission``; ``digest`` tells apart what requests with an ``Idempotency-Key`` ask for. A request
    that fails inside ends it, and its error tells whose it is."""
    reader: Reader | None = None
    if headers.idempotency_key:
        reader, stream = once.begin(request, headers.idempotency_key, digest, submission)
    else:
        stream = context.submit(submission)
    request[TASK] = stream
    explain = telling_decision(context, request, stream, submission.caller) if headers.explain else nothing
    task = OpenedTask(stream, reader, explain)
    try:
        yield task
    except BaseException as error:
        if reader is None:
            cancel_for(stream, error)
        tell_whose(error, stream, explain)
        raise
    finally:
        if reader is not None:
            reader.close()
