"""What shells and manuals know of the commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from anywire.cli import app
from anywire.cli.man_page import man_page
from anywire.cli.shell import ASKED, names_of

BIN = Path(sys.executable).parent


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")}
    given = {"PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, env=kept | given | environment, capture_output=True, text=True, check=False)


def anywire(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "anywire.cli", *arguments, **environment)


def script_of(shell: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ASKED, "")  # what the command sets ends with the test
    done = CliRunner().invoke(app, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_gets_its_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"complete_{shell}" in script_of(shell, monkeypatch)


def test_another_shell_is_wrong_usage() -> None:
    done = CliRunner().invoke(app, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "bash" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="missing: bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("anywire", "keys", ""), {"create", "list", "revoke", "transport"}),
        (("anywire", "up", "--transport", "mem"), {"memory"}),
    ],
)
def test_bash_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], wanted: set[str]
) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(script_of("bash", monkeypatch))
    # The command of this environment, whatever is installed as `anywire`.
    (tmp_path / "anywire").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m anywire.cli \"$@\"\n")
    (tmp_path / "anywire").chmod(0o755)
    given = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; "
        f"_anywire_completion anywire; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = run("bash", "--norc", "-c", asked, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= wanted


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_are_answered(shell: str) -> None:
    done = anywire(
        _ANYWIRE_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="anywire expl",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "explain" in done.stdout, done.stderr


def test_names_of_plugins_are_completed_behind_a_comma() -> None:
    assert names_of("transports")("memory,mem") == ["memory,memory"]
    assert "memory" in names_of("transports")("")
    assert names_of("transports")("nothing-like-it") == []


def test_the_manual_has_every_command_and_option() -> None:
    root = typer.main.get_command(app)
    page = man_page(root, "anywire", "1.2.3")
    plain = page.replace("\\-", "-").replace("\\fR", "").replace("\\fB", "")

    def visit(command: object, name: str) -> None:
        for word, inner in getattr(command, "commands", {}).items():
            assert f".SS {name} {word}" in plain
            for parameter in inner.params:
                for option in (
                    parameter.opts if parameter.param_type_name == "option" and parameter.name != "help" else ()
                ):
                    assert option in plain, (name, word, option)
            visit(inner, f"{name} {word}")

    visit(root, "anywire")
    assert page == man_page(root, "anywire", "1.2.3")
    assert not [line for line in page.splitlines() if re.match(r"[.']", line) and not re.match(r"\.[A-Z]{1,2} ?", line)]


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff is installed")
def test_troff_takes_the_manual_without_a_warning() -> None:
    page = CliRunner().invoke(app, ["man"]).stdout
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8"], input=page, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert not done.stderr, done.stderr
    assert "anywire completion" in re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)
