"""``--help`` and the command line reference leave out no command, option or default, and change no text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from anywire.cli import app
from anywire.config import DEFAULT_PORT, Config

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
DEFAULTS = {
    "--host": Config().server.host,
    "--port": DEFAULT_PORT,
    "--transport": Config().transport_names,
    "--scheduler": Config().scheduler.name,
    "--selector": Config().selector.name,
    "--engine": Config().engine.name,
    "--slots": Config().agent.slots,
    "--log-level": Config().log_level,
    "--strength": Config().standby.strength,
}
"""What an option of a command that starts something is when it is not given: the default of its setting."""
STARTING = ("up", "serve", "agent", "demo")


def tree(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from tree(inner, (*name, word))


COMMANDS = dict(tree(cast("Any", typer.main.get_command(app))))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS, ids=lambda name: " ".join(name) or "anywire")
def test_help_says_everything_as_it_is_written(name: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "80"}, prog_name="anywire")
    assert shown.exit_code == 0, shown.output
    text, command = words(shown.output), COMMANDS[name]
    assert words(command.help) in text
    for parameter in command.params:
        assert words(parameter.help) in text, parameter.name
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert option in text
        if parameter.default not in (None, False, "", ()) and not callable(parameter.default):
            assert re.search(
                rf"{re.escape(words(parameter.help))}\s+\[default: {re.escape(str(parameter.default))}", text
            )
    assert "<bool>" not in text
    for word, inner in getattr(command, "commands", {}).items():
        first = words(inner.help).partition(". ")[0].removesuffix(".")
        assert f"{word} {first}" in text, "the list of commands cuts its first sentence off"


@pytest.mark.parametrize("command", STARTING)
def test_an_option_tells_the_default_of_its_setting(command: str) -> None:
    told = {parameter.opts[0]: parameter.help for parameter in COMMANDS[command,].params}
    for option, default in DEFAULTS.items():
        assert option not in told or told[option].endswith(f"Default: {default}."), told[option]


def test_the_reference_has_every_command_and_option() -> None:
    sections = dict(re.findall(r"^## `anywire ([\w -]+)`\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(" ".join(name) for name in COMMANDS if name)
    for name, command in COMMANDS.items():
        for parameter in command.params if name else ():
            if parameter.name == "help":
                continue
            section = sections[" ".join(name)]
            assert parameter.help in section, (name, parameter.name)
            if parameter.default not in (None, False, "", ()) and not callable(parameter.default):
                assert f"[default: {parameter.default}]" in section
    assert not re.search(r"^\|---.*\|\n(?!\|)", PAGE, flags=re.MULTILINE), "a table without rows"
