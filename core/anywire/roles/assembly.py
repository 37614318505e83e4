"""From a `Config` to running parts: which plugins, with which options.

A plugin's options are checked here, by its own ``Config``, when it is made. Options that follow a setting of the core
(`anywire.core_settings`) get its value unless they are set. The pipeline and the agent are imported when one is made:
commands that ask a running server need neither.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pydantic

from anywire.access import Access, OpenAccess, RunAccess
from anywire.config import DEFAULT_GATEWAY, MASK, Config, PluginChoice, replaced
from anywire.core_settings import CoreSetting, FromCore, core_options, following_options
from anywire.engine import Engine
from anywire.errors import ConfigError, PluginError
from anywire.event_bus import EventBus
from anywire.gateway import Gateway
from anywire.identity import agent_info, hub_info
from anywire.launcher import Launcher
from anywire.plugins import PluginKind, Plugins
from anywire.roles.agent_configs import entry_config
from anywire.roles.identities import OwnIdentity
from anywire.secrecy import is_secret, without_secrets
from anywire.service import Service
from anywire.transport import Elects, Plane, Transport

if TYPE_CHECKING:
    from anywire.pipeline.orchestrator import Orchestrator
    from anywire.roles.agent import Agent

PAGE = "ui"
"""The service that serves the page in the browser."""
LISTS: dict[str, PluginKind] = {
    "transports": "transports",
    "join": "transports",
    "gateways": "gateways",
    "services": "services",
}
"""Keys of a configuration that name any number of plugins with their options."""
SECTIONS: dict[str, PluginKind] = {
    "scheduler": "schedulers",
    "selector": "selectors",
    "engine": "engines",
    "launcher": "launchers",
}
"""Keys that name one plugin, whose options stand beside the name."""


def load_plugins(config: Config) -> Plugins:
    """The installed plugins and those ``plugins`` names. Raises `PluginError`."""
    plugins = Plugins()
    for source in config.plugins:
        plugins.add(source)
    return plugins


def make_transports(config: Config, plugins: Plugins) -> list[Transport]:
    """New transports, in order of preference; each role that opens them needs its own."""
    return [plugins.create("transports", each.name, each.options) for each in config.transports]


def make(
    config: Config, plugins: Plugins, kind: PluginKind, name: str, options: Mapping[str, Any], section: str = ""
) -> Any:
    """The plugin of that name, with what its options take from the core. Raises `PluginError` or `ConfigError`."""
    parts = partial(make, config, plugins, kind)
    return plugins.create(kind, name, plugin_options(config, plugins, kind, name, options), section, parts)


def plugin_options(
    config: Config, plugins: Plugins, kind: PluginKind, name: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """``options``, and those that follow settings of the core where they are not set."""
    model = getattr(plugins.load(kind, name), "Config", None)
    follow = core_options(model, config) if isinstance(model, type) and issubclass(model, pydantic.BaseModel) else {}
    return follow | dict(options)


def make_engine(config: Config, plugins: Plugins) -> Engine:
    engine: Engine = make(config, plugins, "engines", config.engine.name, config.engine.options)
    return engine


def chosen_gateways(config: Config, plugins: Plugins) -> list[PluginChoice]:
    """The gateways to run. Where none is configured that is `openai` if it is installed, and otherwise none: clients
    use the transports then."""
    if config.gateways is not None:
        return config.gateways
    if DEFAULT_GATEWAY in plugins.names("gateways"):
        return [PluginChoice(name=DEFAULT_GATEWAY)]
    return []


def make_gateways(config: Config, plugins: Plugins) -> list[Gateway]:
    return [make(config, plugins, "gateways", each.name, each.options) for each in chosen_gateways(config, plugins)]


def with_page(config: Config, plugins: Plugins) -> Config:
    """With the page in the browser (service `ui`), where it is installed, a gateway can serve it, and the configuration
    says nothing of it."""
    names = [each.name for each in config.services]
    serves = any(each.name == DEFAULT_GATEWAY for each in chosen_gateways(config, plugins))
    if PAGE in names or not serves or PAGE not in plugins.names("services"):
        return config
    services = {each.name: each.options for each in config.services} | {PAGE: {}}
    return replaced(config, services=services)


def make_services(config: Config, plugins: Plugins) -> list[Service]:
    return [make(config, plugins, "services", each.name, each.options) for each in config.services]


def make_launcher(config: Config, plugins: Plugins) -> Launcher:
    launcher: Launcher = make(config, plugins, "launchers", config.launcher.name, config.launcher.options)
    return launcher


def make_access(config: Config, bus: EventBus | None = None) -> RunAccess:
    """Who may come in, as the configuration says: with keys, with tokens of an issuer, with clients' certificates, or
    without any of these everybody. It has not started. ``bus`` is told of what changes. Raises `ConfigError` for a
    file of keys that is no good."""
    tls = config.server.tls
    certificates = tls is not None and tls.client_ca is not None
    if config.access.keys is None and config.access.jwt is None and not certificates:
        return OpenAccess()
    from anywire.keys.issuer_tokens import IssuerTokens
    from anywire.keys.key_access import KeyAccess

    return KeyAccess(
        config.access.keys,
        tokens=IssuerTokens(config.access.jwt, bus=bus) if config.access.jwt is not None else None,
        every_certificate=certificates and config.access.keys is None,
        bus=bus,
    )


def make_orchestrator(config: Config, plugins: Plugins) -> Orchestrator:
    """An orchestrator that has not started."""
    from anywire.pipeline.orchestrator import Orchestrator

    own, transports = OwnIdentity(config), make_transports(config, plugins)
    own.give(transports)
    return Orchestrator(
        own.hub(hub_info(lease=config.lease.timeout), "agent"),
        transports,
        plugins.create("schedulers", config.scheduler.name, config.scheduler.options),
        plugins.create("selectors", config.selector.name, config.selector.options),
        config=config.pipeline,
        plugins=plugins,
        end_check=own.check,
    )


def make_agent(config: Config, plugins: Plugins, log_level: int = logging.INFO) -> Agent:
    """An agent that has not started."""
    from anywire.roles.agent import Agent

    engine = make_engine(config, plugins)
    info = agent_info(
        config.agent.id,
        engine=engine,
        specialization=config.agent.specialization,
        device=config.agent.device,
        lease=config.lease.timeout,
    )
    own, transports = OwnIdentity(config), make_transports(config, plugins)
    own.give(transports)
    return Agent(
        own.agent(info, "agent"),
        engine,
        transports,
        slots=config.agent.slots,
        queue=config.agent.queue,
        heartbeat_interval=config.lease.heartbeat_interval,
        log_level=log_level,
        end_check=own.check,
    )


def make_fleet_agents(config: Config, plugins: Plugins, orchestrator: Orchestrator, access: Access) -> list[Agent]:
    """The orchestrator as an agent of its clients and of the parents it joins, as far as the config says; not
    started. ``access`` says who its clients are. Raises `ConfigError` when a parent cannot be reached in the way
    named."""
    from anywire.roles.fleet import fleet_agent

    for each in config.join:
        if not _inter_process(plugins, each):
            raise ConfigError(f"join: the transport {each.name} stays inside of one process and reaches no parent")
    leaving = [each for each in config.transports if _inter_process(plugins, each)] if config.client_plane else []
    planes: tuple[tuple[Plane, str, list[PluginChoice]], ...] = (
        ("client", "transports", leaving),
        ("agent", "join", config.join),
    )
    own, agents = OwnIdentity(config), []
    for plane, section, chosen in planes:
        if not chosen:
            continue
        transports = [plugins.create("transports", each.name, each.options, section) for each in chosen]
        own.give(transports)
        agents.append(
            fleet_agent(
                orchestrator,
                transports,
                plane,
                access=access,
                lease=config.lease.timeout,
                heartbeat_interval=config.lease.heartbeat_interval,
                log_requests=config.log_requests,
                own=own,
            )
        )
    return agents


def make_elects(config: Config, plugins: Plugins) -> Elects:
    """The first transport that elects, an instance of its own. Raises `ConfigError` when none does."""
    for each in config.transports:
        if issubclass(plugins.load("transports", each.name), Elects):
            elects: Elects = plugins.create("transports", each.name, each.options)
            return elects
    able = [name for name in plugins.names("transports") if _elects(plugins, name)]
    raise ConfigError(
        "standby.enabled needs a transport that can hold one orchestrator to be the active one; "
        f"{config.transport_names} cannot. "
        + (f"Those installed that can: {', '.join(able)}" if able else "None that can is installed (anywire-dds can)")
    )


def _elects(plugins: Plugins, name: str) -> bool:
    try:
        return issubclass(plugins.load("transports", name), Elects)
    except PluginError:
        return False


def in_one_process(config: Config, plugins: Plugins) -> bool:
    """Whether some transport reaches only agents of the same process."""
    return not all(_inter_process(plugins, each) for each in config.transports)


def _inter_process(plugins: Plugins, choice: PluginChoice) -> bool:
    inter_process: bool = plugins.load("transports", choice.name).capabilities.inter_process
    return inter_process


def with_model(config: Config, plugins: Plugins, model: str) -> Config:
    """The config with the engine's model set, whatever its ``Config`` calls it. Raises `ConfigError`."""
    name = config.engine.name
    fields = _fields(plugins, "engines", name)
    if "model" in fields:
        return _with_engine_options(config, model=model)
    if "models" in fields:
        return _with_engine_options(config, models=[model])
    raise ConfigError(f"engine {name!r} takes no model: leave --model out, or choose another engine")


def with_core_setting(config: Config, plugins: Plugins, key: CoreSetting, value: object) -> Config:
    """The config with ``key`` of a section set, and with the options of engine and gateways that follow it where a file
    has set them: a flag wins. Raises `ConfigError` when several gateways have set theirs, and must keep them apart."""
    section, name = key.split(".")
    config = replaced(config, **{section: getattr(config, section).model_dump() | {name: value}})
    engine = _following(plugins, "engines", config.engine.name, config.engine.options, key)
    if engine:
        config = _with_engine_options(config, **dict.fromkeys(engine, value))
    own = {
        each.name: set_
        for each in config.gateways or ()
        if (set_ := _following(plugins, "gateways", each.name, each.options, key))
    }
    if len(own) > 1:
        raise ConfigError(
            f"--{name} is for one gateway, and {' and '.join(own)} have each set their own: "
            f"use --set gateways.{next(iter(own))}.{name}=…"
        )
    if own:
        chosen = {
            each.name: each.options | dict.fromkeys(own.get(each.name, ()), value) for each in config.gateways or ()
        }
        config = replaced(config, gateways=chosen)
    return config


def _following(
    plugins: Plugins, kind: PluginKind, name: str, options: Mapping[str, Any], key: CoreSetting
) -> list[str]:
    """The options of a plugin that would follow ``key`` and are set."""
    if name not in plugins.names(kind):
        return []  # refused later, by name
    fields = _fields(plugins, kind, name)
    return [each for each in options if each in fields and FromCore(key) in fields[each].metadata]


def effective(config: Config, plugins: Plugins) -> tuple[dict[str, Any], list[str]]:
    """Everything in force as plain types, plugins' own defaults included, secrets masked; and a sentence for each
    plugin that could not be asked. Options that follow a setting of the core are left out where they do: read again,
    they still follow."""
    tree = config.model_dump()
    faults: list[str] = []

    def complete(
        kind: PluginKind, name: str, options: Mapping[str, Any], section: str = "", config: Config = config
    ) -> dict[str, Any]:
        try:
            made: pydantic.BaseModel = make(config, plugins, kind, name, options, section).config
        except PluginError as error:
            faults.append(str(error))
            return dict(options)
        follow = following_options(type(made)) - options.keys()
        return {key: value for key, value in made.model_dump().items() if key not in follow}

    if tree["gateways"] is None:
        tree["gateways"] = {each.name: each.options for each in chosen_gateways(config, plugins)}
    for key, kind in LISTS.items():
        tree[key] = {name: complete(kind, name, options, key) for name, options in tree[key].items()}
    for key, kind in SECTIONS.items():
        section = tree[key]
        name = section.pop("name")
        tree[key] = {"name": name} | complete(kind, name, section)
    for number, entry in enumerate(config.agents):
        if entry.engine is not None:
            own = entry_config(config, entry)
            options = complete("engines", entry.engine.name, entry.engine.options, config=own)
            tree["agents"][number]["engine"] = {"name": entry.engine.name} | options
    plain: dict[str, Any] = pydantic.TypeAdapter(Any).dump_python(masked(tree), mode="json")
    return plain, faults


def check_options(config: Config, plugins: Plugins) -> None:
    """Raise `ConfigError` or `PluginError` where a plugin of an orchestrator is missing, or its options do not fit. No
    plugin is made."""
    for key in LISTS:
        for each in (getattr(config, key) if key != "gateways" else chosen_gateways(config, plugins)) or ():
            plugins.check(LISTS[key], each.name, plugin_options(config, plugins, LISTS[key], each.name, each.options))
    plugins.check("schedulers", config.scheduler.name, config.scheduler.options)
    plugins.check("selectors", config.selector.name, config.selector.options)


def masked(value: Any, key: str = "") -> Any:
    """A tree of plain types with what must stay secret, by its key or inside of an address, replaced by `MASK`. A path
    is no secret, only what is in the file."""
    if isinstance(value, dict):
        return {inner: masked(each, str(inner)) for inner, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(each, key) for each in value]
    if isinstance(value, str) and value:
        return MASK if is_secret(key) else without_secrets(value, MASK)
    return value


def _fields(plugins: Plugins, kind: PluginKind, name: str) -> Mapping[str, Any]:
    model: type[pydantic.BaseModel] = plugins.load(kind, name).Config
    return model.model_fields


def _with_engine_options(config: Config, **options: Any) -> Config:
    return replaced(config, engine=config.engine.model_dump() | options)
