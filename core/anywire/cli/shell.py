"""``anywire completion`` and ``man``: what a shell and its manual know of the commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, cast

import typer

PROGRAM = "anywire"
ASKED = "_ANYWIRE_COMPLETE"
"""Variable by which the script of a shell asks for completions."""


class Shell(StrEnum):
    """Shells that can be told."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(help="Shell that is to complete commands.")]
) -> None:
    """Print what makes a shell complete commands. It completes options and names of plugins too.

    bash: eval "$(anywire completion bash)" in ~/.bashrc. zsh: eval "$(anywire completion zsh)" in ~/.zshrc, after
    compinit. fish: anywire completion fish > ~/.config/fish/completions/anywire.fish. PowerShell: add the text to
    $PROFILE.
    """
    answer_shells()
    os.environ[ASKED] = f"source_{shell.value}"
    cast("Any", context.find_root().command).main(args=[], prog_name=PROGRAM)


def man(context: typer.Context) -> None:
    """Print the manual page. To read it: anywire man | man -l -"""
    from importlib.metadata import version

    from anywire.cli.man_page import man_page

    typer.echo(man_page(context.find_root().command, PROGRAM, version(PROGRAM)), nl=False)


def answer_shells() -> None:
    """Have the command line answer what the scripts of shells ask. It costs time, so only who is asked does it."""
    typer.main.get_install_completion_arguments()


def is_asked() -> bool:
    """Whether the script of a shell asks."""
    return bool(os.environ.get(ASKED))


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Completes the name of an installed plugin, also the last one of several with commas between them."""

    def complete(incomplete: str) -> list[str]:
        from importlib.metadata import entry_points

        before, comma, _ = incomplete.rpartition(",")
        names = sorted({point.name for point in entry_points(group=f"anywire.{kind}")})
        return [f"{before}{comma}{name}" for name in names if f"{before}{comma}{name}".startswith(incomplete)]

    return complete
