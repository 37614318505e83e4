"""Commands of ``anywire`` that are run to their end: what they print, and with which status they end.

In the short form each is forked from a process that has imported what commands need, which takes longer than most of
them (`tests.integration.command_forks`). In the long form each is a Python of its own, as a user starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.long_form import SOAK
from tests.patience import PATIENCE


class Commands:
    def __init__(self) -> None:
        self._forks: subprocess.Popen[str] | None = None

    def finished(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run ``anywire`` with ``arguments`` in ``environment``. A command that does not end is killed."""
        command = [sys.executable, "-m", "anywire.cli", *arguments]
        if SOAK or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
            return subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE, env=dict(environment), check=False
            )
        if self._forks is None:
            forks = [sys.executable, "-m", "tests.integration.command_forks"]
            self._forks = subprocess.Popen(forks, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            asked = {"arguments": arguments, "environment": dict(environment), "seconds": round(PATIENCE)}
            try:
                status = self._ask(json.dumps(asked | {"out": str(out), "err": str(err)}))
            except BaseException:
                self._forks.kill()  # the next command may not be given the status of this one
                self.end()
                raise
            return subprocess.CompletedProcess(command, status, out.read_text(), err.read_text())

    def _ask(self, line: str) -> int:
        assert self._forks is not None
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        print(line, file=self._forks.stdin, flush=True)
        return int(self._forks.stdout.readline())

    def end(self) -> None:
        if self._forks is not None:
            self._forks.communicate()  # at the end of its input it ends
            self._forks = None


commands = Commands()


@pytest.fixture(scope="module", autouse=True)
def commands_end() -> Iterator[None]:
    """Nothing of them is left when the tests of the module that imports this have run."""
    yield
    commands.end()
