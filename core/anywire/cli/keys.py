"""``anywire keys``: the keys of clients, and new keys for a transport whose ends know each other by keys."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.caller import ROLES, Limits
from anywire.cli import options
from anywire.cli.tables import print_json, print_table
from anywire.errors import ConfigError
from anywire.files.private_files import config_folder
from anywire.submission import MAX_NAME_CHARS

if TYPE_CHECKING:
    from anywire.config import Config
    from anywire.keys.key_records import KeyRecord

_LIMITS = "Limits"
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MOST_SECONDS = 100 * 365 * 86_400

app = typer.Typer(
    name="keys",
    help="Make, list and revoke the keys by which clients come in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="File with the keys of clients. Default: `access.keys` of the configuration, else anywire/keys.json in "
        "your configuration folder.",
        show_default=False,
    ),
]


def _limit(option: str, text: str) -> Any:
    return typer.Option(option, min=1, help=text, rich_help_panel=_LIMITS)


@app.command()
@options.takes()
def create(
    given: options.Given,
    key_file: KeyFile = None,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What the key is for.")] = "",
    tenant: Annotated[
        str,
        typer.Option(
            "--tenant",
            metavar="NAME",
            help="Who pays. Keys of one tenant see each other's tasks. Default: the id of the key, so it is alone.",
        ),
    ] = "",
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="use: ask, see and cancel tasks of the tenant; observe: see all besides; operate: cancel all and send "
            "commands besides.",
        ),
    ] = "use",
    expires: Annotated[
        str,
        typer.Option(
            "--expires",
            metavar="TIME",
            help="Time after which the key counts no more: 30d, 12h, 90m, 2w. Default: never.",
        ),
    ] = "",
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Let the holder of this client certificate (PEM) in, in place of a key. Needs `server.tls.client_ca`.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model that may be asked; * stands for any characters. Repeatable. Default: all.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_priority: Annotated[
        int | None,
        typer.Option(
            "--max-priority", min=-1000, max=1000, help="Highest priority of a task.", rich_help_panel=_LIMITS
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None, _limit("--requests-per-minute", "Tasks that are taken in per minute.")
    ] = None,
    concurrency: Annotated[int | None, _limit("--concurrency", "Tasks that run or wait at a time.")] = None,
    tokens_per_day: Annotated[
        int | None, _limit("--tokens-per-day", "Tokens of prompts and answers per day, from midnight UTC.")
    ] = None,
) -> None:
    """Make a key and print it. It is shown this once; the file has only its hash."""
    from anywire.keys.key_records import add_key, record_of
    from anywire.keys.key_text import new_key

    for option, text in (("--label", label), ("--tenant", tenant), *(("--model", each) for each in model or ())):
        _check_name(option, text)
    if role not in ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(ROLES)}, found {role!r}", param_hint="--role")
    ends = expiry(expires)
    fingerprint = _fingerprint(certificate) if certificate is not None else ""
    config, _ = given.settle(quiet=True)
    path = _path(key_file, config)
    key = new_key()
    record = record_of(
        None if fingerprint else key,
        key.id,
        label=label,
        tenant=tenant,
        role=role,
        limits=Limits(
            tuple(model or ()), max_priority, requests_per_minute or 0, concurrency or 0, tokens_per_day or 0
        ),
        expires=ends,
        certificate=fingerprint,
    )
    add_key(path, record)
    counts = (
        ""
        if config.access.keys is not None and config.access.keys.resolve() == path.resolve()
        else (f"; it counts with `anywire serve --keys {path}`")
    )
    typer.echo(f"made the key {record.id} in {path}{counts}", err=True)
    if not fingerprint:
        typer.echo("keep it: it is shown this once", err=True)
        typer.echo(str(key))


@app.command(name="list")
@options.takes()
def list_keys(given: options.Given, key_file: KeyFile = None, as_json: options.Json = False) -> None:
    """List the keys of clients, without what is secret of them."""
    from anywire.keys.key_records import read_keys

    config, _ = given.settle(quiet=True)
    found = read_keys(_path(key_file, config)).values()
    now = time.time()
    if as_json:
        print_json([_shown(each, now) for each in found])
        return
    columns = ("id", "label", "tenant", "role", "state", "expires", "limits")
    print_table(columns, [_row(each, now) for each in found])


@app.command()
@options.takes()
def revoke(
    given: options.Given,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Keys to revoke.", show_default=False)],
    key_file: KeyFile = None,
) -> None:
    """Revoke keys. What runs with them ends within a second; a revoked key stays in the list."""
    from anywire.keys.key_records import revoke_keys
    from anywire.keys.key_text import read_key

    config, _ = given.settle(quiet=True)
    # A whole key is taken too, and not repeated.
    wanted = [key.id if (key := read_key(each)) is not None else each for each in ids]
    for each in revoke_keys(_path(key_file, config), wanted):
        typer.echo(f"revoked {each.id}", err=True)


@app.command()
@options.takes()
def transport(
    given: options.Given,
    name: Annotated[str, typer.Argument(help="Transport to make keys for, such as zeromq.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the files.")] = Path("keys"),
) -> None:
    """Make keys for a transport and print where they go."""
    from anywire.transport import MakesKeys

    _, known = given.settle(quiet=True)
    found = known.load("transports", name)
    if not isinstance(found, MakesKeys):
        raise ConfigError(f"the transport {name} has no keys of its own to make; see its settings for what it has")
    typer.echo(found.make_keys(out), nl=False)


def _path(named: Path | None, config: Config) -> Path:
    if named is not None:
        return named
    if config.access.keys is not None:
        return config.access.keys
    return config_folder() / "keys.json"


def _check_name(option: str, text: str) -> None:
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise typer.BadParameter(f"expected up to {MAX_NAME_CHARS} printable characters", param_hint=option)


def expiry(text: str) -> float:
    """The Unix time of the end that ``--expires`` names, 0 for never."""
    if not text:
        return 0.0
    found = re.fullmatch(r"([1-9]\d{0,8})([mhdw])", text, re.ASCII)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _MOST_SECONDS:
        raise typer.BadParameter(
            f"expected a number of minutes, hours, days or weeks such as 30d, found {text!r}", param_hint="--expires"
        )
    return float(int(time.time()) + seconds)


def _fingerprint(path: Path) -> str:
    """SHA-256 of the first certificate in the file, hexadecimal."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(path.read_bytes()).fingerprint(SHA256()).hex()
    except OSError as error:
        raise ConfigError(f"the certificate {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in the form PEM") from error


def _shown(record: KeyRecord, now: float) -> dict[str, Any]:
    import msgspec

    return {
        "id": record.id,
        "label": record.label,
        "tenant": record.caller.tenant,
        "role": record.role,
        "state": record.state(now),
        "created": _time(record.created),
        "expires": _time(record.expires),
        "revoked": _time(record.revoked),
        "certificate": record.certificate,
        "invites": record.invites,
        "limits": msgspec.to_builtins(record.limits),
    }


def _row(record: KeyRecord, now: float) -> tuple[str, ...]:
    limits = record.limits
    told = [
        *((f"models {' '.join(limits.models)}",) if limits.models else ()),
        *((f"priority up to {limits.max_priority}",) if limits.max_priority is not None else ()),
        *((f"{limits.requests_per_minute} requests/min",) if limits.requests_per_minute else ()),
        *((f"{limits.concurrency} at a time",) if limits.concurrency else ()),
        *((f"{limits.tokens_per_day} tokens/day",) if limits.tokens_per_day else ()),
    ]
    return (
        record.id,
        record.label,
        record.caller.tenant,
        f"{record.role}, invites agents" if record.invites else record.role,
        record.state(now),
        _time(record.expires) or "never",
        ", ".join(told) or "none",
    )


def _time(seconds: float) -> str:
    """A Unix time as text, empty for none."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
    except (ValueError, OverflowError, OSError):
        return "after all times"
