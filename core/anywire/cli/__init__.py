"""The command ``anywire``. A command is imported when it is asked for (`anywire.cli.commands`), and what it needs
beyond its options when it runs."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from anywire.asked_fleet import INTERRUPTED
from anywire.cli import shell
from anywire.cli.commands import app_for, whole_app
from anywire.cli.shown_arguments import hide_secrets
from anywire.errors import AnywireError
from anywire.printable import escaped
from anywire.secrecy import hide_in_tracebacks

if TYPE_CHECKING:
    import typer

    app: typer.Typer


def __getattr__(name: str) -> object:
    """``app``: all commands with all of their options, for who tells of them. It is made when it is asked for."""
    if name == "app":
        made = globals()["app"] = whole_app()
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run a command. Exit status: 0 for success, 1 for an error, 2 for wrong usage, 130 when it was stopped first."""
    hide_secrets()
    hide_in_tracebacks()
    try:
        if shell.is_asked():
            shell.answer_shells()
            asked = whole_app()
        else:
            asked = app_for(sys.argv[1:])
        asked(complete_var=shell.ASKED)
    except AnywireError as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger("anywire").debug("what led to the error", exc_info=error)
        said = escaped(str(error), keep="\n")  # a server's or an agent's words may be in it
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output is gone (a pager, head); there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
