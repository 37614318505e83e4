"""A broker that is a program: the one of the tests, in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import sys

COMMAND = (sys.executable, "-m", "tests.conformance.planted.broker")


class Broker:
    """Runs ``COMMAND``, at the same port each time."""

    process: asyncio.subprocess.Process

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    async def restart(self) -> None:
        self.process = await asyncio.create_subprocess_exec(*COMMAND, str(self.port), stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        await self.process.stdout.readline()  # it says that it listens

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def cut(self) -> None:
        await self.stop()
        await self.restart()

    async def __aenter__(self) -> Broker:
        await self.restart()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()
