"""An answer on standard output, as it comes."""

from __future__ import annotations

import sys

from anywire.printable import escaped


class ShownText:
    """Shows the pieces of one answer. On a terminal whatever could control it is escaped; elsewhere nothing is
    changed."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._in_line = False

    def show(self, text: str) -> None:
        """Print a piece at once."""
        if text:
            self._in_line = not text.endswith("\n")
            sys.stdout.write(escaped(text, keep="\n\t") if self._terminal else text)
            sys.stdout.flush()

    def end_line(self) -> None:
        """What follows begins on a new line."""
        if self._in_line:
            self.show("\n")
