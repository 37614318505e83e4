"""Runs a request with an ``Idempotency-Key`` once, however often it is sent."""

from __future__ import annotations

from aiohttp import web

from anywire.caller import Caller
from anywire.context import Context
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire_gateway_openai.caller import Callers
from anywire_gateway_openai.idempotency import KeptAnswers, Reader, Scope
from anywire_gateway_openai.notes import HEADERS


class Once:
    def __init__(self, context: Context, callers: Callers, kept: KeptAnswers) -> None:
        self._context, self._callers, self._kept = context, callers, kept

    def begin(
        self, request: web.BaseRequest, key: str, digest: bytes, submission: Submission
    ) -> tuple[Reader, TaskStream]:
        """A reader of the answer, and its task: an earlier one's, or a new one's. Raises `InvalidRequest` when an
        earlier request with that key asked for something else."""
        scope = self.scope(request, key, submission.caller)
        shared = self._kept.get(scope, digest)
        if shared is None:
            shared = self._kept.add(scope, digest, self._context.submit(submission))
        else:
            request[HEADERS] = (*request.get(HEADERS, ()), ("x-anywire-replayed", "true"))
        return shared.reader(), shared.stream

    def scope(self, request: web.BaseRequest, key: str, caller: Caller) -> Scope:
        """Whose key it is."""
        return Scope(caller.id or self._callers.client(request).address, caller.tenant, key)
