"""What can be set of the engine ``mcp``."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.errors import ConfigError
from anywire_engine_mcp.server_config import ServerConfig, Servers
from anywire_engine_mcp.servers_file import read_servers_file
from anywire_engine_mcp.tool_loop.loop import LoopLimits


class InnerEngine(pydantic.BaseModel):
    """Further members are the engine's own settings."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str = pydantic.Field(min_length=1, description="Engine that has the models.")


class McpConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    inner: InnerEngine = pydantic.Field(
        default=InnerEngine(name="llama"),
        description="Engine that has the models: its name, or `name` and the settings of that engine beside it.",
    )
    servers: Servers = pydantic.Field(default_factory=dict, description="MCP servers, by label.")
    servers_file: Path | None = pydantic.Field(
        default=None,
        description="JSON file with `mcpServers`, as other programs have it; `servers` win over servers in it.",
    )
    max_steps: int = pydantic.Field(
        default=8, ge=1, le=100, description="Rounds of one answer in which the model may call tools."
    )
    max_seconds: float = pydantic.Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds of one answer after which no tool is called any more.",
    )
    max_calls: int = pydantic.Field(default=16, ge=1, le=128, description="Tools that are called in one round.")
    max_result_chars: int = pydantic.Field(
        default=32768, ge=256, description="Characters of a tool's result that the model is given; the rest is cut off."
    )

    @pydantic.field_validator("inner", mode="before")
    @classmethod
    def _may_be_a_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    def all_servers(self) -> dict[str, ServerConfig]:
        """Those of ``servers``, and of the file. Raises `ConfigError`."""
        if self.servers_file is None:
            return dict(self.servers)
        try:
            found = read_servers_file(self.servers_file)
        except ConfigError as error:
            raise ConfigError(f"engine.servers_file: {error}") from error
        wrong = {name: why for name, why in found.skipped.items() if why != "it is disabled"}
        if wrong:
            told = "; ".join(f"{name[:80]!r}: {why}" for name, why in list(wrong.items())[:8])
            raise ConfigError(f"engine.servers_file: {self.servers_file} has servers that cannot be used: {told}")
        return found.servers | dict(self.servers)

    def limits(self) -> LoopLimits:
        return LoopLimits(self.max_steps, self.max_seconds, self.max_calls, self.max_result_chars)
