"""How the processes of a fleet find each other: by what runs on this machine, by an invite code, or by its name.

Whoever runs an orchestrator calls `serving`, whoever looks for one `joining`. Options that the user has named stay as
they are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import typer

from anywire.cli.fleet_records import FleetRecord, running_fleets
from anywire.cli.invite_codes import Invitation, decode, encode
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.config import Config, PluginChoice
    from anywire.plugins import Plugins
    from anywire.roles.orchestrator_role import Served
    from anywire.transport import Transport

HERE = "127.0.0.1"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Options = Mapping[str, Mapping[str, Any]]
"""Options of transports, by their names."""


class Meeting(NamedTuple):
    """What the command line says of where a fleet is."""

    fleet: str | None = None
    lan: bool = False
    invite: str | None = None

    def check(self) -> None:
        """Raises `typer.BadParameter` for options that do not go together."""
        if self.fleet is not None and not _NAME.fullmatch(self.fleet):
            raise typer.BadParameter(
                "a name has up to 64 letters, digits, dots, dashes and underscores", param_hint="--fleet"
            )
        if self.lan and self.fleet is None and self.invite is None:
            raise typer.BadParameter(
                "it needs --fleet NAME, the name by which the machines of a network know the fleet", param_hint="--lan"
            )
        if self.invite is not None and self.fleet is not None:
            raise typer.BadParameter("the code names the fleet: leave --fleet out", param_hint="--invite")


class Serving(NamedTuple):
    """An orchestrator's configuration, and how others find it."""

    config: Config
    fleet: str
    host: str
    """The address by which other machines reach it; empty when it listens on this one alone."""

    def record(self, served: Served) -> FleetRecord:
        """What other commands of this user have to know of it."""
        named = {each.name: each.options for each in self.config.transports}
        here = {name: {**named[name], **met} for name, met in served.meeting_options(HERE).items()}
        invite = encode(self.invitation(served)) if self.host else ""
        return FleetRecord(self.fleet, served.address, here, invite)

    def invitation(self, served: Served) -> Invitation:
        """What other machines have to know of it."""
        from anywire.transport_tools import is_loopback

        closed = is_loopback(self.config.server.host)
        url = "" if closed else _seen_from_outside(served.address, self.host)
        return Invitation(self.fleet, served.meeting_options(self.host), url)


def serving(config: Config, plugins: Plugins, meeting: Meeting, *, apart: bool = False) -> Serving:
    """The configuration of an orchestrator: with the name of the fleet, opened to the network if that is asked for,
    and with ``apart``, unless it is opened, with all that keeps it from meeting others. Raises `typer.BadParameter` and
    `ConfigError`."""
    from anywire.config import replaced, with_transport_options

    meeting.check()
    if meeting.fleet is not None:
        config = with_transport_options(config, _with_name(config, plugins, meeting.fleet))
    host = ""
    if meeting.lan:
        assert meeting.fleet is not None
        config, host = _opened(config, plugins, meeting.fleet)
        if "host" not in config.server.model_fields_set:
            config = replaced(config, server=config.server.model_dump(exclude_unset=True) | {"host": _listened(host)})
    elif apart:
        free = {each.name: _class(plugins, each).free_options(each.options) for each in config.transports}
        config = with_transport_options(config, free)
    return Serving(config, _fleet_of(config, meeting.fleet), host)


def joining(config: Config, plugins: Plugins, meeting: Meeting, named: bool, *, must: bool = True) -> Config:
    """The configuration of one who looks for an orchestrator; ``named``: the user has said over which transports.
    Raises `typer.BadParameter` and `ConfigError`, also when it ``must`` have an address and there is none."""
    from anywire.config import with_transport_options
    from anywire.transport import Lan
    from anywire.transport_tools import WILDCARD

    meeting.check()
    if meeting.invite is not None:
        return _met(config, plugins, decode(meeting.invite).transports, named, "this invite code")
    if meeting.lan:
        assert meeting.fleet is not None
        lan = Lan(meeting.fleet, "", WILDCARD)
        found = dict(_with_name(config, plugins, meeting.fleet))
        for each in config.transports:
            one = _class(plugins, each)
            if one.capabilities.discovery == "native":
                found[each.name] = {**one.lan_options(each.options, lan), **found.get(each.name, {})}
            elif _lacks_address(one, each):
                raise ConfigError(
                    f"over {each.name} the orchestrator is found by its address: use the code that `anywire invite` "
                    "prints beside it (--invite CODE)"
                )
        return with_transport_options(config, found)
    for record in _records(meeting.fleet):
        if _fits(config, record, named):
            return _met(config, plugins, record.transports, named, "what runs here")
    for each in config.transports if must else ():
        if _lacks_address(_class(plugins, each), each):
            # Whoever listens at the default address may be another user.
            raise ConfigError(
                f"no orchestrator of yours{_called(meeting.fleet)} runs on this machine over {each.name}: start it "
                "first, or give this command the code that `anywire invite` prints beside it, or "
                f"transports.{each.name}.agent_addresses and client_addresses"
            )
    return (
        config if meeting.fleet is None else with_transport_options(config, _with_name(config, plugins, meeting.fleet))
    )


def running_url(meeting: Meeting) -> str:
    """The gateway of the orchestrator that is meant: the one of the code, or the newest of this machine. Empty when
    there is none. Raises `typer.BadParameter` and `ConfigError`."""
    meeting.check()
    if meeting.invite is not None:
        return decode(meeting.invite).url
    records = _records(meeting.fleet)
    if meeting.fleet is not None and not records:
        raise ConfigError(
            f"no fleet {meeting.fleet} of yours runs on this machine: start it with "
            f"`anywire up --fleet {meeting.fleet}`, or leave --fleet out to ask the newest one"
        )
    return next((each.url for each in records if each.url), "")


def _lacks_address(one: type[Transport], choice: PluginChoice) -> bool:
    """Whether orchestrators are found by their addresses, and none is named."""
    directory = {"agent_addresses", "client_addresses"}
    return directory <= one.Config.model_fields.keys() and not directory & choice.options.keys()


def _called(fleet: str | None) -> str:
    return "" if fleet is None else f" that is called {fleet}"


def _records(fleet: str | None) -> list[FleetRecord]:
    return [each for each in running_fleets() if fleet in (None, each.fleet)]


def _fits(config: Config, record: FleetRecord, named: bool) -> bool:
    """Whether an orchestrator can be meant: it has one of the transports, with the options that the user has named."""
    if not named:
        return bool(record.transports)
    shared = [each for each in config.transports if each.name in record.transports]
    return bool(shared) and all(
        record.transports[each.name].get(name, value) == value
        for each in shared
        for name, value in each.options.items()
    )


def _met(config: Config, plugins: Plugins, found: Options, named: bool, source: str) -> Config:
    from anywire.config import replaced

    if named:
        if not any(each.name in found for each in config.transports):
            raise ConfigError(
                f"{source} has no {config.transport_names}: name one of {', '.join(found) or 'none'} with --transport"
            )
        chosen = {each.name: {**found.get(each.name, {}), **each.options} for each in config.transports}
        return replaced(config, transports=chosen)
    known = plugins.names("transports")
    usable = {name: dict(options) for name, options in found.items() if name in known}
    if not usable:
        raise ConfigError(f"{source} needs a transport that is not installed here: {', '.join(found) or 'none'}")
    return replaced(config, transports=usable)


def _opened(config: Config, plugins: Plugins, fleet: str) -> tuple[Config, str]:
    """The configuration opened to the network, and the address of this machine there."""
    from anywire.cli.private_files import kept_secret
    from anywire.config import with_transport_options
    from anywire.roles.context import state_folder
    from anywire.transport import Lan
    from anywire.transport_tools import WILDCARD, is_loopback, own_address

    named = config.server.host if "host" in config.server.model_fields_set else WILDCARD
    wide = named in (WILDCARD, "::") or is_loopback(named)
    host = own_address() if wide else named
    if not host:
        raise ConfigError("this machine is in no network: name its address there with --host")
    lan = Lan(fleet, kept_secret(state_folder(fleet) / "lan.key"), WILDCARD if wide else host)
    found = {each.name: _class(plugins, each).lan_options(each.options, lan) for each in config.transports}
    return with_transport_options(config, found), host


def _with_name(config: Config, plugins: Plugins, fleet: str) -> Options:
    return {each.name: {"fleet": fleet} for each in config.transports if _has_fleet(plugins, each)}


def _has_fleet(plugins: Plugins, choice: PluginChoice) -> bool:
    return "fleet" in _class(plugins, choice).Config.model_fields


def _class(plugins: Plugins, choice: PluginChoice) -> type[Transport]:
    one: type[Transport] = plugins.load("transports", choice.name)
    return one


def _fleet_of(config: Config, named: str | None) -> str:
    from anywire.fleet_names import private_fleet

    found = [named, *(each.options.get("fleet") for each in config.transports)]
    return next((each for each in found if isinstance(each, str) and each), private_fleet())


def _listened(host: str) -> str:
    from anywire.transport_tools import WILDCARD

    return "::" if ":" in host else WILDCARD


def _seen_from_outside(url: str, host: str) -> str:
    """The gateway's address for another machine."""
    if not url:
        return ""
    parts = urlsplit(url)
    there = str(parts.hostname)
    try:
        local = ipaddress.ip_address(there).is_loopback
    except ValueError:
        local = False
    shown = (f"[{host}]" if ":" in host else host) if local else parts.netloc.rpartition(":")[0]
    return parts._replace(netloc=f"{shown}:{parts.port}" if parts.port else shown).geturl()
