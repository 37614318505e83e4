"""A real MCP server, the SDK's own: on stdin and stdout, or with ``http PORT`` over streamable HTTP on loopback."""

import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

server = MCPServer("measures", instructions="Measures of a room.")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def temperature(room: str) -> str:
    """The temperature of a room in degrees."""
    return f"{room}: 21.5 degrees"


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def broken() -> str:
    """Always fails."""
    raise ToolError("the sensor is broken")


@server.tool()
def end() -> str:
    """End the server."""
    os._exit(7)


@server.resource("note://hello")
def hello() -> str:
    """A note."""
    return "hello from a resource"


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run("stdio")
