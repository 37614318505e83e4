"""A child's stdin and stdout as the MCP SDK wants a transport: two streams of messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from mcp.client._transport import TransportStreams  # the package has no public name for it
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from anywire_engine_mcp.connection.child import MAX_MESSAGE_BYTES, Child


@asynccontextmanager
async def stdio_streams(child: Child, closed: Callable[[str], None]) -> AsyncGenerator[TransportStreams]:
    """The streams of a child that lives on. What it writes that is no message goes to its log. The reading one ends
    when the child has closed its stdout, or a line is too long; ``closed`` is told which."""
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with to_session:
            while line := await _line(child, closed):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    child.wrote(line)
                    refusal = _refusal(line)
                    if refusal is None:
                        await asyncio.sleep(0)  # it may write thousands of them at once
                        continue
                    message = refusal
                try:
                    await to_session.send(SessionMessage(message))
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    return
            closed("it closed its output")

    async def write() -> None:
        async with from_session:
            async for each in from_session:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                try:
                    child.stdin.write(text.encode(errors="replace") + b"\n")
                    await child.stdin.drain()
                except (OSError, RuntimeError):
                    to_session.close()  # the session must not wait for an answer that cannot come
                    return

    tasks = [asyncio.create_task(read(), name="mcp read"), asyncio.create_task(write(), name="mcp write")]
    try:
        yield incoming, outgoing
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (to_session, incoming, outgoing, from_session):
            stream.close()


def _refusal(line: bytes) -> JSONRPCError | None:
    """What the session gets in place of an answer that cannot be read, so that nobody waits for it; None for a line
    that is no answer."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or "method" in told or not told.keys() & {"result", "error"}:
        return None
    request = told.get("id")
    if not isinstance(request, int | str) or isinstance(request, bool):
        return None
    fault = ErrorData(code=PARSE_ERROR, message="its answer is no message of JSON-RPC; its log has it")
    return JSONRPCError(jsonrpc="2.0", id=request, error=fault)


async def _line(child: Child, closed: Callable[[str], None]) -> bytes:
    """The next line, empty at the end, and for one that is too long: what follows it cannot be told apart."""
    try:
        return await child.stdout.readline()
    except ValueError:
        closed(f"it sent a message of more than {MAX_MESSAGE_BYTES // 2**20} MiB")
        return b""
