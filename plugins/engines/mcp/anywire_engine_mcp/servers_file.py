"""Servers as other programs write them: the JSON object ``mcpServers``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pydantic

from anywire.errors import ConfigError
from anywire_engine_mcp.server_config import LABEL, MAX_SERVERS, ServerConfig

MAX_FILE_BYTES = 1024 * 1024
_SECTIONS = ("mcpServers", "servers")
"""Claude, Cursor and others have the first, VS Code the second."""


class FoundServers(msgspec.Struct, frozen=True):
    """``skipped`` has a sentence for each server that was left out, by its name in the file. ``written`` has the name
    of each other one in the file, and what stands there."""

    servers: dict[str, ServerConfig]
    skipped: dict[str, str]
    written: dict[str, tuple[str, dict[str, Any]]]


def read_servers_file(path: Path) -> FoundServers:
    """The servers in a file. Raises `ConfigError` when it cannot be read or is no such JSON."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is longer than {MAX_FILE_BYTES} bytes")
    return read_servers(data, str(path))


def read_servers(data: bytes | str, source: str = "the JSON") -> FoundServers:
    """The servers in a text: ``{"mcpServers": {NAME: {"command", "args", "env", "cwd"} or {"url", "headers"}}}``, or
    the inner object alone. A server that is ``disabled``, speaks another transport or is not understood is left out and
    told. Raises `ConfigError` when the text is no such object. No error repeats a value."""
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{source} is no JSON: {error}") from error
    found: object = content
    if isinstance(content, dict):
        nested = content.get("mcp")
        for whole in (content, nested if isinstance(nested, dict) else {}):
            found = next((whole[name] for name in _SECTIONS if name in whole), found)
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ConfigError(f'{source} has no servers: it must be {{"mcpServers": {{"NAME": {{"command": …}}}}}}')
    if len(found) > MAX_SERVERS:
        raise ConfigError(f"{source} has {len(found)} servers, the limit is {MAX_SERVERS}")
    servers: dict[str, ServerConfig] = {}
    skipped: dict[str, str] = {}
    written: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, given in found.items():
        label = _label(name)
        if not label or label in servers:
            skipped[name] = "no label can be made of its name" if not label else f"another one has the label {label}"
            continue
        try:
            servers[label] = _server(given)
        except ValueError as error:
            skipped[name] = str(error)
        else:
            written[label] = name, given
    return FoundServers(servers, skipped, written)


def _label(name: str) -> str:
    """The name as a label: spaces and the like become ``-``; empty when nothing is left."""
    text = "".join(each if each.isascii() and (each.isalnum() or each in "_.-") else "-" for each in name)
    text = text.strip("-_.")[:64]
    return text if LABEL.fullmatch(text) else ""


def _server(given: Mapping[str, Any]) -> ServerConfig:
    """Raises ValueError with a sentence that repeats no value."""
    if given.get("disabled") is True:
        raise ValueError("it is disabled")
    kind = given.get("type") or given.get("transport") or ""
    if kind in ("sse", "ws", "websocket"):
        raise ValueError(f"its transport {kind} is not spoken here: stdio and streamable HTTP are")
    url = given.get("url") or given.get("serverUrl") or given.get("httpUrl") or ""
    fields: dict[str, Any] = {name: given[name] for name in ServerConfig.model_fields if name in given}
    if url:
        fields["url"] = url
        fields.pop("env", None)
    elif isinstance(given.get("command"), str):
        arguments = given.get("args") or []
        if not isinstance(arguments, list) or not all(isinstance(each, str | int | float) for each in arguments):
            raise ValueError("args must be a list of texts")
        fields["command"] = [given["command"], *map(str, arguments)]
    if isinstance(fields.get("timeout"), int | float) and fields["timeout"] > 1000:
        fields["timeout"] /= 1000  # programs that count in milliseconds
    for name in ("env", "headers"):
        values = fields.get(name)
        if isinstance(values, dict):
            fields[name] = {key: str(value) for key, value in values.items() if isinstance(value, str | int | float)}
    try:
        return ServerConfig(**fields)
    except pydantic.ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or 'server'}: {each['msg']}" for each in error.errors()]
        raise ValueError("; ".join(faults).replace("Value error, ", "")) from None
