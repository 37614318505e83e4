"""A manual page in the form of man(7), from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

EXIT_STATUS = (
    ("0", "It has done what it was to do."),
    ("1", "An error: one line on standard error says what to do."),
    ("2", "Wrong usage."),
    ("130", "It was stopped before it had an answer."),
)
ENVIRONMENT = (
    ("ANYWIRE_CONFIG", "The file of the configuration, as --config."),
    ("ANYWIRE_API_KEY", "The key to come in with, as --key."),
    ("ANYWIRE_SECTION__KEY", "Any key of the configuration: ANYWIRE_SERVER__PORT is server.port."),
)


def man_page(command: Any, name: str, version: str) -> str:
    """The page of ``command``, a group, with all of its commands. The same commands give the same page."""
    lines = [
        f'.TH {name.upper()} 1 "" "{name} {version}" "User Commands"',
        ".SH NAME",
        f"{name} \\- {_escaped(_first_sentence(command.help))}",
        ".SH SYNOPSIS",
        f".B {name}",
        "[OPTIONS] COMMAND [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_paragraphs(command.help),
        ".SH OPTIONS",
        *_parameters(command),
        ".SH COMMANDS",
        *_commands(command, name),
        ".SH EXIT STATUS",
        *_table(EXIT_STATUS),
        ".SH ENVIRONMENT",
        *_table(ENVIRONMENT),
        ".SH EXAMPLES",
        ".TP",
        _escaped("anywire up --agents 2"),
        "Run an orchestrator and two agents on this machine.",
        ".TP",
        _escaped('anywire chat "Hello"'),
        "Ask them something.",
        ".TP",
        _escaped("anywire init"),
        "Write a configuration that explains every setting.",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[str]:
    for word, command in group.commands.items():
        if command.hidden:
            continue
        own = f"{name} {word}"
        arguments = " ".join(_metavar(each) for each in command.params if each.param_type_name == "argument")
        usage = " ".join(part for part in (own, "COMMAND" if hasattr(command, "commands") else arguments) if part)
        yield f".SS {_escaped(usage)}"
        yield from _paragraphs(command.help)
        yield from _parameters(command)
        if hasattr(command, "commands"):
            yield from _commands(command, own)


def _parameters(command: Any) -> Iterator[str]:
    for each in command.params:
        if getattr(each, "hidden", False) or each.name == "help":
            continue
        if each.param_type_name == "argument":
            if each.help:
                yield from (".TP", f"\\fI{_escaped(_metavar(each))}\\fR", _escaped(each.help))
            continue
        names = ", ".join(f"\\fB{_escaped(option)}\\fR" for option in sorted(each.opts, key=len, reverse=True))
        yield ".TP"
        yield names if each.is_flag else f"{names} \\fI{_escaped(_metavar(each))}\\fR"
        yield _escaped(each.help or "") or "\\&"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()


def _paragraphs(text: str | None) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text or ""))):
        yield from [".PP"] if number else []
        yield _escaped(" ".join(paragraph.split()))


def _table(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, meaning in rows:
        yield from (".TP", f"\\fB{_escaped(name)}\\fR", _escaped(meaning))


def _first_sentence(text: str | None) -> str:
    return inspect.cleandoc(text or "").partition("\n")[0].rstrip(".")


def _escaped(text: str) -> str:
    """Text that is text to troff, whatever it holds; without line ends."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
