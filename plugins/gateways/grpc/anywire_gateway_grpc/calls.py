"""The methods of the services as gRPC calls them: who calls is let in, what goes wrong gets its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from anywire.caller import Caller
from anywire.errors import AnywireError, InvalidRequest
from anywire_gateway_grpc.admission import Admission, Context
from anywire_gateway_grpc.faults import Ended, Fault, fault_of

log = logging.getLogger(__name__)

ID_KEY = "anywire-deliberation"
"""Initial metadata with the id of the deliberation, percent-encoded, as soon as it is kept."""


class Call:
    """One call, as a method sees it."""

    def __init__(self, caller: Caller, context: Context) -> None:
        self.caller, self._context = caller, context
        self._told = False

    @property
    def left(self) -> float | None:
        """Seconds until the deadline that the client has set; None for none."""
        left = self._context.time_remaining()
        return None if left is None else max(0.0, left)

    async def tell_id(self, question_id: str) -> None:
        """Send the id ahead: it is known to the client even if the call breaks."""
        if not self._told:
            self._told = True
            await self._context.send_initial_metadata(((ID_KEY, quote(question_id, safe="")),))


Unary = Callable[[Any, Call], Awaitable[Message]]
Streaming = Callable[[Any, Call], AsyncGenerator[Message, None]]


class Method(NamedTuple):
    """``request`` is the type of its requests. One of ``unary`` and ``streaming`` answers them."""

    request: type[Message]
    unary: Unary | None = None
    streaming: Streaming | None = None


class Calls(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers calls by their full name (``/package.Service/Method``). ``unserved`` has sentences for methods that the
    services of others have and these have not."""

    def __init__(self, admission: Admission, methods: Mapping[str, Method], unserved: Mapping[str, str]) -> None:
        self._admission = admission
        self._handlers = {name: self._handler(name, method) for name, method in methods.items()}
        self._handlers |= {name: _refusing(why) for name, why in unserved.items()}
        self._tasks: set[asyncio.Task[Any]] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)

    async def ended(self, timeout: float) -> None:
        """Wait for the calls that the server's stop has cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _handler(self, name: str, method: Method) -> Any:
        async def unary(body: bytes, context: Context) -> bytes:
            reply = await self._run(name, method, body, context)
            assert reply is not None
            return reply

        async def stream(body: bytes, context: Context) -> None:
            await self._run(name, method, body, context)

        if method.streaming is not None:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _run(self, name: str, method: Method, body: bytes, context: Context) -> bytes | None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await self._answer(method, body, context)
        except (AnywireError, Ended) as error:
            fault = fault_of(error)
        except grpc.aio.BaseError as error:  # the client has gone
            log.debug("%s ended: %s", name, error)
            raise asyncio.CancelledError from error
        except Exception as error:
            log.exception("%s failed", name)
            text = f"the gateway failed ({type(error).__name__}): its log says why"
            fault = Fault(grpc.StatusCode.INTERNAL, text)
        await context.abort(fault.code, fault.details, fault.trailing)
        raise AssertionError("abort has raised")

    async def _answer(self, method: Method, body: bytes, context: Context) -> bytes | None:
        caller = self._admission.caller(context)
        with self._admission.within(caller):
            call, asked = Call(caller, context), _read(method.request, body)
            if method.unary is not None:
                return (await method.unary(asked, call)).SerializeToString()
            assert method.streaming is not None
            async with aclosing(method.streaming(asked, call)) as replies:
                async for reply in replies:
                    await context.write(reply.SerializeToString())
            return None


def _read(kind: type[Message], body: bytes) -> Message:
    try:
        return kind.FromString(body)
    except (DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from None


def _refusing(why: str) -> Any:
    async def refuse(body: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, why)
        raise AssertionError("abort has raised")

    return grpc.unary_unary_rpc_method_handler(refuse)


def not_known(question_id: str) -> InvalidRequest:
    return InvalidRequest(f"there is no deliberation {question_id[:256]!r} (any more)", param="id", status=404)
