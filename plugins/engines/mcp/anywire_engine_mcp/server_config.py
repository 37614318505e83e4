"""One MCP server: how it is reached, and what it may do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import pydantic

from anywire.errors import ConfigError
from anywire.secrecy import keep_secret

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a server's label looks like: requests, features of offers and paths of the API have it."""
MAX_SERVERS = 64
"""Servers of one agent: each of them stands in every offer."""
_INHERITED = (*("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"), *("LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ"))
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""``${NAME}``, ``${env:NAME}``, ``${NAME:-default}``."""


class ServerConfig(pydantic.BaseModel):
    """Exactly one of ``command`` and ``url`` is set."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = pydantic.Field(
        default=(), description="Program of a server on stdin and stdout, with its arguments."
    )
    url: str = pydantic.Field(default="", description="Address of a server over streamable HTTP.")
    env: dict[str, pydantic.SecretStr] = pydantic.Field(
        default_factory=dict,
        description="Environment variables of the program, beside PATH, HOME and the like. `${NAME}` stands "
        "for a variable of the agent.",
    )
    cwd: Path | None = pydantic.Field(default=None, description="Folder that the program runs in.")
    headers: dict[str, pydantic.SecretStr] = pydantic.Field(
        default_factory=dict, description="Headers of each request over HTTP. `${NAME}` stands for a variable."
    )
    headers_env: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Headers of each request over HTTP: environment variable with the value."
    )
    protocol: Literal["auto", "legacy"] = pydantic.Field(
        default="auto",
        description="How the protocol's version is agreed on. `legacy`: by the handshake of versions before 2026, for "
        "servers that do not bear the question for a newer one.",
    )
    autostart: bool = pydantic.Field(default=True, description="Start the server together with the agent.")
    on_demand: bool = pydantic.Field(default=True, description="Start the server for a request that needs it.")
    idle_ttl: float = pydantic.Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds without a call after which it is stopped. 0: never.",
    )
    restart: Literal["never", "on-failure"] = pydantic.Field(
        default="on-failure", description="Whether a server that has ended by itself is started again."
    )
    max_restarts: int | None = pydantic.Field(
        default=None,
        ge=0,
        description="Restarts in a row before it stays crashed. Default: 5 for a program, no bound for a URL.",
    )
    allowed_tools: tuple[str, ...] | None = pydantic.Field(
        default=None, description="Tools that may be used. Default: all that the server has."
    )
    timeout: float = pydantic.Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Seconds that one call of a tool may take."
    )
    parallel: int = pydantic.Field(default=8, ge=1, le=256, description="Calls at once; further ones wait.")
    start_timeout: float = pydantic.Field(
        default=30.0, gt=0, allow_inf_nan=False, description="Seconds from its start to its list of tools."
    )
    stop_grace: float = pydantic.Field(
        default=2.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a program has to end by itself, once after its input is closed and once after "
        "SIGTERM; then it is killed.",
    )
    health_interval: float = pydantic.Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between two questions whether an idle server is well. After 3 without an answer it counts "
        "as crashed. 0: never.",
    )

    @pydantic.field_validator("command", mode="before")
    @classmethod
    def _one_word(cls, value: object) -> object:
        return (value,) if isinstance(value, str) and value else value

    @pydantic.field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/\s]+", url):
            raise ValueError("must be an address such as http://127.0.0.1:8000/mcp")
        return url

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("set command (a program on stdin and stdout) or url (streamable HTTP), one of the two")
        if self.command and not self.command[0]:
            raise ValueError("command must begin with the name of a program")
        if self.command and (self.headers or self.headers_env):
            raise ValueError("headers are for a url")
        if self.url and (self.env or self.cwd):
            raise ValueError("env and cwd are for a command")
        return self

    @property
    def transport(self) -> Literal["stdio", "http"]:
        return "stdio" if self.command else "http"

    def allows(self, tool: str) -> bool:
        return self.allowed_tools is None or tool in self.allowed_tools


def is_label(text: str) -> str:
    """``text``, if it may be a server's label; for pydantic. Raises ValueError."""
    if not LABEL.fullmatch(text):
        raise ValueError("a label has 1 to 64 letters, digits, '_', '.' and '-', and begins with a letter or digit")
    return text


Servers = dict[Annotated[str, pydantic.AfterValidator(is_label)], ServerConfig]


def inherited() -> dict[str, str]:
    """What a program sees of the environment of the agent."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def filled_in(text: str, where: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` with the values of the variables that stand in it. Raises `ConfigError` for one that is not set;
    ``where`` begins its sentence."""
    found = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in found:
            return found[name]
        if default is None:
            raise ConfigError(f"{where}: the environment variable {name} is not set")
        return default

    return _VARIABLE.sub(value, text)


def launched_command(config: ServerConfig, where: str) -> list[str]:
    """The program and its arguments, variables filled in. Raises `ConfigError`."""
    return [filled_in(each, f"{where}.command") for each in config.command]


def secrets_of(config: ServerConfig, where: str) -> dict[str, str]:
    """The environment of a program beyond what it inherits, or the headers of a URL, variables filled in; none of it is
    repeated in an error or a log. Raises `ConfigError` for a variable that is not set."""
    if config.command:
        return _kept(
            {name: filled_in(each.get_secret_value(), f"{where}.env.{name}") for name, each in config.env.items()}
        )
    for _, value in parse_qsl(urlsplit(config.url).query):
        keep_secret(value)
    filled = {
        name: filled_in(each.get_secret_value(), f"{where}.headers.{name}") for name, each in config.headers.items()
    }
    named = {
        name: filled_in(f"${{{each}}}", f"{where}.headers_env.{name}") for name, each in config.headers_env.items()
    }
    return _kept(filled | named)


def _kept(values: dict[str, str]) -> dict[str, str]:
    for value in values.values():
        keep_secret(value)
    return values
