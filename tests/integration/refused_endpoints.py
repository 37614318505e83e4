"""Requests to every endpoint of a gateway's table that must be refused and change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

from anywire.caller import Role
from anywire_gateway_openai.endpoint_table import Endpoint

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MTIzNDU2Nzg5MDEyMzQ1Ng==",
}


class Example(NamedTuple):
    """A request that an endpoint would answer: what stands for ``{id}`` in its path (``task``: the id of a task of the
    first tenant), its body and headers. ``foreign`` is the status that another tenant gets for that id, ``role`` the
    one that the endpoint must ask for, ``status`` what is answered to who has it."""

    name: str = ""
    body: Any = None
    headers: Mapping[str, str] = {}
    foreign: int = 0
    role: Role | None = "use"
    status: int = 200


Examples = Mapping[tuple[str, str], Example]
"""By method and path, without the base."""
COMMAND = "test.echo"
"""Stands for ``{name}``: a command that changes nothing."""


class Asked(NamedTuple):
    endpoint: Endpoint
    example: Example
    method: str
    path: str


def requests(endpoints: Sequence[Endpoint], examples: Examples, bases: Sequence[str], task: str) -> list[Asked]:
    """A request for every endpoint, and every other spelling of its path that leads there. Fails for an endpoint
    without an example, and for an example without an endpoint."""
    found: list[Asked] = []
    used: set[tuple[str, str]] = set()
    for endpoint in endpoints:
        base = next((each for each in bases if endpoint.path.startswith(f"{each}/")), "")
        key = (endpoint.method, endpoint.path.removeprefix(base))
        assert key in examples, f"{endpoint.method} {endpoint.path} has no example"
        used.add(key)
        example = examples[key]
        assert endpoint.role == example.role, f"{endpoint.method} {endpoint.path} is for {endpoint.role}"
        path = endpoint.path.replace("{id}", task if example.name == "task" else example.name)
        path = path.replace("{name}", COMMAND)
        for each in dict.fromkeys((path, f"{path}/", path[0] + path[1:].replace("/", "//"))):
            for method in (endpoint.method, "HEAD") if endpoint.method == "GET" else (endpoint.method,):
                found.append(Asked(endpoint, example, method, each))
    assert used == set(examples), f"there are no endpoints {set(examples) - used}"
    return found


async def answered(client: aiohttp.ClientSession, asked: Asked, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and text of what comes back; the text of an answer that goes on for ever is not waited for."""
    sent = {**asked.example.headers, **headers}
    async with client.request(asked.method, asked.path, json=asked.example.body, headers=sent) as answer:
        is_stream = answer.status == 200 and answer.content_type == "text/event-stream"
        return answer.status, "" if is_stream or answer.status == 101 else await answer.text()
