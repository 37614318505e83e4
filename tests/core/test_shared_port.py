"""A port that several processes of one user share."""

from __future__ import annotations

import socket
import sys

import pytest

import reserved
from anywire.errors import ConfigError
from anywire.listening.shared_port import SharedPort

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernels of other systems do not divide a port")


def listener(port: int, shared: bool = True) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=shared)


async def test_others_listen_on_it_and_it_takes_no_connection_itself() -> None:
    port = await SharedPort.hold("127.0.0.1", 0, 8080, "server.port")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.port))
    with listener(port.port) as one, listener(port.port) as other:
        for each in (one, other):
            each.setblocking(False)
        taken = 0
        for _ in range(64):
            with socket.create_connection(("127.0.0.1", port.port)):
                for each in (one, other):
                    try:
                        each.accept()[0].close()
                    except BlockingIOError:
                        continue
                    taken += 1
        assert taken == 64
    port.close()
    port.close()
    with listener(port.port, shared=False):
        pass


async def test_nobody_else_gets_it() -> None:
    port = await SharedPort.hold("127.0.0.1", 0, 8080, "server.port")
    with pytest.raises(OSError, match="in use"):
        listener(port.port, shared=False)
    port.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_one_that_somebody_has_is_not_shared_with_him(shared: bool) -> None:
    (number,) = reserved.free_ports(1)
    with listener(number, shared):
        with pytest.raises(ConfigError, match=f"port {number}.*another server.port"):
            await SharedPort.hold("127.0.0.1", number, 8080, "server.port")
        found = await SharedPort.hold("127.0.0.1", None, number, "server.port")
        assert found.port not in (0, number), "where no port is set, any that is free will do"
        found.close()


async def test_a_host_of_two_families_has_one_port() -> None:
    port = await SharedPort.hold("localhost", 0, 8080, "server.port")
    with listener(port.port):
        pass
    port.close()


async def test_a_host_that_is_not_known_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        await SharedPort.hold("no.such.host.invalid", 0, 8080, "server.port")
