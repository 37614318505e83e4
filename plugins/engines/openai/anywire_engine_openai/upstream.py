"""The HTTP connection to one OpenAI-compatible server: its list of models, and answers as they are generated."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Collection
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import msgspec

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, TaskError
from anywire.messages import WHOLE_KINDS, TaskRequest
from anywire.native_api import COUNT_TOKENS, NativeApi, endpoint_of
from anywire_engine_openai import answers, native
from anywire_engine_openai.arrived import is_whole, left
from anywire_engine_openai.assembly import Assembly
from anywire_engine_openai.connection_errors import ConnectionFailed, broken, not_reached, say, silent
from anywire_engine_openai.listing import ListedModel, read_models
from anywire_engine_openai.loading import LoadingPauses, StillLoading, is_loading
from anywire_engine_openai.requests import PATHS, native_body, trace_headers, upstream_body
from anywire_engine_openai.server_errors import read_error, refusal
from anywire_engine_openai.silence import SilenceWatch
from anywire_engine_openai.stream import AnswerStream
from anywire_engine_openai.whole_answers import templated_prompt, whole_answer
from anywire_engine_openai.whole_requests import is_chat, templated, whole_request

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
LAST_WORDS = 5.0  # seconds of silence after a whole answer until its usage and [DONE] are not waited for any more
TAIL = 1.0  # seconds a server may take to end a response after its [DONE]
OWN_HEADER_HOSTS = ("api.anthropic.com",)
KEEP_ALIVE = 3.0  # seconds an idle connection is kept: less than any common server does, which closes after 5


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
        first_token_timeout: float = 0.0,
        next_token_timeout: float = 0.0,
        loading_timeout: float = 0.0,
        tls: ssl.SSLContext | None = None,
        is_llama_cpp: bool = False,
        apis: Collection[NativeApi] = (),
    ) -> None:
        """``tls`` says which certificate the server must show; default: one that comes from an authority known to
        all. ``is_llama_cpp``: it is llama.cpp's server, which puts a chat into a prompt by a request of its own. A
        server that speaks ``apis`` may be one that wants their headers for everything."""
        self.base_url = ""
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._headers = {"Content-Type": "application/json"}
        self._bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._native_headers = native.VERSION | ({"x-api-key": api_key} if api_key else {})
        if apis:
            self._headers |= self._native_headers
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._listing_timeout = aiohttp.ClientTimeout(total=connect_timeout)
        self._default_max_tokens = default_max_tokens
        self._always_stream = always_stream
        self._keep = keep_members
        self._first_timeout, self._next_timeout = first_token_timeout, next_token_timeout
        self._loading_timeout = loading_timeout
        self.is_llama_cpp = is_llama_cpp
        self.told_loading: Callable[[], None] = lambda: None
        """Called when the server answers a task with that it is loading."""
        self._session: aiohttp.ClientSession | None = None
        self._new: aiohttp.ClientSession | None = None
        """Keeps no connection: what is asked here goes over a new one."""
        self._tails: set[asyncio.Task[None]] = set()  # answers taken whose last bytes are still to come
        self._watches: set[SilenceWatch] = set()  # of bodies that are being read

    def open(self, base_url: str) -> None:
        """Use the server at ``base_url`` (with ``/v1``) from now on."""
        self.base_url = base_url.rstrip("/")
        if self._session is None:
            if not self._takes_own_header():
                self._headers |= self._bearer
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_reuse)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=self._tls)
            self._session = self._make_session(connector, trace)
            self._new = self._make_session(aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._tls))

    def _takes_own_header(self) -> bool:
        """Whether the server wants its key as ``x-api-key`` for all but chats, and takes ``Authorization`` there for
        another kind of key."""
        return "x-api-key" in self._headers and urlsplit(self.base_url).hostname in OWN_HEADER_HOSTS

    def _make_session(self, connector: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, headers=self._headers, trace_configs=list(traces)
        )

    async def close(self) -> None:
        """Close all connections; an answer that is being read ends with `ConnectionFailed`."""
        sessions = (self._session, self._new)
        self._session = self._new = None
        for watch in self._watches:
            watch.cut()
        for tail in self._tails:
            tail.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        for session in sessions:
            if session is not None:
                await session.close()

    async def models(self) -> list[ListedModel]:
        """What ``GET /models`` lists. Raises `ConnectionFailed`, or `EngineFailed` with the status it answered."""
        body = await self.get(f"{self.base_url}/models")
        try:
            return read_models(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFailed(f"{self.base_url}/models lists no models: {error}") from error

    async def ask(self, url: str, content: object) -> bytes:
        """What a POST of JSON to ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status."""
        response, _ = await self._post(url, msgspec.json.encode(content), None)
        try:
            body = await self._read(response, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error) from error
        finally:
            response.release()
        if not _is_success(response.status):
            said = read_error(body).message
            raise EngineFailed(f"the server answered with status {response.status}: {said}", status=response.status)
        return body

    async def get(self, url: str) -> bytes:
        """What a GET of ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status; these errors name
        the address, and are for operators."""
        try:
            async with self._opened().get(url, timeout=self._listing_timeout) as response:
                body = await self._read(response, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status != 200:
            said = read_error(body).message
            failure = StillLoading if is_loading(response.status, said) else EngineFailed
            raise failure(f"{url} answered with status {response.status}: {said}", status=response.status)
        return body

    async def healthy(self) -> bool:
        """Whether ``GET /health``, which llama.cpp and vLLM have, answers 200. Raises `ConnectionFailed`."""
        try:
            async with self._opened().get(f"{self.base_url}/health", timeout=self._listing_timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    def answer(
        self, task: TaskRequest, model: str, *, begun: bool = False
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        """The server's answer to ``task``, asked of what it calls ``model``. Leaving the generator before its end
        closes the connection, which is how a server learns that nobody reads any more. ``begun``: the beginning was
        delivered before, so that no further token is an answer too.

        Raises `InvalidRequest`, `ConnectionFailed` or another `EngineFailed`."""
        if task.kind in WHOLE_KINDS:
            return self._whole(msgspec.structs.replace(task, stream=False), model)
        if self._always_stream and not task.stream and task.kind != "embedding" and not _counts(task):
            return self._assembled(task, model)
        return self._exchange(task, model, begun)

    async def _assembled(self, task: TaskRequest, model: str) -> AsyncGenerator[Delta | EngineProgress, None]:
        is_native = bool(endpoint_of(task.body))
        assembly: native.NativeAssembly | Assembly = (
            native.NativeAssembly() if is_native else Assembly(chat=task.kind == "chat")
        )
        async with contextlib.aclosing(self._exchange(msgspec.structs.replace(task, stream=True), model)) as deltas:
            async for delta in deltas:
                if isinstance(delta, EngineProgress):
                    yield delta
                else:
                    assembly.add(delta)
        yield assembly.whole()

    async def _whole(self, task: TaskRequest, model: str) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self.is_llama_cpp and is_chat(task):
            task = templated(task, await self._prompt_of(task))
        async with contextlib.aclosing(self._exchange(task, model)) as deltas:
            async for delta in deltas:
                yield delta

    async def _prompt_of(self, task: TaskRequest) -> str:
        """The prompt that llama.cpp makes of the chat in ``task``."""
        url = f"{self.base_url.removesuffix('/v1')}/apply-template"
        response, _ = await self._post(url, task.body.encode(), trace_headers(task.trace))
        if not _is_success(response.status):
            raise await self._refusal(response)
        try:
            return templated_prompt(await self._read(response, MAX_ANSWER_BYTES))
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error) from error
        finally:
            response.release()

    async def _exchange(
        self, task: TaskRequest, model: str, begun: bool = False
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        endpoint = endpoint_of(task.body) if task.kind == "chat" else ""
        headers = trace_headers(task.trace)
        if endpoint:
            body, betas = native_body(task, model, endpoint)
            url, choices = f"{self.base_url}/{endpoint}", 1
            headers = self._native_headers | betas | (headers or {})
        elif task.kind in WHOLE_KINDS:
            url, body, content_type = whole_request(task, model, self.base_url)
            headers, choices = {"Content-Type": content_type, **(headers or {})}, 1
        else:
            body, choices = upstream_body(task, model, self._default_max_tokens)
            url, headers = self.base_url + PATHS[task.kind], {**self._bearer, **(headers or {})}
        pauses: LoadingPauses | None = None
        while True:
            try:
                async with asyncio.timeout(self._first_timeout or None):
                    may_repeat = task.attempts_left != 1
                    response, tries = await self._post(url, body, headers, may_repeat=may_repeat)
            except TimeoutError as error:
                raise silent(self._first_timeout, begun=False) from error
            except ConnectionFailed as error:
                if error.tries > 1:
                    yield Delta(attempts_used=error.tries)
                raise
            if _is_success(response.status):
                break
            failure = await self._refusal(response)
            if not isinstance(failure, StillLoading):
                raise failure
            if pauses is None:
                pauses = LoadingPauses(self._loading_timeout, task.time_left_ms)
                self.told_loading()
            pause = pauses.next(failure.retry_after)
            if not pause:
                raise failure
            yield EngineProgress("loading", model)
            await asyncio.sleep(pause)
        watch = self._watch(response)
        done = False
        try:
            if pauses is not None:
                yield EngineProgress("running")
            if tries > 1:
                yield Delta(attempts_used=tries)
            if task.stream and response.content_type != "application/json":
                stream: native.NativeStream | AnswerStream = (
                    native.NativeStream() if endpoint else AnswerStream(keep=self._keep, choices=choices, begun=begun)
                )
                try:
                    while not stream.done:
                        watch.asking()
                        data = await response.content.readany()
                        watch.heard()
                        if not data:
                            break
                        for delta in stream.read(data):
                            yield delta
                        if stream.complete and not stream.done:
                            watch.limit(LAST_WORDS)
                except (aiohttp.ClientError, OSError, ConnectionFailed):
                    for delta in stream.read(left(response.content)):
                        yield delta
                    if not stream.complete:
                        raise
                    response.close()
                stream.end()
            else:
                answer = await self._read(response, MAX_ANSWER_BYTES, watch)
                if endpoint and task.stream:
                    for delta in native.streamed(answer):
                        yield delta
                elif endpoint:
                    yield native.whole(answer, endpoint)
                elif task.kind == "embedding":
                    yield answers.embeddings(answer)
                elif task.kind in WHOLE_KINDS:
                    yield whole_answer(task.kind, answer, response.headers.get("Content-Type", ""))
                else:
                    delta = answers.whole(answer, keep=self._keep)
                    if not answers.is_answer(delta):
                        raise answers.no_token()
                    yield delta
            done = True
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error) from error
        finally:
            watch.close()
            self._watches.discard(watch)
            if done:
                self._leave(response)
            else:
                response.close()

    def _watch(self, response: aiohttp.ClientResponse) -> SilenceWatch:
        watch = SilenceWatch(response.content, self._first_timeout, self._next_timeout)
        self._watches.add(watch)
        return watch

    async def _refusal(self, response: aiohttp.ClientResponse) -> TaskError:
        """The error that an answer with a status that is no success stands for. Its connection is closed."""
        watch = self._watch(response)
        try:
            body = await self._read(response, MAX_ERROR_BYTES, watch)
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error) from error
        finally:
            watch.close()
            self._watches.discard(watch)
            response.close()
        return refusal(response.status, body, response.headers)

    async def _post(
        self, url: str, body: bytes, headers: dict[str, str] | None, *, may_repeat: bool = True
    ) -> tuple[aiohttp.ClientResponse, int]:
        """The response, its headers read, and how often the request was sent: once, or twice.

        A kept connection that the server has closed meanwhile (llama.cpp does so after each stream, without announcing
        it) took nothing, but from here it looks like one that took the request and broke down over it. So there is one
        more try, over a new connection, if ``may_repeat``, and it is counted."""
        reused: list[bool] = []
        try:
            post = self._opened().post
            return await post(url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=reused), 1
        except aiohttp.ClientConnectorError as error:
            raise not_reached(error) from error
        except (aiohttp.ClientError, OSError) as error:
            is_gone = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
            if not (reused and is_gone and may_repeat) or self._new is None:
                raise not_reached(error) from error
        try:
            return await self._new.post(url, data=body, headers=headers, allow_redirects=False), 2
        except (aiohttp.ClientError, OSError) as error:
            failed = not_reached(error)
            failed.tries = 2
            raise failed from error

    def _leave(self, response: aiohttp.ClientResponse) -> None:
        """Give the connection back. What ends the response may still be under way, and the answer is not to wait
        for it."""
        if response.content.at_eof() or response.closed:
            response.release()
        else:
            tail = asyncio.create_task(_read_out(response))
            self._tails.add(tail)
            tail.add_done_callback(self._tails.discard)

    async def _read(self, response: aiohttp.ClientResponse, limit: int, watch: SilenceWatch | None = None) -> bytes:
        """The body, of an error's as much as ``limit``. One that breaks off after it was whole, or that says why a
        request was refused, is none the worse for it."""
        pieces, size = [], 0
        try:
            while True:
                if watch is not None:
                    watch.asking()
                piece = await response.content.readany()
                if watch is not None:
                    watch.heard()
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    if limit == MAX_ERROR_BYTES:
                        break
                    raise EngineFailed(f"the server answered with more than {limit} bytes", phase="streaming")
        except (aiohttp.ClientError, OSError, ConnectionFailed):
            pieces.append(left(response.content))
            if _is_success(response.status) and not is_whole(b"".join(pieces)):
                raise
        return b"".join(pieces)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineFailed("the engine is not running")
        return self._session

    def _unreachable(self, error: BaseException) -> ConnectionFailed:
        return ConnectionFailed(f"{self.base_url} cannot be reached: {say(error)}", phase="not_sent")


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


def _counts(task: TaskRequest) -> bool:
    return endpoint_of(task.body) == COUNT_TOKENS


def _is_success(status: int) -> bool:
    return 200 <= status < 300
