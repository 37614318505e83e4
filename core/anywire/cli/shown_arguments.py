"""Secrets on the command line, hidden from the list of processes, which every user of a machine can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from anywire.secrecy import is_secret

_OPTIONS = (b"--key", b"--invite")
_SET = b"--set"


def hide_secrets(process: Path = Path("/proc/self")) -> None:
    """Overwrite the values of ``--key``, ``--invite`` and of secrets in ``--set`` where the system shows them (Linux).
    Until then, for the moment that Python takes to start, they can be seen."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        shown = (process / "cmdline").read_bytes()
        # The 48th field; the second one, a name in brackets, may have blanks in it.
        start = int((process / "stat").read_text().rpartition(")")[2].split()[45])
        with (process / "mem").open("r+b", buffering=0) as memory:
            for begin, end in secrets_in(shown):
                memory.seek(start + begin)
                memory.write(b"*" * (end - begin))


def secrets_in(arguments: bytes) -> Iterator[tuple[int, int]]:
    """Where secrets are in arguments that each end with a zero byte: first position, and the one after the last."""
    at, option = 0, b""
    for argument in arguments.split(b"\0"):
        name, separator, value = argument.partition(b"=")
        begin, end = at + len(argument) - len(value), at + len(argument)
        at = end + 1
        if name == _SET and separator:
            inner, separator, value = value.partition(b"=")
            option, name, begin = _SET, inner, end - len(value)
        if option == _SET:
            # A mapping may have secrets in it.
            last = name.rpartition(b".")[2].decode(errors="replace")
            if is_secret(last) or value.lstrip().startswith((b"{", b"[")):
                yield begin, end
            option = b""
        elif option in _OPTIONS:
            yield end - len(argument), end
            option = b""
        elif name in _OPTIONS and separator:
            yield begin, end
        else:
            option = argument
