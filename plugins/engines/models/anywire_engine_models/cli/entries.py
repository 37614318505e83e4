"""A registry's entry from what a command line says of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer


def entry_of(file: str | None, full_identifier: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """The members of an entry for the command ``models.add``, which completes and checks them. Raises
    `typer.BadParameter`."""
    entry: dict[str, Any] = {}
    if file is not None:
        entry["model_file_path"] = file
    if full_identifier is not None:
        entry |= _named(full_identifier)
    if settings:
        entry["settings"] = dict(map(_setting, settings))
    if file is None and "command" not in entry.get("settings", {}):
        raise typer.BadParameter("give a FILE, or --with 'command=[…]' for a server of another kind")
    if file is None and full_identifier is None:
        raise typer.BadParameter("without a FILE the model needs a name", param_hint="--id")
    return entry


def _named(full_identifier: str) -> dict[str, str]:
    provider, _, rest = full_identifier.partition(":")
    name, _, version = rest.rpartition(":")
    if not all((provider, name, version)):
        raise typer.BadParameter(
            f"expected PROVIDER:NAME:VERSION, such as local:smollm2:135m, found {full_identifier!r}", param_hint="--id"
        )
    return {"full_identifier": full_identifier, "provider": provider, "name": name, "version": version}


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise typer.BadParameter(f"expected KEY=VALUE, found {text!r}", param_hint="--with")
    try:
        return name.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"the value of {name.strip()!r} is no YAML", param_hint="--with") from error
