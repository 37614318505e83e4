"""A command of llama-swap as a command template, and what it says of the model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from anywire_engine_models.registry.importers.llama_swap_macros import PORT
from anywire_engine_models.registry.model_paths import absolute

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1", "0.0.0.0"))
_CONTAINERS = frozenset(("docker", "podman", "nerdctl"))


class Command(NamedTuple):
    """``port`` is 0 where any will do. ``model_file`` is empty where the command names no GGUF file of this machine.
    ``context`` is of each slot."""

    arguments: tuple[str, ...]
    port: int
    model_file: str
    slots: int | None
    context: int | None

    @staticmethod
    def template(text: str) -> str:
        """``text`` as a template: its own braces doubled, ``${PORT}`` as ``{port}``."""
        return "{port}".join(part.replace("{", "{{").replace("}", "}}") for part in text.split(PORT))


def read_command(text: str, proxy: str, folder: Path) -> Command:
    """The command in a text like a shell's, whose lines may be comments; paths in it are relative to ``folder``. Raises
    `ValueError` with a sentence for what cannot be run here."""
    try:
        words = shlex.split(without_comments(text))
    except ValueError as error:
        raise ValueError(f"its cmd is no command: {error}") from error
    if not words:
        raise ValueError("its cmd is empty")
    slots = _count(words, "-np", "--parallel")
    context = _count(words, "-c", "--ctx-size")
    if context is not None:
        context //= slots or 1
    return Command(
        tuple(Command.template(word) for word in words),
        _port(proxy, any(PORT in word for word in words)),
        _model_file(words, folder),
        slots if slots is not None and 1 <= slots <= 256 else None,
        context if context is not None and 64 <= context < 2**31 else None,
    )


def without_comments(text: str) -> str:
    """A command without its lines that begin with ``#``, and without backslashes at the ends of the others."""
    lines = (line.rstrip().removesuffix("\\") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(lines)


def _port(proxy: str, told: bool) -> int:
    """The fixed port by the address that requests go to, else 0. ``told``: the command has ``${PORT}`` in it."""
    if PORT in proxy:
        if not told:
            raise ValueError("neither its cmd has ${PORT} nor its proxy a port: nobody knows where it listens")
        proxy = proxy.replace(PORT, "1")
        fixed = False
    else:
        fixed = True
    try:
        parts = urlsplit(proxy)
        port = parts.port or 80
    except ValueError as error:
        raise ValueError(f"its proxy is no address: {error}") from error
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK:
        raise ValueError("its proxy is no http address of this machine: such a server is an agent with engine openai")
    if parts.path.strip("/"):
        raise ValueError("its proxy has a path: a server must have its routes at /v1")
    return port if fixed else 0


def _model_file(words: Sequence[str], folder: Path) -> str:
    if Path(words[0]).name in _CONTAINERS:
        return ""
    named = _value(words, "-m", "--model")
    return absolute(named, folder) if named is not None and named.lower().endswith(".gguf") else ""


def _count(words: Sequence[str], *names: str) -> int | None:
    value = _value(words, *names)
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 12 else None


def _value(words: Sequence[str], *names: str) -> str | None:
    """What the last of these options says."""
    found = None
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            if equals:
                found = value
            elif at + 1 < len(words):
                found = words[at + 1]
    return found
