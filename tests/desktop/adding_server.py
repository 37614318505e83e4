"""An MCP server with a tool and a resource, for tests."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("adding")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{a + b}"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it was asked to")


@server.resource("note://one")
def note() -> str:
    """A note."""
    return "the note"


if __name__ == "__main__":
    server.run()
