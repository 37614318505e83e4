"""An engine behind every system of a plan: OpenAI's chat API with a pace of its own, that costs little itself.

    python -m anywire_experiment.mock_engine --host 127.0.0.1 --port 9000 --ttft 20 --itl 10 --slots 8

It says "listens on http://HOST:PORT" once it does. An answer has as many tokens as the request asks for, words that
follow from the last message alone, so that every system gets equal answers. The first token comes ``--ttft`` ms after a
slot was free, each further one ``--itl`` ms after the one before (up to 1 ms later, which does not add up). A stream
has an event for each. An answer that is asked for whole comes with its last, or ``--whole`` ms after a slot was free.
Requests beyond ``--slots`` wait, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from anywire_experiment.mock_engine.connection import Connection
from anywire_experiment.mock_engine.engine import Engine, Pace


async def serve(host: str, port: int, pace: Pace) -> None:
    """Answer until the process is asked to end."""
    loop, stopped, engine = asyncio.get_running_loop(), asyncio.Event(), Engine(pace)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopped.set)
    server = await loop.create_server(lambda: Connection(engine), host, port, backlog=1024)
    at = server.sockets[0].getsockname()
    print(f"listens on http://{at[0]}:{at[1]}", flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=_port, default=0, help="port to listen on; default: a free one")
    parser.add_argument("--ttft", type=_ms, default=0.0, help="ms to the first token; default: 0")
    parser.add_argument("--itl", type=_ms, default=0.0, help="ms from token to token; default: 0")
    parser.add_argument(
        "--whole", type=_ms, help="ms to an answer that is asked for whole; default: as long as its tokens take"
    )
    parser.add_argument(
        "--slots", type=_count, default=0, help="requests that are answered at once; default: 0, any number"
    )
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.host, given.port, Pace(given.ttft, given.itl, given.slots, given.whole)))
    except OSError as error:
        sys.exit(f"cannot listen on {given.host}:{given.port}: {error.strerror}")


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found {text!r}")
    return value


def _ms(text: str) -> float:
    value = float(text) / 1000
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"expected ms from 0 on, found {text!r}")
    return value


if __name__ == "__main__":
    main()
