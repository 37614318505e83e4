"""From the options of a command to the configuration that they make, or to the server that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from anywire.cli.meeting import Meeting, joining, running_url
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.config import Config
    from anywire.core_settings import CoreSetting
    from anywire.plugins import Plugins


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

    With ``quiet``, this process logs only warnings unless another level was chosen.
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
    hushed = quiet and config.log_level == "info" and log_level is None
    logs.configure("warning" if hushed else config.log_level, config.log_format)
    for key in keys:
        _check_used(config, key, "--dds-domain" if dds_domain is not None and key.endswith("dds.domain") else "--set")
    if strength is not None and not config.standby.enabled:
        raise typer.BadParameter("it is for orchestrators that stand by: add --standby", param_hint="--strength")
    if plugin_files:
        config = replaced(config, plugins=[*config.plugins, *plugin_files])
    plugins = assembly.load_plugins(config)
    if model is not None:
        config = assembly.with_model(config, plugins, model)
    flags: dict[CoreSetting, Any] = {"agent.slots": slots, "server.host": host, "server.port": port}
    for key, value in flags.items():
        if value is not None:
            config = assembly.with_core_setting(config, plugins, key, value)
    return config, plugins


def transports_named(
    file: Path | None = None,
    settings: list[str] | None = None,
    transports: list[str] | None = None,
    dds_domain: int | None = None,
    **_: Any,
) -> bool:
    """Whether the user has said which transports to use, by an option or in another place."""
    from anywire.config_layers import is_named

    return (
        bool(transports) or dds_domain is not None or is_named("transports", file, settings=_settings(settings or ()))
    )


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


def target(
    meeting: Meeting,
    url: str | None,
    host: str | None,
    port: int | None,
    transports: list[str] | None,
    dds_domain: int | None,
    **settled: Any,
) -> str | tuple[Config, Plugins]:
    """Where a client's command asks: the URL of a server, without a slash at its end, or the configuration of the
    transports whose client plane it uses. ``settled`` are the further options of `settle`. Raises `ConfigError` and
    `typer.BadParameter`."""
    from anywire.roles import assembly

    over_transport = bool(transports) or dds_domain is not None or (meeting.lan and url is None)
    if not over_transport:
        if found := _server(meeting, url, host, port, settled.get("file"), settled.get("settings")):
            return found
    elif url is not None or host is not None or port is not None:
        raise typer.BadParameter("--transport asks without HTTP: leave --url, --host and --port out")
    given = {"transports": transports, "dds_domain": dds_domain, **settled}
    config, plugins = settle(**given, quiet=True)
    config = joining(config, plugins, meeting, transports_named(**given))
    if assembly.in_one_process(config, plugins):
        raise ConfigError("a transport that stays inside of one process reaches no server: name another one")
    return config, plugins


def _server(
    meeting: Meeting,
    url: str | None,
    host: str | None,
    port: int | None,
    file: Path | None,
    settings: list[str] | None,
) -> str:
    """The server that is meant; empty when it is to be asked over a transport."""
    if url is not None:
        if "://" not in url:
            url = f"http://{url}"
        return url.rstrip("/").removesuffix("/v1")
    from anywire.config import DEFAULT_PORT
    from anywire.config_layers import load

    given = {"server": _given(host=host, port=port)}
    server = load(file, flags=given if given["server"] else {}, settings=_settings(settings or ())).server
    named = server.port is not None or "host" in server.model_fields_set
    if not named and (found := running_url(meeting)):
        return found
    if meeting.invite is not None or (meeting.fleet is not None and not named):
        return ""
    return f"http://{reachable(server.host)}:{server.port or DEFAULT_PORT}"


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
