"""Options that several commands share, and the configuration they make."""

from __future__ import annotations

from collections.abc import Sequence
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
PluginFiles = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="Further hooks, a .py file or module; repeatable.")
]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error [default: info].")
]
Transports = Annotated[
    list[str] | None,
    typer.Option(
        "--transport", "-t", metavar="NAME", help="Transports by preference, repeatable or a,b [default: dds]."
    ),
]
DdsDomain = Annotated[
    int | None, typer.Option("--dds-domain", metavar="N", min=0, max=232, help="Domain of the transport dds.")
]
Standby = Annotated[
    bool,
    typer.Option(
        "--standby", help="Be one of several orchestrators: one is active, the others take over when it dies."
    ),
]
Strength = Annotated[
    int | None,
    typer.Option(
        "--strength", metavar="N", help="With --standby: of those standing by, the highest takes over [default: 0]."
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
    str | None, typer.Option("--host", help="Address to listen on [default: 127.0.0.1].", rich_help_panel=_WHERE)
]
Port = Annotated[
    int | None,
    typer.Option("--port", "-p", min=0, max=65535, help="Port [default: 8080].", rich_help_panel=_WHERE),
]
Url = Annotated[
    str | None, typer.Option("--url", help="Server to ask [default: http://HOST:PORT].", rich_help_panel=_WHERE)
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="NAME", help="Order of waiting tasks [default: fifo].", rich_help_panel=_PIPELINE
    ),
]
Selector = Annotated[
    str | None,
    typer.Option(
        "--selector", metavar="NAME", help="Choice of agent [default: least_loaded].", rich_help_panel=_PIPELINE
    ),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", "-e", metavar="NAME", help="What answers [default: llama].", rich_help_panel=_AGENT),
]
EngineModel = Annotated[str | None, typer.Option("--model", "-m", help="Model of the engine.", rich_help_panel=_AGENT)]
Slots = Annotated[
    int | None, typer.Option("--slots", min=1, help="Tasks at once per agent [default: 1].", rich_help_panel=_AGENT)
]
AgentId = Annotated[
    str | None, typer.Option("--agent-id", metavar="ID", help="Unique name of the agent.", rich_help_panel=_AGENT)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settle(
    file: Path | None = None,
    *,
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
    """The effective configuration with these flags, its plugins found, and logging set up accordingly.

    With ``quiet``, only warnings are logged unless another level was chosen.
    """
    from anywire import assembly
    from anywire.cli import logs
    from anywire.config import load, replaced

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
    config = load(file, flags={key: value for key, value in given.items() if value})
    if quiet and config.log_level == "info" and log_level is None:
        config = replaced(config, log_level="warning")
    logs.configure(config.log_level)
    if dds_domain is not None:
        if config.transport("dds") is None:
            used = ", ".join(each.name for each in config.transports)
            raise typer.BadParameter(f"the transport dds is not used (transports: {used})", param_hint="--dds-domain")
        chosen = {each.name: dict(each.options) for each in config.transports}
        chosen["dds"]["domain"] = dds_domain
        config = replaced(config, transports=chosen)
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


def base_url(url: str | None, file: Path | None, host: str | None, port: int | None) -> str:
    """The server a client command talks to, without a slash at its end."""
    if url is not None:
        if "://" not in url:
            url = f"http://{url}"
        return url.rstrip("/").removesuffix("/v1")
    from anywire.config import load

    given = {"server": _given(host=host, port=port)}
    server = load(file, flags=given if given["server"] else {}).server
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
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"begins like a YAML list or mapping but is none: {error}") from error
        found.extend(value if isinstance(value, list) else [value])
    return found


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
