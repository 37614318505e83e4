"""The HTTP connection to one OpenAI-compatible server: its list of models, and answers as they are generated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.messages import TaskRequest
from anywire_engine_openai import answers
from anywire_engine_openai.assembly import Assembly
from anywire_engine_openai.requests import PATHS, upstream_body
from anywire_engine_openai.stream import AnswerStream

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
TAIL = 1.0  # seconds a server may take to end a response after its [DONE]
KEEP_ALIVE = 3.0  # seconds an idle connection is kept: less than any common server does, which closes after 5


class ListedModel(msgspec.Struct, frozen=True):
    """``max_model_len`` is the context in tokens where the server tells it (vLLM and SGLang do)."""

    id: str
    max_model_len: Any = None

    @property
    def context(self) -> int:
        """0 when the server has not told it."""
        told = self.max_model_len
        return told if type(told) is int and 0 < told < 2**31 else 0


class _Models(msgspec.Struct):
    data: list[ListedModel] | None = None


class ConnectionFailed(EngineFailed):
    """The server could not be reached, or went away: the connection, and not just one answer, is at fault."""


class Upstream:
    """One server. ``open`` must be called on the event loop before anything else; ``close`` ends all of it."""

    def __init__(
        self,
        *,
        api_key: str = "",
        connect_timeout: float = 5.0,
        default_max_tokens: int = 0,
        always_stream: bool = False,
        keep_members: bool = False,
    ) -> None:
        self.base_url = ""
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._listing_timeout = aiohttp.ClientTimeout(total=connect_timeout)
        self._default_max_tokens = default_max_tokens
        self._always_stream = always_stream
        self._keep = keep_members
        self._session: aiohttp.ClientSession | None = None
        self._tails: set[asyncio.Task[None]] = set()  # answers taken whose last bytes are still to come

    def open(self, base_url: str) -> None:
        """Use the server at ``base_url`` (with ``/v1``) from now on."""
        self.base_url = base_url.rstrip("/")
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_reuse)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, headers=self._headers, trace_configs=[trace]
            )

    async def close(self) -> None:
        session, self._session = self._session, None
        for tail in self._tails:
            tail.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        if session is not None:
            await session.close()

    async def models(self) -> list[ListedModel]:
        """What ``GET /models`` lists. Raises `ConnectionFailed`, or `EngineFailed` with the status it answered."""
        body = await self.get(f"{self.base_url}/models")
        try:
            return msgspec.json.decode(body, type=_Models).data or []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFailed(f"{self.base_url}/models lists no models: {error}") from error

    async def ask(self, url: str, content: object) -> bytes:
        """What a POST of JSON to ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status."""
        response = await self._post(url, msgspec.json.encode(content), None)
        try:
            body = await self._read(response, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            response.release()
        if response.status != 200:
            said = answers.refusal(response.status, body, self.base_url)
            raise EngineFailed(f"{url} answered with status {response.status}: {said}", status=response.status)
        return body

    async def get(self, url: str) -> bytes:
        """What a GET of ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status."""
        try:
            async with self._opened().get(url, timeout=self._listing_timeout) as response:
                body = await self._read(response, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status != 200:
            said = answers.refusal(response.status, body, self.base_url)
            raise EngineFailed(f"{url} answered with status {response.status}: {said}", status=response.status)
        return body

    async def healthy(self) -> bool:
        """Whether ``GET /health``, which llama.cpp and vLLM have, answers 200. Raises `ConnectionFailed`."""
        try:
            async with self._opened().get(f"{self.base_url}/health", timeout=self._listing_timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    def answer(self, task: TaskRequest, model: str) -> AsyncGenerator[Delta, None]:
        """The server's answer to ``task``, asked of what it calls ``model``. Leaving the generator before its end
        closes the connection, which is how a server learns that nobody reads any more.

        Raises `InvalidRequest`, `ConnectionFailed` or another `EngineFailed`."""
        if self._always_stream and not task.stream and task.kind != "embedding":
            return self._assembled(task, model)
        return self._exchange(task, model)

    async def _assembled(self, task: TaskRequest, model: str) -> AsyncGenerator[Delta, None]:
        assembly = Assembly(chat=task.kind == "chat")
        async with contextlib.aclosing(self._exchange(msgspec.structs.replace(task, stream=True), model)) as deltas:
            async for delta in deltas:
                assembly.add(delta)
        yield assembly.whole()

    async def _exchange(self, task: TaskRequest, model: str) -> AsyncGenerator[Delta, None]:
        body = upstream_body(task, model, self._default_max_tokens)
        url = self.base_url + PATHS[task.kind]
        headers = {"traceparent": task.trace} if task.trace else None
        response = await self._post(url, body, headers)
        done = False
        try:
            if response.status != 200:
                refused = await self._read(response, MAX_ERROR_BYTES)
                wait = response.headers.get("Retry-After", "")
                raise answers.refusal(response.status, refused, self.base_url, wait)
            if task.stream and response.content_type != "application/json":
                stream = AnswerStream(keep=self._keep)
                while not stream.done and (data := await response.content.readany()):
                    for delta in stream.read(data):
                        yield delta
                stream.end()
            else:
                answer = await self._read(response, MAX_ANSWER_BYTES)
                if task.kind == "embedding":
                    yield answers.embeddings(answer)
                else:
                    delta = answers.whole(answer, keep=self._keep)
                    if not answers.generated(delta):
                        raise answers.no_token()
                    yield delta
            done = True
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailed(
                f"the connection to {self.base_url} broke before the answer was complete: {_say(error)}",
                phase="streaming",
            ) from error
        finally:
            if done:
                self._leave(response)
            else:
                response.close()

    async def _post(self, url: str, body: bytes, headers: dict[str, str] | None) -> aiohttp.ClientResponse:
        """The response, its headers read. A kept connection that the server has closed meanwhile (llama.cpp does
        so after each stream, without announcing it) took nothing: then once more, on another."""
        while True:
            reused: list[bool] = []
            try:
                return await self._opened().post(url, data=body, headers=headers, trace_request_ctx=reused)
            except aiohttp.ClientConnectorError as error:
                raise self._unreachable(error) from error
            except (aiohttp.ClientError, OSError) as error:
                if not reused or not isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
                    raise self._unreachable(error) from error

    def _leave(self, response: aiohttp.ClientResponse) -> None:
        """Give the connection back. What ends the response may still be under way, and the answer is not to wait
        for it."""
        if response.content.at_eof():
            response.release()
        else:
            tail = asyncio.create_task(_read_out(response))
            self._tails.add(tail)
            tail.add_done_callback(self._tails.discard)

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                if limit == MAX_ERROR_BYTES:
                    break
                raise EngineFailed(f"{self.base_url} answered with more than {limit} bytes", phase="streaming")
        return b"".join(pieces)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineFailed("the engine is not running")
        return self._session

    def _unreachable(self, error: BaseException) -> ConnectionFailed:
        connected = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        return ConnectionFailed(
            f"{self.base_url} cannot be reached: {_say(error)}", phase="maybe_sent" if connected else "not_sent"
        )


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(True)


async def _read_out(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(TAIL):
            while await response.content.readany():
                pass
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        response.release()  # closes the connection when the response did not end


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__
