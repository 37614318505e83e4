"""How long one request keeps an event loop from running, for bodies of the allowed size.

    python benchmarks/pauses.py [--transport dds] [--only "one long string"] [--bytes 33554432] [--at-most 50]

For each transport ``anywire up`` is started with one agent, a process of its own where the transport allows. A ticker
in each process looks at the clock every millisecond. Each body is sent once over HTTP. Printed are the status of its
answer and the longest pause in milliseconds, of the clock and in brackets of the processor time of the loop's thread,
which a busy machine does not change. The command fails when a pause took more than ``--at-most`` milliseconds of
processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pause_recorder import FOLDER
from transport_stack import new_event_loop, options_of, server

RECORDER = Path(__file__).with_name("pause_recorder.py")
PATIENCE = 120.0
_TRANSPORTS = ("memory", "http", "zeromq", "grpc", "dds")


def _chat(content: bytes) -> bytes:
    return b'{"model":"synthetic","max_tokens":2,"messages":[{"role":"user","content":' + content + b"}]}"


def _with_member(value: bytes) -> bytes:
    return _chat(b'"x"')[:-1] + b',"unknown":' + value + b"}"


def _filled(piece: bytes, size: int, around: bytes = b'""') -> bytes:
    return around[:1] + piece * ((size - 200) // len(piece)) + around[1:]


def _listed(piece: bytes, size: int) -> bytes:
    return b"[" + b",".join([piece] * ((size - 200) // (len(piece) + 1))) + b"]"


def _photo(size: int) -> bytes:
    data = b"A" * (size * 27 // 32)
    return _chat(
        b'[{"type":"text","text":"what is this? \xf0\x9f\x98\x80"},'
        b'{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,' + data + b'"}}]'
    )


def _messages(size: int) -> bytes:
    message = b'{"role":"user","content":"x"}'
    return b'{"model":"synthetic","max_tokens":2,"messages":' + _listed(message, size) + b"}"


BODIES: dict[str, Callable[[int], bytes]] = {
    "small": lambda size: _chat(b'"hello"'),
    "photo of 20 MB": _photo,
    "one long string": lambda size: _chat(_filled(b"a", size)),
    "one long text": lambda size: _chat(_filled(b"a b ", size)),
    "Chinese": lambda size: _chat(_filled("你好".encode(), size // 6)),
    "French": lambda size: _chat(_filled("déjà vu ".encode(), size // 2)),
    "escaped line ends": lambda size: _chat(_filled(b"\\n", size)),
    "escaped quotes": lambda size: _chat(_filled(b'\\"', size)),
    "escaped characters": lambda size: _chat(_filled(b"\\u00e9", size)),
    "messages": _messages,
    "15,000 messages": lambda size: _messages(15_000 * 30),
    "empty lists": lambda size: _with_member(_listed(b"[]", size)),
    "numbers": lambda size: _with_member(_listed(b"1.5", size)),
    "400,000 numbers": lambda size: _with_member(_listed(b"123456", 400_000 * 7)),
    "members": lambda size: _with_member(
        b"{" + b",".join([b'"%07d":1' % each for each in range((size - 200) // 12)]) + b"}"
    ),
    "integers of 5,000 digits": lambda size: _with_member(_listed(b"1" * 5000, size)),
    "one integer": lambda size: _with_member(b"1" * (size - 200)),
    "nesting": lambda size: _with_member(b"[" * (size // 2 - 200) + b"]" * (size // 2 - 200)),
    "spaces": lambda size: _with_member(b" " * (size - 200) + b"1"),
    "no JSON": lambda size: b'"' * (size - 200),
}


async def _ask(url: str, body: bytes) -> int:
    """The status of the answer to ``body``."""
    to = urlsplit(url)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {to.netloc}\r\nConnection: close\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return int(answer.split(b" ", 2)[1])


class _Records:
    """The pauses of a role's process that were recorded since the last look."""

    def __init__(self, folder: Path, role: str) -> None:
        self._paths, self._read = sorted(folder.glob(f"{role}-*")), 0

    def longest(self) -> tuple[float, float]:
        """Of the wall and of the processor, in milliseconds."""
        lines = [line for path in self._paths for line in path.read_text("utf-8").splitlines()]
        new, self._read = lines[self._read :], len(lines)
        pauses = [tuple(map(float, line.split())) for line in new]
        return max((wall for wall, _ in pauses), default=0.0) * 1e3, max((cpu for _, cpu in pauses), default=0.0) * 1e3


async def _measure(transport: str, names: list[str], size: int) -> float:
    """Print a table of a transport; return the longest pause in milliseconds of processor time."""
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="anywire-") as name, options_of(transport) as options:
        os.environ[FOLDER] = name
        more = ("--plugin", str(RECORDER), "--engine", "recorded_synthetic")
        async with server(transport, options, *more) as url:
            await _ask(url, BODIES["small"](size))
            records = {role: _Records(Path(name), role) for role in ("server", "agent")}
            for each in records.values():
                each.longest()
            print(f"\n{transport:26} {'status':>6} {'server':>16} {'agent':>16}", flush=True)
            for body in names:
                status = await _ask(url, BODIES[body](size))
                await asyncio.sleep(0.05)  # the last pause is recorded when it is over
                found = {role: each.longest() for role, each in records.items()}
                shown = " ".join([f"{wall:7.1f} ({cpu:6.1f})" for wall, cpu in found.values()])
                print(f"{body:26} {status:6} {shown}", flush=True)
                longest = max(longest, *(cpu for _, cpu in found.values()))
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", action="append", help="default: all five")
    parser.add_argument("--only", action="append", choices=tuple(BODIES), help="a body; default: all")
    parser.add_argument("--bytes", type=int, default=32 * 1024 * 1024, help="of a body")
    parser.add_argument("--at-most", type=float, default=50.0, help="milliseconds that a pause may take")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average {os.getloadavg()[0]:.1f} before")
    longest = 0.0
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        for transport in given.transport or _TRANSPORTS:
            longest = max(longest, runner.run(_measure(transport, given.only or list(BODIES), given.bytes)))
    print(f"\nlongest pause: {longest:.1f} ms of processor time")
    if longest > given.at_most:
        sys.exit(f"that is more than {given.at_most:g} ms")


if __name__ == "__main__":
    main()
