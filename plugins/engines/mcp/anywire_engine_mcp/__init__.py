"""MCP servers beside an agent, and the tool loop of its chats."""
