"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli.meeting import Meeting, Serving, joining, known_key, serving
from anywire.cli.settle import OverTransports, knowing, settle, target, transports_named
from anywire.cli.shell import names_of

if TYPE_CHECKING:
    from anywire.cli.asked_server import Server
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
        autocompletion=names_of("transports"),
        help="Transports to open, the preferred first: repeatable, or a,b. Default: dds.",
    ),
]
Over = Annotated[
    list[str] | None,
    typer.Option("--transport", "-t", metavar="NAME", help="Ask over this transport in place of HTTP."),
]
DdsDomain = Annotated[
    int | None,
    typer.Option("--dds-domain", metavar="N", min=0, max=230, help="Short for --set transports.dds.domain=N."),
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
        help="Address that gateways listen on, and at which clients ask. Default: 127.0.0.1.",
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
        help="Port that gateways listen on, and at which clients ask. A server that finds the usual one taken uses a "
        "free one. Default: 8080.",
        rich_help_panel=_WHERE,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Server to ask: https://HOST:PORT, or unix:PATH for a Unix socket. Default: the newest of yours that runs "
        "here, else http://HOST:PORT.",
        rich_help_panel=_WHERE,
    ),
]
CA = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar="ANYWIRE_CA",
        metavar="FILE",
        help="Certificate of the authority that the server's comes from. Default: those known to all.",
        rich_help_panel=_WHERE,
    ),
]
Cert = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        envvar="ANYWIRE_CERT",
        metavar="FILE",
        help="Certificate of this client and its key, for a server that asks for one.",
        rich_help_panel=_WHERE,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        autocompletion=names_of("schedulers"),
        help="Scheduler that orders the waiting tasks. Default: fifo.",
        rich_help_panel=_PIPELINE,
    ),
]
Selector = Annotated[
    str | None,
    typer.Option(
        "--selector",
        metavar="NAME",
        autocompletion=names_of("selectors"),
        help="Selector that chooses the agent for each task. Default: least_loaded.",
        rich_help_panel=_PIPELINE,
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        metavar="NAME",
        autocompletion=names_of("launchers"),
        help="Launcher that starts the agents: local, or an installed one such as ray. Default: local.",
        rich_help_panel=_AGENT,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster that the agents run in, or auto: short for --launcher ray --set launcher.address=HOST:PORT.",
        rich_help_panel=_AGENT,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        "-e",
        metavar="NAME",
        autocompletion=names_of("engines"),
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
Fleet = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        metavar="NAME",
        help="Name of the fleet. Orchestrators, agents and clients meet within one fleet alone. Default: `up` makes a "
        "new fleet, `serve` and `agent` use that of your user, other commands the newest that runs here.",
        rich_help_panel=_WHERE,
    ),
]
LAN = Annotated[
    bool,
    typer.Option(
        "--lan",
        help="Be open to the network, on all interfaces. Needs --fleet. Default: be open to this machine alone.",
        rich_help_panel=_WHERE,
    ),
]
Invite = Annotated[
    str | None,
    typer.Option(
        "--invite",
        envvar="ANYWIRE_INVITE",
        metavar="CODE",
        help="Join the fleet that printed this code: `anywire invite`. The code is a secret.",
        rich_help_panel=_WHERE,
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FILE",
        help="File with the keys of clients: `anywire keys create` makes it. Default: nobody needs a key.",
        rich_help_panel=_WHERE,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="ANYWIRE_API_KEY",
        metavar="KEY",
        help="Key to come in with. Prefer the environment: shells remember arguments. Default: the key of your own "
        "server that runs here.",
        rich_help_panel=_WHERE,
    ),
]
Gateways = Annotated[
    int | None,
    typer.Option(
        "--gateways",
        metavar="N",
        min=0,
        max=64,
        help="Processes that share the port and take the clients, for machines with more cores (Linux). Default: 0, "
        "the orchestrator takes them itself.",
        rich_help_panel=_WHERE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_SHARED: Mapping[str, Any] = {
    "url": Url,
    "ca": CA,
    "cert": Cert,
    "over": Over,
    "host": Host,
    "port": Port,
    "transports": Transports,
    "dds_domain": DdsDomain,
    "join": Join,
    "standby": Standby,
    "strength": Strength,
    "scheduler": Scheduler,
    "selector": Selector,
    "launcher": Launcher,
    "ray_address": RayAddress,
    "engine": Engine,
    "model": EngineModel,
    "slots": Slots,
    "agent_id": AgentId,
    "fleet": Fleet,
    "lan": LAN,
    "invite": Invite,
    "keys": Keys,
    "gateways": Gateways,
    "key": Key,
    "file": File,
    "settings": Set,
    "plugin_files": PluginFiles,
    "log_level": LogLevel,
}
_ALWAYS = ("file", "settings", "plugin_files", "log_level")
_OF_SERVER = ("url", "ca", "cert", "host", "port", "fleet", "lan", "invite", "key", "over", "dds_domain")
_OVER_TRANSPORT = ("lan", "over", "dds_domain")
"""Of these, those that ask without HTTP."""
_OF_CLIENT = ("url", "ca", "cert", "key")
"""Options that say nothing of a configuration."""
_NAMING = ("url", "host", "port", "transports", "dds_domain")
"""Options that say which server is meant, beside those of `Meeting`."""
_PARAMETER = {"over": "transports"}
"""Where an option's parameter has another name than `_SHARED` has for it."""


class Given:
    """What the command line gave for the shared options of a command."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._meeting = Meeting(**{name: self._values.pop(name) for name in Meeting._fields if name in values})
        self._serves_with: Plugins | None = None

    @property
    def names_fleet(self) -> bool:
        """Whether the user has said which orchestrator is meant, or how it is reached."""
        return self._meeting != Meeting() or any(self._values.get(name) is not None for name in _NAMING)

    def settle(self, *, quiet: bool = False, **fixed: Any) -> tuple[Config, Plugins]:
        """See `settle`; ``fixed`` are options that the command sets itself."""
        values = {name: value for name, value in self._values.items() if name not in _OF_CLIENT}
        return settle(**values, **fixed, quiet=quiet)

    def known(self, server: Server) -> Server:
        """``server`` as the options say that it is known: see `knowing`."""
        return knowing(server, self._values["ca"], self._values["cert"])

    def known_key(self, config: Config) -> str | None:
        """The key of a client here of what is meant: see `anywire.cli.meeting.known_key`."""
        return known_key(config, self._meeting, named=True)

    def target(self) -> Server | OverTransports:
        """Where a command that `asks` does so: see `target`."""
        return target(self._meeting, **self._values)

    def serving(self, *, apart: bool = False, quiet: bool = False, **fixed: Any) -> tuple[Serving, Plugins]:
        """The configuration of an orchestrator: see `anywire.cli.meeting.serving`."""
        config, plugins = self.settle(quiet=quiet, **fixed)
        self._serves_with = plugins
        return serving(config, plugins, self._meeting, apart=apart), plugins

    def told(self) -> Config:
        """What files, environment and options say now, for a process that runs what `serving` told: nothing of it is
        changed. Raises `AnywireError` for what no orchestrator would start with."""
        from anywire.errors import ConfigError
        from anywire.roles.assembly import check_options

        file: Path | None = self._values["file"]
        if file is not None and file.exists() and not file.is_file():
            raise ConfigError(f"{file} is no file, so it cannot be read again")  # a pipe may never end
        try:
            config, plugins = self.settle(again=self._serves_with)
        except typer.BadParameter as error:
            raise ConfigError(error.message) from error
        check_options(config, plugins)
        return config

    def joining(self, *, must: bool = True, quiet: bool = False) -> tuple[Config, Plugins]:
        """The configuration of one who looks for an orchestrator: see `anywire.cli.meeting.joining`."""
        config, plugins = self.settle(quiet=quiet)
        return joining(config, plugins, self._meeting, transports_named(**self._values), must=must), plugins


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these shared options, and those that every command with a configuration has. What was given for
    them is its argument ``given``, a `Given`; its other arguments are options of its own."""
    shared = {_PARAMETER.get(name, name): _SHARED[name] for name in (*names, *_ALWAYS)}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**values: Any) -> None:
            function(given=Given({name: values.pop(name) for name in shared}), **values)

        own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.name != "given"]
        for name, annotation in shared.items():
            default = False if name in ("standby", "lan") else None
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )
        # Typer reads these two; through __wrapped__ it would see the function within.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        del command.__wrapped__
        return command

    return decorate


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """`takes` with the options by which a command finds a running server."""
    return takes(*_OF_SERVER)(function)


def asks_server(function: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that asks over HTTP alone."""
    return takes(*(name for name in _OF_SERVER if name not in _OVER_TRANSPORT))(function)
