"""``python -m anywire.testing.launcher_process SPEC``: a process that starts one agent with the launcher under test,
writes its pid, 0 for one elsewhere, and goes on until it is killed. For `anywire.testing.launcher_kit`."""

from __future__ import annotations

import asyncio
import socket
import sys

import msgspec

from anywire.testing.launcher_kit import LauncherSpec, config


async def _launch(spec: LauncherSpec) -> None:
    process = await spec.make().start("agent", config(), "orphan")
    await process.ready()
    print(process.pid if process.host in ("localhost", socket.gethostname()) else 0, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_launch(msgspec.json.decode(sys.argv[1], type=LauncherSpec)))
