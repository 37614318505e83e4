"""``python -m anywire_experiment.faults.serve COUNT PACE``: so many stand-in servers in one process, each on a
port of its own, with a token every PACE milliseconds. They fail and heal as standard input says, a JSON object per
line:

    {"do": "fail", "server": 0, "how": "500-burst"}    {"do": "heal", "server": 0}

Each is answered by a line on standard output once it is done.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from anywire_experiment.faults.stand_in import StandIn


def _tell(event: str, **members: Any) -> None:
    sys.stdout.write(msgspec.json.encode({"event": event, **members}).decode() + "\n")
    sys.stdout.flush()


async def _serve(count: int, pace: float) -> None:
    servers = [StandIn(pace) for _ in range(count)]
    for each in servers:
        await each.start()
    _tell("serving", urls=[each.url for each in servers])
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        asked = msgspec.json.decode(line)
        server = servers[asked["server"]]
        await (server.fail(asked["how"]) if asked["do"] == "fail" else server.heal())
        _tell("done")


def main() -> None:
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1e3))


if __name__ == "__main__":
    main()
