"""What goes wrong with a connected MCP server, and how a library's words for it are read."""

from __future__ import annotations

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED

from anywire.printable import printable

MAX_REASON = 500
_SESSION_GONE = "Session terminated"
"""What the SDK says where a server over HTTP does not know the session any more: it was started again."""


class ServerGone(Exception):
    """The connection ended while a request was under way, or before it."""


class ToolFault(Exception):
    """The server answered a call with an error of the protocol (an unknown tool, wrong arguments), or not in time; its
    sentence is for a model, too."""


def is_closed(error: MCPError) -> bool:
    """Whether an error says that there is no connection any more."""
    is_over = error.code == CONNECTION_CLOSED and "closed" in error.message.lower()
    return is_over or error.message == _SESSION_GONE


def said(error: BaseException) -> str:
    """What a library says, on one line; of a group the first of its errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return printable(str(error) or type(error).__name__, MAX_REASON)
