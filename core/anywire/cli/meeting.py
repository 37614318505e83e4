"""How the processes of a fleet find each other: by what runs on this machine, by an invite code, or by its name.

Whoever runs an orchestrator calls `serving`, whoever looks for one `joining`. Options that the user has named stay as
they are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import typer

from anywire.cli.asked_server import UNIX, Server, known_by, seen_from_outside
from anywire.cli.fleet_records import FleetRecord, running_fleets
from anywire.cli.invite_codes import Invitation, decode, encode
from anywire.errors import ConfigError

if TYPE_CHECKING:
    from anywire.config import Config, PluginChoice
    from anywire.keys.key_text import KeyText
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
    told: Config
    """What files, environment and options say: ``config`` before it is opened, or kept from meeting others."""
    key: KeyText | None = None
    """The key of its invitations; None where everybody is let in, or nobody is invited."""

    def record(self, served: Served) -> FleetRecord:
        """What other commands of this user have to know of it."""
        named = {each.name: each.options for each in self.config.transports}
        here = {name: {**named[name], **met} for name, met in served.meeting_options(HERE).items()}
        invite = encode(self.invitation(served)) if self.host else ""
        by_socket = bool(served.own_address)
        shown = str(served.tls.certificate.absolute()) if served.tls is not None and not by_socket else ""
        keys, admitted = self.config.access.keys, self.config.identity.admitted
        return FleetRecord(
            self.fleet,
            served.own_address or served.address,
            here,
            invite,
            key=served.access.own_key,
            certificate=shown,
            keys=str(keys.absolute()) if keys is not None and self.key is not None else "",
            admitted=str(admitted.resolve()) if admitted is not None else "",
        )

    def invitation(self, served: Served) -> Invitation:
        """What other machines have to know of it."""
        from anywire.identities.identity_proof import Identity
        from anywire.transport_tools import is_loopback

        host = self.config.server.host
        url = "" if not host or is_loopback(host) else _url_from_outside(served.address, self.host)
        server = seen_from_outside(url, served.tls if url else None)
        own = served.orchestrator.end_check is not None and self.config.identity.key
        return Invitation(
            self.fleet,
            served.meeting_options(self.host),
            url,
            server.authorities,
            server.name,
            str(self.key) if self.key is not None else "",
            Identity.from_file(own).fingerprint if own and self.key is not None else "",
        )


def serving(config: Config, plugins: Plugins, meeting: Meeting, *, apart: bool = False) -> Serving:
    """The configuration of an orchestrator: with the name of the fleet, opened to the network if that is asked for,
    and with ``apart``, unless it is opened, with all that keeps it from meeting others. Raises `typer.BadParameter` and
    `ConfigError`."""
    from anywire.config import replaced, with_transport_options

    meeting.check()
    told = config
    if meeting.fleet is not None:
        config = with_transport_options(config, _with_name(config, plugins, meeting.fleet))
    host, key = "", None
    if meeting.lan:
        assert meeting.fleet is not None
        config, host, key = _opened(config, plugins, meeting.fleet)
        if "host" not in config.server.model_fields_set:
            config = replaced(config, server=config.server.model_dump(exclude_unset=True) | {"host": _listened(host)})
    elif apart:
        free = {each.name: _class(plugins, each).free_options(each.options) for each in config.transports}
        config = with_transport_options(config, free)
    return Serving(config, _fleet_of(config, meeting.fleet), host, told, key)


def joining(
    config: Config, plugins: Plugins, meeting: Meeting, named: bool, *, must: bool = True, agent: bool = True
) -> Config:
    """The configuration of one who looks for an orchestrator; ``named``: the user has said over which transports. For
    an ``agent`` with an identity where the orchestrator asks for one. Raises `typer.BadParameter` and `ConfigError`,
    also when it ``must`` have an address and there is none."""
    from anywire.cli.opened_fleet import as_invited, invitation_of, with_agent_key
    from anywire.config import with_transport_options
    from anywire.transport import Lan
    from anywire.transport_tools import WILDCARD

    meeting.check()
    if meeting.invite is not None:
        invitation = decode(meeting.invite)
        config = _met(config, plugins, invitation.transports, named, "this invite code")
        return as_invited(config, invitation) if agent else config
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
        config = with_transport_options(config, found)
        return with_agent_key(config, meeting.fleet) if agent else config
    if (record := fitting_record(config, meeting, named)) is not None:
        config = _met(config, plugins, record.transports, named, "what runs here")
        return as_invited(config, invitation_of(record)) if agent and record.invite else config
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


def fitting_record(config: Config, meeting: Meeting, named: bool) -> FleetRecord | None:
    """What this user's orchestrator on this machine has written down, where that one is meant: the newest of several.
    ``named`` as in `joining`."""
    if meeting.invite is not None or meeting.lan:
        return None
    return next((each for each in _records(meeting.fleet) if _fits(config, each, named)), None)


def known_key(config: Config, meeting: Meeting, named: bool) -> str | None:
    """The key that a client of what is meant shows over transports, where the user names none: that of the code, or of
    this user's own orchestrator; empty where that one needs none, None where nothing is known of it. ``named`` as in
    `joining`. Raises `ConfigError`."""
    if meeting.invite is not None:
        return decode(meeting.invite).key
    record = fitting_record(config, meeting, named)
    return record.key if record is not None else None


def key_of_server(url: str) -> str:
    """The key of the server at ``url`` if it is one of this user that runs here; empty otherwise."""
    return next((each.key for each in _running_at(url)), "")


def runs_here(url: str) -> bool:
    """Whether a server of this user runs at ``url``."""
    return bool(_running_at(url))


def running_server(meeting: Meeting) -> Server | None:
    """The gateway of the orchestrator that is meant: the one of the code, or the newest of this machine. None when
    there is none. Raises `typer.BadParameter` and `ConfigError`."""
    meeting.check()
    if meeting.invite is not None:
        met = decode(meeting.invite)
        return Server(met.url, met.authorities, met.name, key=met.key) if met.url else None
    records = _records(meeting.fleet)
    if meeting.fleet is not None and not records:
        raise ConfigError(
            f"no fleet {meeting.fleet} of yours runs on this machine: start it with "
            f"`anywire up --fleet {meeting.fleet}`, or leave --fleet out to ask the newest one"
        )
    found = next((each for each in records if each.url), None)
    return None if found is None else known_by(found.url, Path(found.certificate) if found.certificate else None)


def _lacks_address(one: type[Transport], choice: PluginChoice) -> bool:
    """Whether orchestrators are found by their addresses, and none is named."""
    directory = {"agent_addresses", "client_addresses"}
    return directory <= one.Config.model_fields.keys() and not directory & choice.options.keys()


def _called(fleet: str | None) -> str:
    return "" if fleet is None else f" that is called {fleet}"


def _running_at(url: str) -> list[FleetRecord]:
    asked = _origin(url)
    return [each for each in running_fleets() if each.url and _origin(each.url) == asked]


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


def _opened(config: Config, plugins: Plugins, fleet: str) -> tuple[Config, str, KeyText | None]:
    """The configuration opened to the network, the address of this machine there, and the key of invitations."""
    from anywire.cli.opened_fleet import kept_invite_key, with_identity, with_keys
    from anywire.config import with_transport_options
    from anywire.files.private_files import kept_secret
    from anywire.files.state_folders import state_folder
    from anywire.transport import Lan
    from anywire.transport_tools import WILDCARD, is_loopback, own_address

    named = config.server.host if "host" in config.server.model_fields_set else WILDCARD
    wide = named in (WILDCARD, "::") or is_loopback(named)
    host = own_address() if wide else named
    if not host:
        raise ConfigError("this machine is in no network: name its address there with --host")
    known = [_class(plugins, each).capabilities for each in config.transports]
    # Where one transport cannot tell its peers' keys, all have a key that they share, and nobody is asked who it is.
    made = not config.access.insecure and all(each.binds_identity or not each.inter_process for each in known)
    identified = made or config.identity.admitted is not None
    secret = "" if identified else kept_secret(state_folder(fleet) / "lan.key")
    lan = Lan(fleet, secret, WILDCARD if wide else host)
    found = {each.name: _class(plugins, each).lan_options(each.options, lan) for each in config.transports}
    config = with_transport_options(config, found)
    if config.access.insecure:
        return config, host, None
    config = with_keys(config, fleet)
    assert config.access.keys is not None
    key = kept_invite_key(fleet, config.access.keys)
    return with_identity(config, fleet) if made else config, host, key


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


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, the host of one that listens everywhere as a client on this machine names it; of a Unix
    socket its path in place of a host."""
    if url.startswith(UNIX):
        return UNIX, url.removeprefix(UNIX), None
    try:
        parts = urlsplit(url)
        host = str(parts.hostname)
        return parts.scheme, {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), parts.port
    except ValueError:
        return "", "", None


def _url_from_outside(url: str, host: str) -> str:
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
