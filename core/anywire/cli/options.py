"""Options that several commands share, and the configuration they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anywire.config import Config
    from anywire.plugins import Plugins

_WHERE, _AGENT, _PIPELINE = "Server", "Agent", "Pipeline"

File = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="ANYWIRE_CONFIG", metavar="FILE", help="YAML configuration.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the configuration: transports.dds.domain=3. The value is YAML. Repeatable.",
    ),
]
PluginFiles = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE", help="Load hooks and plugins from a .py file or module. Repeatable."),
]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="Log from this level on. Default: info.")
]
Transports = Annotated[
    list[str] | None,
    typer.Option(
        "--transport",
        "-t",
        metavar="NAME",
        help="Transports to open, the preferred first: repeatable, or a,b. Default: dds.",
    ),
]
Over = Annotated[
    list[str] | None,
    typer.Option("--transport", "-t", metavar="NAME", help="Ask over this transport in place of HTTP."),
]
DdsDomain = Annotated[
    int | None,
    typer.Option("--dds-domain", metavar="N", min=0, max=232, help="Short for --set transports.dds.domain=N."),
]
Standby = Annotated[
    bool,
    typer.Option(
        "--standby", help="Be one of several orchestrators, of which one is active; another takes over when it dies."
    ),
]
Strength = Annotated[
    int | None,
    typer.Option(
        "--strength", metavar="N", help="With --standby: take over before those with a lower number. Default: 0."
    ),
]
Join = Annotated[
    list[str] | None,
    typer.Option(
        "--join",
        metavar="NAME",
        help="Join a parent orchestrator over this transport, as its agent; with options as in YAML: "
        "'{dds: {domain: 4}}'. Repeatable.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Address that gateways listen on. Default: 127.0.0.1.",
        rich_help_panel=_WHERE,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        "-p",
        min=0,
        max=65535,
        help="Port that gateways listen on. Default: 8080.",
        rich_help_panel=_WHERE,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Server to ask. Default: http://HOST:PORT.",
        rich_help_panel=_WHERE,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        help="Scheduler that orders the waiting tasks. Default: fifo.",
        rich_help_panel=_PIPELINE,
    ),
]
Selector = Annotated[
    str | None,
    typer.Option(
        "--selector",
        metavar="NAME",
        help="Selector that chooses the agent for each task. Default: least_loaded.",
        rich_help_panel=_PIPELINE,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        "-e",
        metavar="NAME",
        help="Engine that produces the answers. Default: llama.",
        rich_help_panel=_AGENT,
    ),
]
EngineModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Model that the engine answers with.",
        rich_help_panel=_AGENT,
    ),
]
Slots = Annotated[
    int | None,
    typer.Option(
        "--slots",
        min=1,
        help="Tasks that each agent runs at once. Default: 1.",
        rich_help_panel=_AGENT,
    ),
]
AgentId = Annotated[
    str | None,
    typer.Option(
        "--agent-id",
        metavar="ID",
        help="Name of the agent, unique among those alive.",
        rich_help_panel=_AGENT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_SHARED: Mapping[str, Any] = {
    "host": Host,
    "port": Port,
    "transports": Transports,
    "dds_domain": DdsDomain,
    "join": Join,
    "standby": Standby,
    "strength": Strength,
    "scheduler": Scheduler,
    "selector": Selector,
    "engine": Engine,
    "model": EngineModel,
    "slots": Slots,
    "agent_id": AgentId,
    "file": File,
    "settings": Set,
    "plugin_files": PluginFiles,
    "log_level": LogLevel,
}
_ALWAYS = ("file", "settings", "plugin_files", "log_level")


class Given:
    """What the command line gave for the shared options of a command."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def settle(self, *, quiet: bool = False, **fixed: Any) -> tuple[Config, Plugins]:
        """See `settle`; ``fixed`` are options that the command sets itself."""
        return settle(**self._values, **fixed, quiet=quiet)


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these shared options, and those that every command with a configuration has. What was given for
    them is its argument ``given``, a `Given`; its other arguments are options of its own."""
    shared = (*names, *_ALWAYS)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**values: Any) -> None:
            function(given=Given({name: values.pop(name) for name in shared}), **values)

        own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.name != "given"]
        for name in shared:
            default = False if name == "standby" else None
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_SHARED[name])
            )
        # Typer reads these two; through __wrapped__ it would see the function within.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        del command.__wrapped__
        return command

    return decorate


def settle(
    file: Path | None = None,
    *,
    settings: list[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    transports: list[str] | None = None,
    dds_domain: int | None = None,
    join: list[str] | None = None,
    standby: bool = False,
    strength: int | None = None,
    scheduler: str | None = None,
    selector: str | None = None,
    engine: str | None = None,
    model: str | None = None,
    slots: int | None = None,
    agent_id: str | None = None,
    plugin_files: list[str] | None = None,
    log_level: str | None = None,
    quiet: bool = False,
) -> tuple[Config, Plugins]:
    """The effective configuration with these options, its plugins found, and logging set up accordingly.

    With ``quiet``, only warnings are logged unless another level was chosen.
    """
    from anywire.config import replaced
    from anywire.config_layers import load
    from anywire.roles import assembly, logs

    given: dict[str, Any] = {
        "server": _given(host=host, port=port),
        "scheduler": _given(name=scheduler),
        "selector": _given(name=selector),
        "engine": _given(name=engine),
        "agent": _given(id=agent_id),
        "standby": _given(enabled=standby or None, strength=strength),
        "transports": ",".join(transports or ()),
        "join": _joined(join or ()),
        "log_level": log_level,
    }
    keys = _settings(settings or ())
    if dds_domain is not None:
        keys["transports.dds.domain"] = dds_domain
    config = load(file, flags={key: value for key, value in given.items() if value}, settings=keys)
    if quiet and config.log_level == "info" and log_level is None:
        config = replaced(config, log_level="warning")
    logs.configure(config.log_level)
    for key in keys:
        _check_used(config, key, "--dds-domain" if dds_domain is not None and key.endswith("dds.domain") else "--set")
    if strength is not None and not config.standby.enabled:
        raise typer.BadParameter("it is for orchestrators that stand by: add --standby", param_hint="--strength")
    if plugin_files:
        config = replaced(config, plugins=[*config.plugins, *plugin_files])
    plugins = assembly.load_plugins(config)
    if model is not None:
        config = assembly.with_model(config, plugins, model)
    if slots is not None:
        config = assembly.with_slots(config, plugins, slots)
    return config, plugins


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` gave: keys with dots, and values read as YAML."""
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise typer.BadParameter(f"expected KEY=VALUE, found {text!r}", param_hint="--set")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise typer.BadParameter(f"the value of {key} is no YAML: {error}", param_hint="--set") from error
    return found


def _check_used(config: Config, key: str, option: str) -> None:
    """Refuse an option of a plugin that the configuration does not use: it would do nothing."""
    section, *rest = key.split(".")
    if section not in ("transports", "join", "gateways", "services") or len(rest) < 2:
        return
    chosen = getattr(config, section) or ()
    if all(each.name != rest[0] for each in chosen):
        used = ", ".join(each.name for each in chosen) or "none"
        raise typer.BadParameter(
            f"the {section.removesuffix('s')} {rest[0]} is not used ({section}: {used})", param_hint=option
        )


def base_url(
    url: str | None, file: Path | None, host: str | None, port: int | None, settings: list[str] | None = None
) -> str:
    """The server a client command talks to, without a slash at its end."""
    if url is not None:
        if "://" not in url:
            url = f"http://{url}"
        return url.rstrip("/").removesuffix("/v1")
    from anywire.config_layers import load

    given = {"server": _given(host=host, port=port)}
    server = load(file, flags=given if given["server"] else {}, settings=_settings(settings or ())).server
    return f"http://{reachable(server.host)}:{server.port}"


def reachable(host: str) -> str:
    """The host part of a URL for an address that is listened on."""
    local = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def _joined(given: Sequence[str]) -> list[Any]:
    """What ``--join`` gave, each time a name or names, or YAML with options."""
    import yaml

    found: list[Any] = []
    for text in given:
        if not text.lstrip().startswith(("[", "{")):
            found.extend(part.strip() for part in text.split(",") if part.strip())
            continue
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise typer.BadParameter(f"begins like a YAML list or mapping but is none: {error}") from error
        found.extend(value if isinstance(value, list) else [value])
    return found


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
