"""What is reserved for one process is not given to another."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from itertools import cycle

import pytest

import reserved

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import reserved
with reserved.dds_domain() as domain:
    print(domain, *reserved.free_ports(50), flush=True)
    sys.stdin.read()
"""


def test_processes_get_domains_and_ports_of_their_own() -> None:
    folder = str(reserved.__file__).rpartition("/")[0]
    with ExitStack() as stack:
        asked = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", ASK, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        domains, ports = [stack.enter_context(reserved.dds_domain())], [*reserved.free_ports(50)]
        for each in asked:
            assert each.stdout is not None
            domain, *its = map(int, each.stdout.readline().split())
            domains.append(domain)
            ports += its
        for each in asked:
            assert each.stdin is not None
            each.stdin.close()
    assert len(set(domains)) == len(domains) == 5
    assert len(set(ports)) == len(ports) == 250
    assert max(domains) <= 100


@pytest.mark.parametrize("offset", [0, 10])
def test_domain_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    with reserved.dds_domain() as domain:
        pass
    monkeypatch.setattr(reserved, "_next_domain", cycle([domain]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 7400 + 250 * domain + offset))
        with pytest.raises(RuntimeError, match="every DDS domain"), reserved.dds_domain():
            pass
    with reserved.dds_domain() as again:
        assert again == domain


def test_domain_can_be_had_again() -> None:
    for _ in range(200):
        with reserved.dds_domain():
            pass


def test_port_comes_again_only_after_the_others() -> None:
    one = reserved.free_ports(40)
    assert not set(one) & set(reserved.free_ports(40))


def test_port_that_is_in_use_is_not_given() -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", port))) for port in reserved.free_ports(90)]
        given = {port for _ in range(5) for port in reserved.free_ports(5)}
        assert not given & {each.getsockname()[1] for each in held}
