"""Settings of the core that options of a plugin follow.

A plugin that needs such a setting says so at the option of its ``Config``, and the option keeps its own place as an
override:

    class Options(pydantic.BaseModel):
        port: Annotated[int, FromCore("server.port")] = pydantic.Field(default=8080, description="Port to listen on.")

With ``server: {port: 9000}`` it gets 9000, with ``gateways: {mine: {port: 9001}}`` 9001. Where the plugin is made
without a configuration, as in a test, its own default counts. Nothing else of the core reaches a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pydantic

    from anywire.config import Config

CoreSetting = Literal[
    "server.host",
    "server.port",
    "access.trusted_proxies",
    "server.unix",
    "server.tls",
    "pipeline.max_body_bytes",
    "shutdown_grace",
    "agent.slots",
    "log_requests",
]
"""The keys that there are, as in a configuration file."""


class FromCore(NamedTuple):
    """Annotates an option that is ``key``'s value unless it is set."""

    key: CoreSetting


def following_options(model: type[pydantic.BaseModel]) -> set[str]:
    """The names of the options of ``model`` that follow settings of the core."""
    return {
        name for name, field in model.model_fields.items() if any(isinstance(mark, FromCore) for mark in field.metadata)
    }


def core_options(model: type[pydantic.BaseModel], config: Config) -> dict[str, Any]:
    """The options of ``model`` that follow settings of the core, with the values these have in ``config``, if any."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, FromCore):
                value: Any = config
                for part in mark.key.split("."):
                    value = getattr(value, part)
                if value is not None:  # the setting has no value: the option's own default counts
                    found[name] = value
    return found
