"""Which connection is closed when there are too many."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from anywire.listening.connection_limit import LEAST, ConnectionLimit


class Connection(asyncio.BaseTransport):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.is_closed = name, False

    def close(self) -> None:
        self.is_closed = True


class Body:
    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def is_eof(self) -> bool:
        return self.whole


def opened(limit: ConnectionLimit, names: str) -> dict[str, Connection]:
    connections = {name: Connection(name) for name in names}
    for each in connections.values():
        limit.opened(each)
    return connections


def closed(connections: dict[str, Connection]) -> str:
    return "".join(name for name, each in connections.items() if each.is_closed)


def test_of_too_many_the_one_closed_has_waited_longest_for_its_peer() -> None:
    limit = ConnectionLimit("s", 4)
    connections = opened(limit, "abcd")
    limit.begun(connections["a"], Body(True))
    limit.begun(connections["b"], Body(False))
    limit.begun(connections["c"], Body(True))
    limit.ended(connections["c"])
    connections |= opened(limit, "e")
    assert closed(connections) == "b", "one with half of a request waits, one that is being answered does not"
    connections |= opened(limit, "f")
    assert closed(connections) == "bd"
    connections |= opened(limit, "g")
    assert closed(connections) == "bcd", "c began to wait again after d"


def test_where_all_are_answered_the_new_one_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    limit = ConnectionLimit("s", 3)
    connections = opened(limit, "abc")
    for each in connections.values():
        limit.begun(each, Body(True))
    for name in "de":
        connections |= opened(limit, name)
    assert closed(connections) == "de"
    assert len(caplog.records) == 1
    limit.ended(connections["b"])
    connections |= opened(limit, "f")
    assert closed(connections) == "bde"


def test_what_is_over_takes_no_place() -> None:
    limit = ConnectionLimit("s", 2)
    connections = opened(limit, "ab")
    limit.begun(connections["a"], Body(True))
    limit.closed(connections["a"])
    limit.closed(connections["a"])
    limit.ended(connections["a"])
    limit.ended(None)
    limit.begun(None, Body(True))
    connections |= opened(limit, "c")
    assert closed(connections) == ""


def test_a_process_has_a_part_of_its_descriptors_for_a_server_and_asks_for_as_many_as_it_may() -> None:
    program = """
import resource
from anywire.listening.connection_limit import descriptors, raise_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
before = descriptors()
raise_descriptors()
print(before, descriptors())
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["64", "100"]
    assert ConnectionLimit("s").most >= LEAST


def test_a_connection_that_its_handler_has_forgotten_is_closed_all_the_same() -> None:
    limit = ConnectionLimit("a server", 2)
    handler, connection = object(), Connection("a")
    limit.opened(connection, handler)
    limit.lost(handler)
    limit.lost(handler)
    assert not limit._open
    assert not limit._by_handler
