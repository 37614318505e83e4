"""The configuration: one typed tree, read from four places.

A flag wins over an environment variable, that over the YAML file, that over the default. Environment variables are
named for the key: ``ANYWIRE_SERVER__PORT=9000``, ``ANYWIRE_TRANSPORTS__DDS__DOMAIN=3``; a value that begins with ``[``
or ``{`` is read as YAML. `anywire.config_layers.load` reads all four; `Config` itself reads nothing, so a
program can also build one.

What a plugin (transport, gateway, service, launcher, engine, scheduler or selector) needs beyond its name is that
plugin's business: such options are kept as they are and checked by the plugin's own ``Config`` when it is loaded (see
`anywire.roles.assembly`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from anywire.access_settings import AccessConfig, IdentityConfig, TlsConfig
from anywire.errors import ConfigError
from anywire.log_lines import LogFormat
from anywire.on_demand_settings import MAX_ON_DEMAND, OnDemandConfig
from anywire.pipeline_settings import PipelineConfig
from anywire.secrecy import shown
from anywire.submission import MAX_NAME_CHARS
from anywire.transport import MAX_STRENGTH

ORDER: Any = ...
"""In a layered config, the key under which the names in order stand beside their options: none a file can hold."""

DEFAULT_GATEWAY = "openai"
"""Used where none is configured and it is installed."""

MASK = "**********"
"""Stands for a secret where a configuration is shown."""

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
            raise ValueError(f"expected a name, found {shown(name)}")
        if not isinstance(options, Mapping | None):
            raise ValueError(
                f"the options of {shown(name)} must be a mapping of keys to values, found {shown(options)}"
            )
        if name in chosen:
            raise ValueError(f"{shown(name)} is named twice")
        chosen[name] = dict(options or {})
    if not chosen and not empty:
        raise ValueError("name at least one")
    return chosen


def _choices(value: object) -> list[dict[str, Any]]:
    return [{"name": name, "options": options} for name, options in named(value).items()]


def _choices_or_none(value: object) -> list[dict[str, Any]]:
    return [{"name": name, "options": options} for name, options in named(value, empty=True).items()]


def _choices_or_default(value: object) -> list[dict[str, Any]] | None:
    return None if value is None else _choices_or_none(value)


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
_NONE_TOO = pydantic.WithJsonSchema({"anyOf": [*_SHAPES["anyOf"], {"type": "null"}, {"type": "array", "maxItems": 0}]})
_AS_MAPPING = pydantic.PlainSerializer(lambda chosen: {each.name: each.options for each in chosen})
Choices = Annotated[
    list[PluginChoice], pydantic.BeforeValidator(_choices), _AS_MAPPING, pydantic.WithJsonSchema(_SHAPES)
]
ChoicesOrNone = Annotated[
    list[PluginChoice],
    pydantic.BeforeValidator(_choices_or_none),
    _AS_MAPPING,
    _NONE_TOO,
]
GatewayChoices = Annotated[
    list[PluginChoice] | None,
    pydantic.BeforeValidator(_choices_or_default),
    pydantic.PlainSerializer(lambda chosen: None if chosen is None else {each.name: each.options for each in chosen}),
    _NONE_TOO,
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
    host: str = pydantic.Field(
        "127.0.0.1", description="Address that gateways listen on. Empty: none, the Unix socket alone."
    )
    port: int | None = pydantic.Field(
        None,
        ge=0,
        le=65535,
        description="Port that gateways listen on. 0: any that is free. Default: 8080, or any that is free when that is"
        " taken.",
    )
    unix: Path | None = pydantic.Field(
        None, description="Unix socket to listen on besides. The users of both ends are known there without keys."
    )
    tls: TlsConfig | None = pydantic.Field(None, description="Certificates of the gateways. Default: no TLS.")
    gateway_processes: int = pydantic.Field(
        0,
        ge=0,
        le=64,
        description="Processes that share the port of the gateway `openai`, before one orchestrator (Linux). 0: the "
        "orchestrator's own process serves it.",
    )


class LeaseConfig(_Section):
    timeout: float = pydantic.Field(
        1.0, gt=0, allow_inf_nan=False, description="Seconds an agent may be silent before it counts as lost."
    )
    heartbeat_interval: float = pydantic.Field(
        0.25, gt=0, allow_inf_nan=False, description="Seconds between an agent's reports."
    )

    @pydantic.model_validator(mode="after")
    def _timeout_is_longer(self) -> LeaseConfig:
        if self.timeout <= self.heartbeat_interval:
            raise ValueError(
                f"timeout ({self.timeout:g} s) must be longer than heartbeat_interval ({self.heartbeat_interval:g} s), "
                "else every agent is lost between two reports"
            )
        return self


class StandbyConfig(_Section):
    enabled: bool = pydantic.Field(
        False,
        description="Be one of several orchestrators, of which one is active. Needs a transport that elects (dds).",
    )
    strength: int = pydantic.Field(
        0, ge=0, le=MAX_STRENGTH, description="Take over before those that stand by with a lower number."
    )


class SchedulerSection(_PluginSection):
    name: str = pydantic.Field("fifo", description="Scheduler that orders the waiting tasks.")
    max_queue_size: int = pydantic.Field(1024, ge=1, description="Tasks that may wait; further ones are refused (429).")


class SelectorSection(_PluginSection):
    name: str = pydantic.Field("least_loaded", description="Selector that chooses the agent for each task.")


class EngineSection(_PluginSection):
    name: str = pydantic.Field("llama", description="Engine that produces the answers.")


class LauncherSection(_PluginSection):
    name: str = pydantic.Field("local", description="Launcher that starts the agents of `anywire up`.")


def _printable(value: str) -> str:
    """Texts of an agent that every hub takes: one that does not refuses the agent, and its owner does not see that."""
    if len(value) > MAX_NAME_CHARS:
        raise ValueError(f"at most {MAX_NAME_CHARS} characters are possible, there are {len(value)}")
    if not value.isprintable():
        raise ValueError("only printable characters are possible")
    return value


PrintableText = Annotated[str, pydantic.AfterValidator(_printable)]


class AgentConfig(_Section):
    id: PrintableText = pydantic.Field(
        "", description="Name of the agent, unique among those alive. Default: host, pid and a random part."
    )
    slots: int = pydantic.Field(1, ge=1, description="Tasks that the agent runs at once.")
    queue: int = pydantic.Field(
        0,
        ge=0,
        le=10_000,
        description="Tasks that the agent takes in beyond its slots and lets wait, where several orchestrators send to "
        "it; further ones it refuses.",
    )
    specialization: PrintableText = pydantic.Field("", description="Free text about the agent, for selectors.")
    device: PrintableText = pydantic.Field(
        "", description="What the agent's engine runs on, for selectors: `cuda:0`, or `cpu`. Empty: the processor."
    )


class AgentsEntry(_Section):
    """Agents of one sort in `Config.agents`. What is not set is taken from the sections ``engine`` and ``agent``."""

    engine: Annotated[EngineSection | None, pydantic.BeforeValidator(_as_section)] = pydantic.Field(
        None, description="Engine of these agents with its options: a name, or a mapping with `name`."
    )
    count: int = pydantic.Field(1, ge=1, le=1000, description="Agents to start.")
    id: PrintableText = pydantic.Field("", description="Name of the agent; with a count above 1 a number is added.")
    slots: int | None = pydantic.Field(None, ge=1, description="Tasks that each runs at once.")
    queue: int | None = pydantic.Field(
        None, ge=0, le=10_000, description="Tasks that each takes in beyond its slots and lets wait."
    )
    device: PrintableText | None = pydantic.Field(
        None, description="What the engine of these agents runs on. Default: `agent.device`."
    )
    specialization: PrintableText | None = pydantic.Field(
        None, description="Free text about these agents, for selectors."
    )
    on_demand: int | None = pydantic.Field(
        None,
        ge=0,
        le=MAX_ON_DEMAND,
        description="Agents of this sort to start on demand at most. Default: `on_demand.most`.",
    )


_MOVED = ("timeout", "heartbeat_interval")


def _entries(value: object) -> object:
    """Refuse what ``agents`` was before it listed agents, naming the new place."""
    if isinstance(value, Mapping):
        for key in _MOVED:
            if key in value:
                raise ValueError(f"agents.{key} is lease.{key} now (ANYWIRE_LEASE__{key.upper()})")
        raise ValueError("expected a list with an entry for each sort of agents: [{engine: NAME, count: 2}]")
    return value or []


class Config(pydantic.BaseModel):
    """Everything that can be set."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True)

    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    identity: IdentityConfig = IdentityConfig()
    transports: Choices = pydantic.Field(
        default_factory=lambda: [PluginChoice(name="dds")],
        description="Transports to open, the preferred one first.",
    )
    client_plane: bool = pydantic.Field(
        True, description="Let clients use the transports directly, those that leave the process."
    )
    join: ChoicesOrNone = pydantic.Field(
        default_factory=list, description="Transports over which to join a parent orchestrator, as its agent."
    )
    lease: LeaseConfig = LeaseConfig()
    standby: StandbyConfig = StandbyConfig()
    scheduler: Annotated[SchedulerSection, pydantic.BeforeValidator(_as_section)] = SchedulerSection()
    selector: Annotated[SelectorSection, pydantic.BeforeValidator(_as_section)] = SelectorSection()
    engine: Annotated[EngineSection, pydantic.BeforeValidator(_as_section)] = EngineSection()
    agent: AgentConfig = AgentConfig()
    agents: Annotated[list[AgentsEntry], pydantic.BeforeValidator(_entries)] = pydantic.Field(
        default_factory=list,
        description="Agents that `anywire up` starts, an entry for each sort. Default: those of `engine` and `agent`.",
    )
    on_demand: OnDemandConfig = OnDemandConfig()
    launcher: Annotated[LauncherSection, pydantic.BeforeValidator(_as_section)] = LauncherSection()
    gateways: GatewayChoices = pydantic.Field(
        None, description="Gateways by which clients reach the orchestrator. Default: `openai` where it is installed."
    )
    services: ChoicesOrNone = pydantic.Field(
        default_factory=list, description="Services to run beside the orchestrator, started in this order."
    )
    pipeline: PipelineConfig = PipelineConfig()
    plugins: Annotated[list[str], pydantic.BeforeValidator(_as_list)] = pydantic.Field(
        default_factory=list, description="Files (.py) or modules to load hooks and plugin classes from."
    )
    shutdown_grace: float = pydantic.Field(
        10.0, ge=0, allow_inf_nan=False, description="Seconds that running tasks get to finish at shutdown."
    )
    alive_file: Path | None = pydantic.Field(
        None,
        description="File whose time `anywire serve`, `agent` and `up` set every 5 seconds while their event loop "
        "runs: for probes of processes that serve no HTTP. Default: none.",
    )
    log_level: Annotated[LogLevel, pydantic.BeforeValidator(_lower)] = pydantic.Field(
        "info", description="Least level of what is logged."
    )
    log_format: LogFormat = pydantic.Field("text", description="Form of the log: lines of text, or a JSON object each.")
    log_requests: bool = pydantic.Field(
        True, description="Log a line at `info` for each request that asked for an answer, or failed."
    )

    @pydantic.model_validator(mode="after")
    def _port_stays_in_a_standby(self) -> Config:
        if self.standby.enabled and self.server.port is None:
            # Who takes over has to be found where the other one was.
            self.server = self.server.model_copy(update={"port": DEFAULT_PORT})
        return self

    @property
    def transport_names(self) -> str:
        """The transports in order, for a person."""
        return ", ".join(each.name for each in self.transports)

    def transport(self, name: str) -> PluginChoice | None:
        """The choice of that transport, None when it is not used."""
        return next((each for each in self.transports if each.name == name), None)


DEFAULT_PORT = 8080
"""Where a gateway listens when no port is set and this one is free."""


def with_transport_options(config: Config, options: Mapping[str, Mapping[str, Any]]) -> Config:
    """A copy with further options of its transports, by their names; they win over those that are set."""
    return replaced(
        config, transports={each.name: {**each.options, **options.get(each.name, {})} for each in config.transports}
    )


def replaced(config: Config, **changes: Any) -> Config:
    """A copy with whole sections replaced, checked like any other. Raises `ConfigError`."""
    from anywire.plugins import describe_validation

    try:
        return Config.model_validate(config.model_dump(exclude_unset=True) | changes)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation(error, Config, "")) from None
