"""The methods of the services as gRPC calls them: who calls is let in, what goes wrong gets its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from anywire.caller import Caller
from anywire.errors import AnywireError, InvalidRequest, ReaderStalled
from anywire_gateway_grpc.admission import Admission, Context
from anywire_gateway_grpc.call_records import CallRecords, method_of
from anywire_gateway_grpc.faults import Ended, Fault, fault_of

log = logging.getLogger(__name__)

ID_KEY = "anywire-deliberation"
"""Initial metadata with the id of the deliberation, percent-encoded, as soon as it is kept."""


class Call:
    """One call, as a method sees it."""

    def __init__(self, caller: Caller, context: Context) -> None:
        self.caller, self._context = caller, context
        self.question_id = ""
        """The deliberation that was asked for, once it is kept."""

    @property
    def left(self) -> float | None:
        """Seconds until the deadline that the client has set; None for none."""
        left = self._context.time_remaining()
        return None if left is None else max(0.0, left)

    async def tell_id(self, question_id: str) -> None:
        """Send the id ahead: it is known to the client even if the call breaks."""
        if not self.question_id:
            self.question_id = question_id
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
    services of others have and these have not. A client that takes nothing of an answer for ``reader_timeout`` seconds
    is waited for no longer: its call counts as ended then, and holds up nobody."""

    def __init__(
        self,
        admission: Admission,
        records: CallRecords,
        reader_timeout: float,
        methods: Mapping[str, Method],
        unserved: Mapping[str, str],
    ) -> None:
        self._admission, self._records, self._reader_timeout = admission, records, reader_timeout
        self._handlers = {name: self._handler(method_of(name), method) for name, method in methods.items()}
        self._handlers |= {name: self._refusing(method_of(name), why) for name, why in unserved.items()}
        self._tasks: set[asyncio.Task[Any]] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)

    async def ended(self, timeout: float) -> None:
        """Wait for the calls that the server's stop has cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _handler(self, name: str, method: Method) -> Any:
        async def run(body: bytes, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            fault = await self._run(name, method, body, context)
            if fault is None:
                return
            try:
                await context.abort(fault.code, fault.details, fault.trailing)
            except grpc.aio.InternalError as error:  # the client that did not read has gone
                raise asyncio.CancelledError from error

        # An answer of one message is the same on the wire, and written here it is known when it has been taken.
        return grpc.unary_stream_rpc_method_handler(run)

    def _refusing(self, name: str, why: str) -> Any:
        async def refuse(body: bytes, context: Context) -> None:
            self._records.end(name, self._records.begin(name), grpc.StatusCode.UNIMPLEMENTED)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, why)

        return grpc.unary_stream_rpc_method_handler(refuse)

    async def _run(self, name: str, method: Method, body: bytes, context: Context) -> Fault | None:
        """Answer, and note how it ended. What is wrong is returned."""
        began, call = self._records.begin(name), None
        code, error_code = grpc.StatusCode.CANCELLED, ""
        try:
            caller = self._admission.caller(context)
            with self._admission.within(caller):
                call = Call(caller, context)
                await self._answer(method, body, call, context)
            code = grpc.StatusCode.OK
            return None
        except (AnywireError, Ended) as error:
            fault = fault_of(error)
            code, error_code = fault.code, error.code if isinstance(error, AnywireError) else error.state.status
            return fault
        except grpc.aio.BaseError as error:  # the client has gone
            log.debug("%s ended: %s", name, error)
            raise asyncio.CancelledError from error
        except Exception as error:
            log.exception("%s failed", name)
            code, error_code = grpc.StatusCode.INTERNAL, "internal"
            return Fault(code, f"the gateway failed ({type(error).__name__}): its log says why")
        finally:
            client, question_id = unquote(context.peer()), call.question_id if call is not None else ""
            self._records.end(name, began, code, error=error_code, client=client, question_id=question_id)

    async def _answer(self, method: Method, body: bytes, call: Call, context: Context) -> None:
        asked = _read(method.request, body)
        if method.unary is not None:
            await self._write(await method.unary(asked, call), context)
            return
        assert method.streaming is not None
        async with aclosing(method.streaming(asked, call)) as replies:
            async for reply in replies:
                await self._write(reply, context)

    async def _write(self, reply: Message, context: Context) -> None:
        """Raises `ReaderStalled`."""
        try:
            async with asyncio.timeout(self._reader_timeout):
                await context.write(reply.SerializeToString())
        except TimeoutError:
            raise ReaderStalled(
                f"nothing was read for {self._reader_timeout:g} s (gateways.grpc.reader_timeout)"
            ) from None


def _read(kind: type[Message], body: bytes) -> Message:
    try:
        return kind.FromString(body)
    except (DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from None
