"""Connections to MCP servers: programs on stdin and stdout, and addresses of streamable HTTP."""
