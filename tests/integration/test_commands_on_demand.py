"""A command line imports the command that it names; the overview names them all, and reads the options of none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from tests.patience import PATIENCE
from typer.testing import CliRunner

from anywire.cli import app
from anywire.cli.commands import COMMANDS, app_for, whole_app

HEAVY = ("aiohttp", "asyncio", "httpx", "pluggy", "pydantic", "rich", "yaml")
"""What takes long to import, and no overview needs."""
OTHERS = ("anywire.cli.chat", "anywire.cli.keys", "anywire.cli.watch", "anywire_engine_models.cli", "anywire_selectors")
NAMES = list(cast("Any", typer.main.get_command(app)).commands)


def shown(of: typer.Typer, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(of, arguments, env={"COLUMNS": "80"}, prog_name="anywire")
    return done.exit_code, done.output


def anywire(*arguments: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it; its last line names the modules of those above that it has imported."""
    code = (
        "import sys\nfrom anywire.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print('imported', *[each for each in {HEAVY + OTHERS!r} if each in sys.modules])"
    )
    folders = [str(path)] if path is not None else []
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *filter(None, sys.path)]), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_overview_says_what_all_commands_together_say() -> None:
    for arguments in ([], ["--help"], ["-h"], ["--version"]):
        assert shown(app_for(arguments), *arguments) == shown(app, *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_by_itself_is_the_one_among_all(name: str) -> None:
    assert shown(app_for([name, "--help"]), name, "--help") == shown(app, name, "--help")
    assert shown(app_for([name, "--no-such-option"]), name, "--no-such-option") == shown(app, name, "--no-such-option")


@pytest.mark.parametrize("word", ["serv", "--hel", "", "--"])
def test_a_word_that_is_no_command_is_told_as_ever(word: str) -> None:
    assert shown(app_for([word]), word) == shown(app, word)
    assert shown(app_for([word]), word)[0] == 2


def test_the_table_has_the_commands_of_the_core_in_the_order_of_the_overview() -> None:
    commands = [name for name in COMMANDS if not COMMANDS[name].endswith(":app")]
    groups = [name for name in COMMANDS if COMMANDS[name].endswith(":app")]
    assert NAMES[: len(COMMANDS)] == commands + groups


def test_all_commands_can_be_gathered_twice() -> None:
    twice = whole_app()
    for name in ("models", "deliberate", "ui"):
        assert shown(twice, name, "--help") == shown(app, name, "--help")
    assert shown(twice, "models", "list", "--help") == shown(app, "models", "list", "--help")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()])
def test_the_overview_imports_nothing_that_takes_long(arguments: tuple[str, ...]) -> None:
    done = anywire(*arguments)
    imported = done.stdout.splitlines()[-1].split()
    assert imported[0] == "imported", done.stderr
    assert not set(HEAVY) & set(imported), done.stderr


def test_a_command_that_is_named_imports_no_other() -> None:
    done = anywire("serve", "--help")
    assert "Run an orchestrator" in done.stdout, done.stderr
    assert not set(OTHERS) & set(done.stdout.splitlines()[-1].split())


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder with a distribution whose commands do not load, but for one that has the name of the core's."""
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[anywire.commands]\nbroken = broken_commands:app\nnone = their_commands:none\nserve = their_commands:app\n"
    )
    (tmp_path / "broken_commands.py").write_text("raise RuntimeError('not\\x1b[31m today')")
    (tmp_path / "their_commands.py").write_text(
        "import typer\nnone = 5\napp = typer.Typer(help='Theirs.')\n@app.callback()\ndef theirs(): '''Theirs.'''\n"
    )
    return tmp_path


def test_commands_of_a_plugin_that_do_not_load_keep_nobody_else_from_theirs(strangers: Path) -> None:
    overview = anywire("--help", path=strangers)
    assert "doctor" in overview.stdout
    assert "broken" not in overview.stdout
    assert "left out: the command 'broken' of theirs 1.0 does not load: RuntimeError: not" in overview.stderr
    assert "left out: the command 'none' of theirs 1.0 does not load: TypeError" in overview.stderr
    assert "\x1b" not in overview.stderr
    other = anywire("serve", "--help", path=strangers)
    assert "left out" not in other.stderr
    assert "Run an orchestrator" in other.stdout, "the core's commands are its own"
    named = anywire("broken", path=strangers)
    assert named.returncode == 1
    assert "error: the command 'broken' of theirs 1.0 does not load: RuntimeError: not" in named.stderr


def test_commands_whose_options_cannot_be_read_keep_nobody_else_from_theirs(tmp_path: Path) -> None:
    package = tmp_path / "odd-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[anywire.commands]\nodd = odd_commands:app\n")
    (tmp_path / "odd_commands.py").write_text(
        "import typer\napp = typer.Typer(help='Odd.')\n@app.command()\ndef one(what: int | str): '''One.'''\n"
    )
    mistyped = anywire("serv", path=tmp_path)
    assert mistyped.returncode == 2, mistyped.stderr
    assert "left out: the command 'odd' of odd 1.0 does not load: AssertionError" in mistyped.stderr
    asked = anywire(
        path=tmp_path, _ANYWIRE_COMPLETE="complete_bash", COMP_WORDS="anywire ser", COMP_CWORD="1"
    )  # fmt: skip
    assert "serve" in asked.stdout.split()
    assert not asked.stderr, "it would stand in the line that somebody types"
