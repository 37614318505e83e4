"""A client of the service, over HTTP. Over any transport: `anywire.Client.deliberate`.

async with DeliberationClient("http://127.0.0.1:8080") as client:
    result = await client.deliberate("How do I reverse a list?", role="DEV", members=3, rubric="clean-code")
print(result.answer)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
import msgspec

from anywire.clock import Clock, SystemClock
from anywire.deliberation_terms import Asked, Update, given, new_id
from anywire.deliberation_views import Summary, Whole
from anywire.errors import ShuttingDown
from anywire.not_understood import NotUnderstood
from anywire_service_deliberation.event_source import read_events
from anywire_service_deliberation.http_answers import NothingBehind, error_of, read_answer, told_error
from anywire_service_deliberation.views import CouncilView, RoleView, RubricView

BASE = "/v1"
WAIT_S = 30.0
"""Seconds that the server is asked to wait for the end, again and again."""
TIMEOUT_S = 10.0
"""Seconds for what the server answers at once."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Seconds before it is tried again to reach a server that has gone."""

_GONE = (httpx.TransportError, ShuttingDown, NothingBehind)
"""The server is not there, and may be back."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Listed(msgspec.Struct, Generic[T]):
    data: list[T]


class _Named(msgspec.Struct):
    id: str


class DeliberationClient:
    """Asks the service ``deliberation`` of the orchestrator at ``url``; ``key`` is an API key, empty for none.

    ``http`` is a client of yours that knows the server (its ``base_url``, certificates, key), in place of both; it is
    not closed. A server that has answered once and then cannot be reached, such as one that is restarted, is tried
    again for ``patience`` seconds.

    All methods raise `anywire.errors.AnywireError` for what the server refuses, `anywire.errors.ConfigError` where the
    service is not configured, and `httpx.TransportError` when the server cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        key: str = "",
        *,
        http: httpx.AsyncClient | None = None,
        patience: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self._owned = http is None
        headers = {"authorization": f"Bearer {key}"} if key else {}
        root = httpx.URL(url.rstrip("/").removesuffix(BASE))
        local = root.host in ("localhost", "::1") or root.host.startswith("127.")
        self._http = (
            http
            if http is not None
            # A proxy reaches its own machine under these names.
            else httpx.AsyncClient(base_url=root, headers=headers, timeout=TIMEOUT_S, trust_env=not local)
        )
        self._patience = patience
        self._clock = clock if clock is not None else SystemClock()
        self._met = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            await self._http.aclose()

    # Deliberations

    async def deliberate(self, task: str, **asked: Unpack[Asked]) -> Whole:
        """Ask, and wait for the end; ``asked`` as `submit` has it. Cancelling this does not cancel the deliberation."""
        return await self.wait(await self.submit(task, **asked))

    async def submit(self, task: str, **asked: Unpack[Asked]) -> str:
        """Ask a question; its id, once the server has stored it.

        Without ``id`` it gets a new one. Either way it is sent again where it is not sure to have arrived, and is one
        deliberation.
        """
        body = {**given(asked), "id": asked.get("id") or new_id(), "task": task}
        return (await self._asked("POST", "/deliberations", _Named, json=body)).id

    async def get(self, id: str, wait: float = 0.0) -> Whole:  # noqa: A002
        """As it is now, or once it has ended within ``wait`` seconds (at most 60)."""
        headers = {"prefer": f"wait={wait:g}"} if wait else {}
        patient = httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + wait)
        return await self._asked("GET", _path(id), Whole, headers=headers, timeout=patient)

    async def wait(self, id: str) -> Whole:  # noqa: A002
        """Once it has ended."""
        pause = FIRST_PAUSE_S
        while True:
            asked_at = self._clock.now()
            state = await self.get(id, WAIT_S)
            if state.is_final:
                return state
            if self._clock.now() - asked_at < 1:  # a server that ends does not wait
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = FIRST_PAUSE_S

    async def events(self, id: str, after: int = 0) -> AsyncGenerator[Update, None]:  # noqa: A002
        """What happens in it, from the update after the one with that number to its end; close it. Where the stream
        breaks off it goes on after the last one."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with aclosing(self._stream(id, after)) as updates:
                    async for update in updates:
                        if update.number <= after:
                            continue
                        after, self._met, pause = update.number, True, FIRST_PAUSE_S
                        yield update
                        if update.name == "ended":
                            return
            except _GONE as error:
                log.info("the events of %s broke off: %s", id, error)
            if (await self.get(id)).is_final:
                # What is left of them is there at once, and ends.
                async with aclosing(self._stream(id, after)) as updates:
                    async for update in updates:
                        if update.number > after:
                            yield update
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def cancel(self, id: str) -> Summary:  # noqa: A002
        """End it, with every task of it. One that has ended stays as it is."""
        return await self._asked("DELETE", _path(id), Summary)

    async def list(self, *, status: str = "", role: str = "", limit: int = 100) -> Sequence[Summary]:
        """The newest first."""
        wanted = {name: value for name, value in (("status", status), ("role", role)) if value} | {"limit": limit}
        return (await self._asked("GET", "/deliberations", _Listed[Summary], params=wanted)).data

    async def statistics(self) -> dict[str, Any]:
        """Counts, times and scores by role, model and agent."""
        return await self._asked("GET", "/deliberations/statistics", dict[str, Any])

    # What can be named

    async def councils(self) -> Sequence[CouncilView]:
        return (await self._asked("GET", "/councils", _Listed[CouncilView])).data

    async def put_council(
        self,
        name: str,
        members: int | Sequence[Mapping[str, Any]],
        *,
        role: str = "",
        rounds: int = 1,
        rubric: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> CouncilView:
        """Keep these members under that name, in place of those before."""
        body = {"members": members, "role": role, "rounds": rounds, "rubric": rubric, "metadata": metadata or {}}
        return await self._asked("PUT", f"/councils/{quote(name, safe='')}", CouncilView, json=body)

    async def delete_council(self, name: str) -> None:
        """Raises `InvalidRequest` with the status 409 while it is in use, and 404 where there is none."""
        await self._asked("DELETE", f"/councils/{quote(name, safe='')}", dict[str, Any])

    async def roles(self) -> Sequence[RoleView]:
        return (await self._asked("GET", "/roles", _Listed[RoleView])).data

    async def rubrics(self) -> Sequence[RubricView]:
        return (await self._asked("GET", "/rubrics", _Listed[RubricView])).data

    # HTTP

    async def _asked(self, method: str, path: str, kind: type[T], **options: Any) -> T:
        async def send() -> T:
            answer = await self._http.request(method, f"{BASE}{path}", **options)
            if answer.is_error:
                raise error_of(answer)
            return read_answer(answer.content, kind, answer.url)

        return await self._again(send)

    async def _again(self, send: Callable[[], Awaitable[T]]) -> T:
        """What ``send`` gives; tried again while the server is gone that was there before."""
        gone_at, pause = -1.0, FIRST_PAUSE_S
        while True:
            try:
                found = await send()
            except _GONE as error:
                now = self._clock.now()
                gone_at = now if gone_at < 0 else gone_at
                left = gone_at + self._patience - now
                if not self._met or left <= 0:
                    raise
                log.info("the server is gone, it is tried again: %s", error or type(error).__name__)
            else:
                self._met = True
                return found
            await self._clock.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _stream(self, name: str, after: int) -> AsyncGenerator[Update, None]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": str(after)} if after else {})
        # A silent stream gets a ping: nothing for much longer than that is no stream.
        patient = httpx.Timeout(TIMEOUT_S, read=60.0)
        async with self._http.stream("GET", f"{BASE}{_path(name)}/events", headers=headers, timeout=patient) as answer:
            if answer.is_error:
                await answer.aread()
                raise error_of(answer)
            try:
                async with aclosing(read_events(answer.aiter_bytes())) as events:
                    async for event in events:
                        if event.event == "error":
                            raise told_error(event.data.encode(), 0, str(answer.url))
                        if event.id:
                            yield read_answer(event.data.encode(), Update, answer.url)
            except ValueError as error:
                raise NotUnderstood(f"{answer.url}: {error}") from error


def _path(name: str) -> str:
    return f"/deliberations/{quote(name, safe='')}"
