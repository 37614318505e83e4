"""A process that has imported what commands of ``anywire`` need, and forks itself for each.

``python -m tests.integration.command_forks`` reads a JSON object a line: ``arguments``, ``environment``, the files
``out`` and ``err``, and the ``seconds`` after which the command is killed. It writes its status, a line, when it has
ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from typing import Any

# Nothing of this starts a thread.
import anywire.cli.stream
import anywire.config_layers
import anywire.roles.orchestrator_and_agents
import anywire.roles.process  # noqa: F401
import anywire_gateway_openai  # noqa: F401
from anywire.cli import app, main  # noqa: F401 (it imports every command)


def become(command: dict[str, Any]) -> None:
    """Run the command in this process."""
    signal.alarm(command["seconds"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = ["anywire", *command["arguments"]]
    main()


def serve() -> None:
    gc.freeze()  # else each command would look through all that was imported, and copy it
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            become(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
