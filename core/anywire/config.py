"""The configuration: one typed tree, read from four places.

A flag wins over an environment variable, that over the YAML file, that over the default. Environment variables are
named for the key: ``ANYWIRE_SERVER__PORT=9000``, ``ANYWIRE_TRANSPORTS__DDS__DOMAIN=3``; a value that begins with ``[``
or ``{`` is read as YAML. `load` reads all four (see `anywire.config_layers`); `Config` itself reads nothing, so a
program can also build one.

What a transport, gateway, engine, scheduler or selector needs beyond its name is that plugin's business: such options
are kept as they are and checked by the plugin's own ``Config`` when it is loaded (see `anywire.assembly`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from anywire.errors import ConfigError
from anywire.pipeline.orchestrator import PipelineConfig
from anywire.transport import MAX_STRENGTH

ORDER: Any = ...
"""In a layered config, the key under which the names in order stand beside their options: none a file can hold."""

LogLevel = Literal["debug", "info", "warning", "error"]


def named(value: object, *, empty: bool = False) -> dict[str, dict[str, Any]]:
    """Names in order with their options, from any of the accepted shapes: ``dds``, ``dds,http``, ``[dds, http]``,
    ``[{dds: {domain: 3}}, http]``, ``{dds: {domain: 3}, http: {}}``. Raises ValueError, also for none at all unless
    ``empty``."""
    if empty and not value:
        return {}
    if isinstance(value, str):
        entries: list[tuple[object, object]] = [(name.strip(), None) for name in value.split(",")]
    elif isinstance(value, Mapping):
        entries = [(name, value.get(name)) for name in value.get(ORDER, value)]
    elif isinstance(value, Sequence):
        entries = []
        for entry in value:
            if isinstance(entry, PluginChoice):
                entries.append((entry.name, entry.options))
            elif isinstance(entry, Mapping):
                entries.extend(entry.items())
            else:
                entries.append((entry, None))
    else:
        raise ValueError("expected a name, a list of names or a mapping of names to options")
    chosen: dict[str, dict[str, Any]] = {}
    for name, options in entries:
        if not isinstance(name, str) or not name:
            raise ValueError(f"expected a name, found {name!r}")
        if not isinstance(options, Mapping | None):
            raise ValueError(f"the options of {name!r} must be a mapping of keys to values, found {options!r}")
        if name in chosen:
            raise ValueError(f"{name!r} is named twice")
        chosen[name] = dict(options or {})
    if not chosen and not empty:
        raise ValueError("name at least one")
    return chosen


def _choices(value: object) -> list[dict[str, Any]]:
    return [{"name": name, "options": options} for name, options in named(value).items()]


def _choices_or_none(value: object) -> list[dict[str, Any]]:
    return [{"name": name, "options": options} for name, options in named(value, empty=True).items()]


def _as_section(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _as_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class PluginChoice(pydantic.BaseModel):
    """A plugin by name, with the options its own ``Config`` will check."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    options: dict[str, Any] = {}


_SHAPES = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}, "minItems": 1},
        {"type": "object", "additionalProperties": {"anyOf": [{"type": "object"}, {"type": "null"}]}},
    ]
}
_AS_MAPPING = pydantic.PlainSerializer(lambda chosen: {each.name: each.options for each in chosen})
Choices = Annotated[
    list[PluginChoice], pydantic.BeforeValidator(_choices), _AS_MAPPING, pydantic.WithJsonSchema(_SHAPES)
]
ChoicesOrNone = Annotated[
    list[PluginChoice],
    pydantic.BeforeValidator(_choices_or_none),
    _AS_MAPPING,
    pydantic.WithJsonSchema({"anyOf": [*_SHAPES["anyOf"], {"type": "null"}, {"type": "array", "maxItems": 0}]}),
]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class _PluginSection(pydantic.BaseModel):
    """A section that names one plugin; further keys are that plugin's options."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return {key: value for key, value in self if key != "name"}


class ServerConfig(_Section):
    host: str = pydantic.Field("127.0.0.1", description="address the gateways listen on")
    port: int = pydantic.Field(8080, ge=0, le=65535, description="port the gateways listen on; 0 takes a free one")


class AgentsConfig(_Section):
    heartbeat_interval: float = pydantic.Field(
        0.25, gt=0, allow_inf_nan=False, description="seconds between an agent's reports"
    )
    timeout: float = pydantic.Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="the lease: seconds an agent may be silent before it counts as lost",
    )

    @pydantic.model_validator(mode="after")
    def _timeout_is_longer(self) -> AgentsConfig:
        if self.timeout <= self.heartbeat_interval:
            raise ValueError(
                f"timeout ({self.timeout:g} s) must be longer than heartbeat_interval ({self.heartbeat_interval:g} s), "
                "else every agent is lost between two reports"
            )
        return self


class StandbyConfig(_Section):
    enabled: bool = pydantic.Field(
        False,
        description="be one of several orchestrators, of which one is active; needs a transport that elects (dds)",
    )
    strength: int = pydantic.Field(
        0, ge=0, le=MAX_STRENGTH, description="who takes over: of those standing by, the one with the highest"
    )


class SchedulerSection(_PluginSection):
    name: str = pydantic.Field("fifo", description="in which order waiting tasks are sent")
    max_queue_size: int = pydantic.Field(1024, ge=1, description="tasks that may wait before 429")


class SelectorSection(_PluginSection):
    name: str = pydantic.Field("least_loaded", description="which agent gets a task")


class EngineSection(_PluginSection):
    name: str = pydantic.Field("llama", description="what an agent answers with")


class AgentConfig(_Section):
    id: str = pydantic.Field("", description="the agent's name, unique among those alive; empty: one is made")
    slots: int = pydantic.Field(1, ge=1, description="tasks it runs at once")
    specialization: str = pydantic.Field("", description="what it is for, free text that selectors may use")


class Config(pydantic.BaseModel):
    """Everything that can be set."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True)

    server: ServerConfig = ServerConfig()
    transports: Choices = pydantic.Field(
        default_factory=lambda: [PluginChoice(name="dds")], description="in order of preference"
    )
    client_plane: bool = pydantic.Field(
        True, description="clients may use the transports directly, those that leave the process"
    )
    join: ChoicesOrNone = pydantic.Field(
        default_factory=list, description="transports over which to join a parent orchestrator, as its agent"
    )
    agents: AgentsConfig = AgentsConfig()
    standby: StandbyConfig = StandbyConfig()
    scheduler: Annotated[SchedulerSection, pydantic.BeforeValidator(_as_section)] = SchedulerSection()
    selector: Annotated[SelectorSection, pydantic.BeforeValidator(_as_section)] = SelectorSection()
    engine: Annotated[EngineSection, pydantic.BeforeValidator(_as_section)] = EngineSection()
    agent: AgentConfig = AgentConfig()
    gateways: Choices = pydantic.Field(default_factory=lambda: [PluginChoice(name="openai")])
    pipeline: PipelineConfig = PipelineConfig()
    plugins: Annotated[list[str], pydantic.BeforeValidator(_as_list)] = pydantic.Field(
        default_factory=list, description="files (.py) or modules to load hook implementations from"
    )
    shutdown_grace: float = pydantic.Field(
        10.0, ge=0, allow_inf_nan=False, description="seconds that running tasks get to finish at shutdown"
    )
    log_level: Annotated[LogLevel, pydantic.BeforeValidator(_lower)] = "info"

    def transport(self, name: str) -> PluginChoice | None:
        """The choice of that transport, None when it is not used."""
        return next((each for each in self.transports if each.name == name), None)


def load(
    path: str | Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The effective configuration of a process.

    ``flags`` is a tree like the file's; ``environment`` is the process's own when None. Raises `ConfigError` saying
    which key of which source is wrong, and what would do.
    """
    from anywire.config_layers import read

    return read(Config, path, flags or {}, environment)


def replaced(config: Config, **changes: Any) -> Config:
    """A copy with whole sections replaced, checked like any other. Raises `ConfigError`."""
    from anywire.plugins import describe_validation

    try:
        return Config.model_validate(config.model_dump() | changes)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation(error, Config, "")) from error
