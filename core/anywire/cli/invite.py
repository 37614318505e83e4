"""``anywire invite``: the code by which other machines join a fleet."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from anywire.caller import ROLES
from anywire.cli import options
from anywire.errors import ConfigError


def invite(
    fleet: options.Fleet = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="Make an invitation of its own, whose clients may: use (ask), observe (see all), or operate. "
            "Default: print that of the fleet, for use.",
        ),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            "--expires",
            metavar="TIME",
            help="Make an invitation of its own, which lets nobody in after that time: 30m, 12h, 7d. What has joined "
            "by then stays.",
        ),
    ] = "",
) -> None:
    """Print the code by which other machines join. It is of a fleet that runs here with --lan, and a secret."""
    import msgspec

    from anywire.cli.fleet_records import running_fleets
    from anywire.cli.invite_codes import decode, encode
    from anywire.cli.keys import expiry
    from anywire.cli.opened_fleet import invitation_of, new_invite_key
    from anywire.keys.key_text import read_key

    if role is not None and role not in ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(ROLES)}, found {role!r}", param_hint="--role")
    ends = expiry(expires)
    found = [each for each in running_fleets() if fleet in (None, each.fleet)]
    open_ones = [each for each in found if each.invite]
    if not open_ones:
        which = f"the fleet {found[0].fleet}" if found else f"no fleet {fleet or ''}".rstrip()
        state = "is open to this machine alone" if found else "of yours runs on this machine"
        raise ConfigError(f"{which} {state}: start it with `anywire serve --lan --fleet NAME`, or `anywire up`")
    record = open_ones[0]
    own = role is not None or bool(expires)
    if own and not record.keys:
        raise ConfigError(
            f"the fleet {record.fleet} lets everybody in (access.insecure): its code has no role and no end"
        )
    if own:
        key = new_invite_key(Path(record.keys), role or "use", ends)
        invitation = msgspec.structs.replace(decode(record.invite), key=str(key))
    else:
        invitation = invitation_of(record)
    if known := read_key(invitation.key):
        typer.echo(f"it ends with `anywire keys revoke {known.id} --file {shlex.quote(record.keys)}`", err=True)
    typer.echo(encode(invitation))
