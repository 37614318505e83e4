"""The HTTP connection to one OpenAI-compatible server: its list of models, and answers as they are generated."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from urllib.parse import urlsplit

import msgspec

from anywire.engine import Delta, EngineProgress
from anywire.errors import EngineFailed, TaskError
from anywire.messages import WHOLE_KINDS, TaskRequest
from anywire.native_api import COUNT_TOKENS, NativeApi, endpoint_of
from anywire_engine_openai import answers, native
from anywire_engine_openai.assembly import Assembly
from anywire_engine_openai.bodies import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, read_and_leave, read_body
from anywire_engine_openai.connection_errors import ConnectionFailed, broken, not_reached, say
from anywire_engine_openai.http import redirects
from anywire_engine_openai.http.answer import Answer
from anywire_engine_openai.http.client import Client, header_lines
from anywire_engine_openai.http.faults import CannotConnect, Closed, Fault
from anywire_engine_openai.listing import ListedModel, read_models
from anywire_engine_openai.loading import LoadingPauses, StillLoading, is_loading
from anywire_engine_openai.requests import PATHS, native_body, trace_headers, upstream_body
from anywire_engine_openai.server_errors import read_error, refusal
from anywire_engine_openai.stream import AnswerStream
from anywire_engine_openai.whole_answers import templated_prompt, whole_answer
from anywire_engine_openai.whole_requests import is_chat, templated, whole_request

LAST_WORDS = 5.0  # seconds of silence after a whole answer until its usage and [DONE] are not waited for any more
OWN_HEADER_HOSTS = ("api.anthropic.com",)

_SECRET = ("Authorization", "x-api-key")


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
        self._tls = tls
        self._headers = {"Content-Type": "application/json"}
        self._bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._native_headers = native.VERSION | ({"x-api-key": api_key} if api_key else {})
        if apis:
            self._headers |= self._native_headers
        self._connect_timeout = connect_timeout
        self._default_max_tokens = default_max_tokens
        self._always_stream = always_stream
        self._keep = keep_members
        self._first_timeout, self._next_timeout = first_token_timeout, next_token_timeout
        self._loading_timeout = loading_timeout
        self.is_llama_cpp = is_llama_cpp
        self.told_loading: Callable[[], None] = lambda: None
        """Called when the server answers a task with that it is loading."""
        self._plain_lines = self._bearer_lines = b""
        self._client: Client | None = None

    def open(self, base_url: str) -> None:
        """Use the server at ``base_url`` (with ``/v1``) from now on."""
        self.base_url = base_url.rstrip("/")
        if self._client is None:
            if not self._takes_own_header():
                self._headers |= self._bearer
            self._plain_lines, self._bearer_lines = _lines(self._headers), _lines(self._headers | self._bearer)
            self._client = Client(connect_timeout=self._connect_timeout, tls=self._tls)

    def _takes_own_header(self) -> bool:
        """Whether the server wants its key as ``x-api-key`` for all but chats, and takes ``Authorization`` there for
        another kind of key."""
        return "x-api-key" in self._headers and urlsplit(self.base_url).hostname in OWN_HEADER_HOSTS

    async def close(self) -> None:
        """Close all connections; an answer that is being read ends with `ConnectionFailed`."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def models(self) -> list[ListedModel]:
        """What ``GET /models`` lists. Raises `ConnectionFailed`, or `EngineFailed` with the status it answered."""
        body = await self.get(f"{self.base_url}/models")
        try:
            return read_models(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed(f"{self.base_url}/models lists no models: {error}") from error

    async def ask(self, url: str, content: object) -> bytes:
        """What a POST of JSON to ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status."""
        answer, _ = await self._post(url, msgspec.json.encode(content), self._plain_lines)
        try:
            body = await read_and_leave(answer)
        except Fault as fault:
            raise broken(fault) from fault
        if not answer.is_success:
            said = read_error(body).message
            raise EngineFailed(f"the server answered with status {answer.status}: {said}", status=answer.status)
        return body

    async def get(self, url: str) -> bytes:
        """What a GET of ``url`` gives. Raises `ConnectionFailed`, or `EngineFailed` with the status; these errors name
        the address, and are for operators."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                answer = await redirects.get(self._opened(), url, self._headers, _SECRET)
                body = await read_and_leave(answer)
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {self._connect_timeout:g} s") from error
        except OSError as error:
            raise self._unreachable(say(error)) from error
        if answer.status != 200:
            said = read_error(body).message
            failure = StillLoading if is_loading(answer.status, said) else EngineFailed
            raise failure(f"{url} answered with status {answer.status}: {said}", status=answer.status)
        return body

    def gives_whole(self, task: TaskRequest) -> bool:
        """Whether the answer to ``task`` may be asked for by `whole`."""
        return not (task.stream or self._always_stream or task.kind not in PATHS or endpoint_of(task.body))

    async def whole(self, task: TaskRequest, model: str) -> tuple[Delta | StillLoading, int]:
        """What `answer` gives to such a task in more steps, and how often the request was sent. A server that is
        loading is no fault yet: let `answer` go on with what it said. Raises as `answer` does; ``tries`` of a
        `ConnectionFailed` tells how often it was sent."""
        body, _ = upstream_body(task, model, self._default_max_tokens)
        answer, tries = await self._post(
            self.base_url + PATHS[task.kind],
            body,
            self._bearer_lines + _trace_lines(task),
            limit=self._first_timeout,
            may_repeat=task.attempts_left != 1,
        )
        if not answer.is_success:
            failure = await self._refusal(answer)
            if isinstance(failure, StillLoading):
                return failure, tries
            try:
                raise failure
            finally:
                del failure  # once raised it holds all of this
        try:
            delta = self._read_whole(task, await self._watched(answer, MAX_ANSWER_BYTES))
        except BaseException:
            answer.close()
            raise
        # What ends the response may still be under way, and the answer is not to wait for it.
        answer.leave()
        return delta, tries

    def _read_whole(self, task: TaskRequest, content: bytes) -> Delta:
        if task.kind == "embedding":
            return answers.embeddings(content)
        delta = answers.whole(content, keep=self._keep)
        if not answers.is_answer(delta):
            raise answers.no_token()
        return delta

    def answer(
        self, task: TaskRequest, model: str, *, begun: bool = False, loading: StillLoading | None = None
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        """The server's answer to ``task``, asked of what it calls ``model``. Leaving the generator before its end
        closes the connection, which is how a server learns that nobody reads any more. ``begun``: the beginning was
        delivered before, so that no further token is an answer too. ``loading`` is what `whole` gave instead.

        Raises `InvalidRequest`, `ConnectionFailed` or another `EngineFailed`."""
        if task.kind in WHOLE_KINDS:
            return self._whole(msgspec.structs.replace(task, stream=False), model)
        if self._always_stream and not task.stream and task.kind != "embedding" and not _counts(task):
            return self._assembled(task, model)
        return self._exchange(task, model, begun, loading)

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
        answer, _ = await self._post(url, task.body.encode(), self._plain_lines + _trace_lines(task))
        if not answer.is_success:
            raise await self._refusal(answer)
        try:
            return templated_prompt(await read_and_leave(answer))
        except Fault as fault:
            raise broken(fault) from fault

    async def _exchange(
        self, task: TaskRequest, model: str, begun: bool = False, loading: StillLoading | None = None
    ) -> AsyncGenerator[Delta | EngineProgress, None]:
        endpoint = endpoint_of(task.body) if task.kind == "chat" else ""
        choices = 1
        if endpoint:
            body, betas = native_body(task, model, endpoint)
            url, lines = f"{self.base_url}/{endpoint}", _lines(self._headers | self._native_headers | betas)
        elif task.kind in WHOLE_KINDS:
            url, body, content_type = whole_request(task, model, self.base_url)
            lines = _lines(self._headers | {"Content-Type": content_type})
        else:
            body, choices = upstream_body(task, model, self._default_max_tokens)
            url, lines = self.base_url + PATHS[task.kind], self._bearer_lines
        lines += _trace_lines(task)
        pauses: LoadingPauses | None = None
        failure: TaskError | None
        failure, loading = loading, None
        while True:
            if failure is None:
                try:
                    answer, tries = await self._post(
                        url, body, lines, limit=self._first_timeout, may_repeat=task.attempts_left != 1
                    )
                except ConnectionFailed as error:
                    if error.tries > 1:
                        yield Delta(attempts_used=error.tries)
                    raise
                if answer.is_success:
                    break
                failure = await self._refusal(answer)
            try:
                if not isinstance(failure, StillLoading):
                    raise failure
                if pauses is None:
                    pauses = LoadingPauses(self._loading_timeout, task.time_left_ms)
                    self.told_loading()
                pause = pauses.next(failure.retry_after)
                if not pause:
                    raise failure
            finally:
                failure = None  # once raised it holds all of this
            yield EngineProgress("loading", model)
            await asyncio.sleep(pause)
        done = False
        try:
            if pauses is not None:
                yield EngineProgress("running")
            if tries > 1:
                yield Delta(attempts_used=tries)
            if task.stream and answer.media_type != "application/json":
                stream: native.NativeStream | AnswerStream = (
                    native.NativeStream() if endpoint else AnswerStream(keep=self._keep, choices=choices, begun=begun)
                )
                limit = self._first_timeout
                try:
                    while not stream.done:
                        data = await answer.read(limit)
                        if not data:
                            break
                        limit = self._next_timeout
                        for delta in stream.read(data):
                            yield delta
                        if stream.complete:
                            limit = LAST_WORDS
                except Fault as fault:
                    if not stream.complete:
                        raise broken(fault) from fault
                    answer.close()
                stream.end()
            else:
                content = await self._watched(answer, MAX_ANSWER_BYTES)
                if endpoint and task.stream:
                    for delta in native.streamed(content):
                        yield delta
                elif endpoint:
                    yield native.whole(content, endpoint)
                elif task.kind in WHOLE_KINDS:
                    yield whole_answer(task.kind, content, answer.header("content-type"))
                else:
                    yield self._read_whole(task, content)
            done = True
        finally:
            if done:
                # What ends the response may still be under way, and the answer is not to wait for it.
                answer.leave()
            else:
                answer.close()

    async def _refusal(self, answer: Answer) -> TaskError:
        """The error that an answer with a status that is no success stands for. Its connection is closed."""
        try:
            body = await self._watched(answer, MAX_ERROR_BYTES)
        finally:
            answer.close()
        return refusal(answer.status, body, answer.headers)

    async def _post(
        self, url: str, body: bytes, lines: bytes, *, limit: float = 0.0, may_repeat: bool = True
    ) -> tuple[Answer, int]:
        """The answer, its head read within ``limit`` seconds, and how often the request was sent: once, or twice.

        A kept connection that the server has closed meanwhile (llama.cpp does so after each stream, without announcing
        it) took nothing, but from here it looks like one that took the request and broke down over it. So there is one
        more try, over a new connection, if ``may_repeat``, and it is counted."""
        client, tries = self._opened(), 1
        try:
            try:
                return await client.send("POST", url, lines, body, limit=limit), tries
            except Closed as fault:
                if not (fault.was_idle and may_repeat):
                    raise
            tries = 2
            return await client.send("POST", url, lines, body, limit=limit, anew=True), tries
        except Fault as fault:
            raise not_reached(fault, tries) from (fault.__cause__ if isinstance(fault, CannotConnect) else fault)

    async def _watched(self, answer: Answer, most: int) -> bytes:
        """The body of the answer to a task. Raises `ConnectionFailed` when it breaks off, or comes too slowly."""
        try:
            return await read_body(answer, most, first=self._first_timeout, later=self._next_timeout)
        except Fault as fault:
            raise broken(fault) from fault

    def _opened(self) -> Client:
        if self._client is None:
            raise EngineFailed("the engine is not running")
        return self._client

    def _unreachable(self, why: str) -> ConnectionFailed:
        return ConnectionFailed(f"{self.base_url} cannot be reached: {why}", phase="not_sent")


def _lines(headers: Mapping[str, str]) -> bytes:
    try:
        return header_lines(headers)
    except ValueError as error:
        raise EngineFailed(str(error)) from error


def _trace_lines(task: TaskRequest) -> bytes:
    headers = trace_headers(task.trace)
    return _lines(headers) if headers else b""


def _counts(task: TaskRequest) -> bool:
    return endpoint_of(task.body) == COUNT_TOKENS
