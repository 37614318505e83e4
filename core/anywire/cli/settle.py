"""From the options of a command to the configuration that they make, or to the server that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from anywire.cli.asked_server import UNIX, Server, known_by
from anywire.cli.meeting import Meeting, joining, key_of_server, known_key, running_server
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.config import Config, ServerConfig
    from anywire.core_settings import CoreSetting
    from anywire.plugins import Plugins


class OverTransports(NamedTuple):
    """An orchestrator that is asked over the client plane of transports."""

    config: Config
    plugins: Plugins
    key: str
    """The key to prove, empty for none."""
    admitted: Path | None = None
    """The file with the orchestrators that are asked; None: every one."""

    def __repr__(self) -> str:
        return f"OverTransports({self.config.transport_names})"


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
    launcher: str | None = None,
    ray_address: str | None = None,
    engine: str | None = None,
    model: str | None = None,
    slots: int | None = None,
    agent_id: str | None = None,
    plugin_files: list[str] | None = None,
    log_level: str | None = None,
    quiet: bool = False,
    keys: Path | None = None,
    gateways: int | None = None,
    environment: Mapping[str, str] | None = None,
    began: Mapping[str, Any] | None = None,
    again: Plugins | None = None,
) -> tuple[Config, Plugins]:
    """The effective configuration with these options, its plugins found, and logging set up accordingly.

    With ``quiet``, this process logs only warnings unless another level was chosen. ``environment`` is read in place of
    the process's own. ``began`` are keys with dots that the options are set over. ``again`` is for a process that
    runs, and has the plugins that it has loaded: its log stays as it is, and no file of these plugins is run again.
    """
    from anywire.config import replaced
    from anywire.config_layers import load
    from anywire.roles import assembly, logs

    given: dict[str, Any] = {
        "server": _given(host=host, port=port, gateway_processes=gateways),
        "scheduler": _given(name=scheduler),
        "selector": _given(name=selector),
        "launcher": _given(name="ray" if ray_address is not None and launcher is None else launcher),
        "engine": _given(name=engine),
        "agent": _given(id=agent_id),
        "access": _given(keys=keys),
        "standby": _given(enabled=standby or None, strength=strength),
        "transports": ",".join(transports or ()),
        "join": _joined(join or ()),
        "log_level": log_level,
    }
    single = {**(began or {}), **_settings(settings or ())}
    if dds_domain is not None:
        single["transports.dds.domain"] = dds_domain
    if ray_address is not None:
        if launcher not in (None, "ray"):
            raise typer.BadParameter(f"it is for --launcher ray, not {launcher}", param_hint="--ray-address")
        single["launcher.address"] = ray_address
    flags = {key: value for key, value in given.items() if value}
    config = load(file, flags=flags, environment=environment, settings=single)
    hushed = quiet and config.log_level == "info" and log_level is None
    if again is None:
        logs.configure("warning" if hushed else config.log_level, config.log_format)
    for key in single:
        _check_used(config, key, "--dds-domain" if dds_domain is not None and key.endswith("dds.domain") else "--set")
    if strength is not None and not config.standby.enabled:
        raise typer.BadParameter("it is for orchestrators that stand by: add --standby", param_hint="--strength")
    if plugin_files:
        config = replaced(config, plugins=[*config.plugins, *plugin_files])
    known = again is not None and again.sources == config.plugins
    plugins = again if again is not None and known else assembly.load_plugins(config)
    if model is not None:
        config = assembly.with_model(config, plugins, model)
    ours: dict[CoreSetting, Any] = {"agent.slots": slots, "server.host": host, "server.port": port}
    for key, value in ours.items():
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

    from anywire.config_layers import problem_in
    from anywire.secrecy import is_plain

    found: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            found_text = f", found {text!r}" if is_plain(text) else ""
            raise typer.BadParameter(f"expected KEY=VALUE{found_text}", param_hint="--set")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise typer.BadParameter(
                f"the value of {key} is no YAML: {problem_in(error)}", param_hint="--set"
            ) from None
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
    key: str | None,
    transports: list[str] | None = None,
    dds_domain: int | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    **settled: Any,
) -> Server | OverTransports:
    """Where a client's command asks. ``key`` is the one that the user has named; without, it is that of this user's
    own orchestrator where that is the one that is asked. ``ca`` is the file with the authority of a server's
    certificate, ``cert`` that with the client's own one and its key; ``settled`` are the further options of `settle`.
    Raises `ConfigError` and `typer.BadParameter`."""
    from anywire.cli.invite_codes import decode
    from anywire.cli.opened_fleet import orchestrators_of
    from anywire.roles import assembly

    over_transport = bool(transports) or dds_domain is not None or (meeting.lan and url is None)
    if not over_transport:
        if found := _server(meeting, url, host, port, settled.get("file"), settled.get("settings")):
            found = found._replace(key=(found.key or key_of_server(found.url)) if key is None else key)
            return knowing(found, ca, cert)
    elif url is not None or host is not None or port is not None:
        raise typer.BadParameter("--transport asks without HTTP: leave --url, --host and --port out")
    given = {"transports": transports, "dds_domain": dds_domain, **settled}
    config, plugins = settle(**given, quiet=True)
    named = transports_named(**given)
    known = known_key(config, meeting, named)
    if key is None or known == "":
        # Who shows a key where none is needed is not linked over every transport.
        key = known or ""
    config = joining(config, plugins, meeting, named, agent=False)
    if assembly.in_one_process(config, plugins):
        raise ConfigError("a transport that stays inside of one process reaches no server: name another one")
    admitted = orchestrators_of(decode(meeting.invite)) if meeting.invite is not None else None
    return OverTransports(config, plugins, key, admitted)


def _server(
    meeting: Meeting,
    url: str | None,
    host: str | None,
    port: int | None,
    file: Path | None,
    settings: list[str] | None,
) -> Server | None:
    """The server that is meant; None when it is to be asked over a transport."""
    if url is not None:
        if "://" not in url and not url.startswith(UNIX):
            url = f"http://{url}"
        return Server(url.rstrip("/").removesuffix("/v1"))
    from anywire.config_layers import load

    given = {"server": _given(host=host, port=port)}
    server = load(file, flags=given if given["server"] else {}, settings=_settings(settings or ())).server
    named = server.port is not None or "host" in server.model_fields_set
    if not named and (found := running_server(meeting)):
        return found
    if meeting.invite is not None or (meeting.fleet is not None and not named):
        return None
    return configured(server)


def configured(server: ServerConfig) -> Server:
    """The server that listens where this configuration says. Raises `ConfigError` when its certificate does not
    serve."""
    from anywire.config import DEFAULT_PORT

    if not server.host and server.unix is not None:
        return Server(f"{UNIX}{server.unix}")
    address = f"{reachable(server.host)}:{server.port or DEFAULT_PORT}"
    if server.tls is None:
        return Server(f"http://{address}")
    return known_by(f"https://{address}", server.tls.certificate)


def knowing(server: Server, ca: Path | None, cert: Path | None) -> Server:
    """``server``, known by the authority in the file ``ca`` instead, and shown the certificate in ``cert``."""
    if ca is not None:
        from anywire.listening.certificates import as_pem, read_certificates

        server = server._replace(authorities=as_pem(read_certificates(ca)), name="")
    return server._replace(own_certificate=cert)


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
