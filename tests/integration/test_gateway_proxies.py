"""Who is behind a proxy: believed of trusted proxies, and of nobody else."""

from __future__ import annotations

from typing import Any

import aiohttp
import pydantic
import pytest
from multidict import CIMultiDict
from tests.integration.gateway_serving import MESSAGES, hangs, says, serving
from tests.integration.known_keys import KnownKeys, bearer

from anywire.config import Config
from anywire.core_settings import core_options
from anywire_gateway_openai import OpenAIGatewayConfig
from anywire_gateway_openai.proxies import Client, Proxies
from anywire_gateway_predecessor import PredecessorGatewayConfig

HERE, PROXY, FAR = "127.0.0.1", "10.0.0.5", "203.0.113.9"
TRUSTED = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]
FOR, FORWARDED = "X-Forwarded-For", "Forwarded"


def client(peer: object, *headers: tuple[str, str], trusted: list[str] = TRUSTED) -> Client:
    return Proxies(trusted).client(peer, CIMultiDict(headers))


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        # without a proxy's word
        (HERE, [], Client(HERE, True, False)),
        (FAR, [], Client(FAR, False, False)),
        # a proxy that is not trusted
        (FAR, [(FOR, HERE)], Client(FAR, False, False)),
        ("192.0.2.1", [(FORWARDED, "for=127.0.0.1")], Client("192.0.2.1", False, False)),
        # one hop
        (HERE, [(FOR, FAR)], Client(FAR, False, True)),
        (HERE, [(FOR, HERE)], Client(HERE, True, True)),
        (PROXY, [(FOR, HERE)], Client(HERE, False, True)),  # the loopback of another machine
        (HERE, [(FORWARDED, f"for={FAR};proto=https;by={HERE}")], Client(FAR, False, True)),
        (HERE, [(FORWARDED, 'proto=https; For="[2001:db8::7]:4711"')], Client("2001:db8::7", False, True)),
        (HERE, [(FOR, f"{FAR}:4711")], Client(FAR, False, True)),
        # what stands before the first address that is no trusted proxy may be forged
        (HERE, [(FOR, f"{HERE}, {FAR}")], Client(FAR, False, True)),
        (HERE, [(FOR, HERE), (FOR, FAR)], Client(FAR, False, True)),
        (HERE, [(FOR, f"192.0.2.7, {FAR}, {PROXY}")], Client(FAR, False, True)),
        (HERE, [(FORWARDED, f"for={HERE}, for={FAR}"), (FORWARDED, f"for={PROXY}")], Client(FAR, False, True)),
        (HERE, [(FOR, f"{HERE}, {PROXY}")], Client(HERE, False, True)),  # all of them trusted, one elsewhere
        # two headers: a proxy passes the one on that it does not set
        (HERE, [(FOR, FAR), (FORWARDED, "for=127.0.0.1")], Client(HERE, False, True)),
        (HERE, [(FOR, FAR), (FORWARDED, f"for={FAR}")], Client(FAR, False, True)),
        # no addresses
        (HERE, [(FOR, "unknown")], Client("unknown", False, True)),
        (HERE, [(FOR, "")], Client(HERE, True, False)),
        (HERE, [(FOR, f"{HERE}, _hidden")], Client("unknown", False, True)),
        (HERE, [(FORWARDED, "proto=https")], Client("unknown", False, True)),
        (HERE, [(FOR, "localhost")], Client("unknown", False, True)),
        (HERE, [(FOR, "1" * 5000)], Client("unknown", False, True)),
        (HERE, [(FOR, ",".join([PROXY] * 500))], Client(PROXY, False, True)),
        (HERE, [(FOR, "::ffff:127.0.0.1")], Client("::ffff:127.0.0.1", True, True)),
    ],
)  # fmt: skip
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    peer: str, headers: list[tuple[str, str]], expected: Client
) -> None:
    assert client((peer, 4711), *headers) == expected


@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxy_at_the_unix_socket_is_trusted_by_name(trusted: bool) -> None:
    found = client("", (FOR, FAR), trusted=["unix"] if trusted else TRUSTED)
    assert found == (Client(FAR, False, True) if trusted else Client("unix", True, False))
    assert client("", (FOR, HERE), trusted=["unix"]).is_local


@pytest.mark.parametrize(
    ("peer", "headers", "url"),
    [
        (HERE, {"Host": "a.example:8080"}, "http://a.example:8080"),
        (
            HERE,
            {"Host": "inner", "X-Forwarded-Host": "llm.example", "X-Forwarded-Proto": "https"},
            "https://llm.example",
        ),
        (HERE, {"Host": "inner", "X-Forwarded-Host": "forged, llm.example"}, "http://llm.example"),
        (HERE, {"Host": "inner", "X-Forwarded-Proto": "javascript"}, "http://inner"),
        (FAR, {"Host": "inner", "X-Forwarded-Host": "llm.example", "X-Forwarded-Proto": "https"}, "http://inner"),
        (HERE, {"Host": "a b"}, ""),
        (HERE, {}, ""),
    ],
)
def test_the_url_that_is_told_is_that_of_the_proxy(peer: str, headers: dict[str, str], url: str) -> None:
    assert Proxies(TRUSTED).base_url((peer, 1), CIMultiDict(headers), "http") == url


@pytest.mark.parametrize("config", [OpenAIGatewayConfig, PredecessorGatewayConfig])
def test_the_setting_is_that_of_access_and_checked(config: type[pydantic.BaseModel]) -> None:
    access: dict[str, Any] = {"trusted_proxies": ["unix", "10.0.0.1/8"]}
    assert core_options(config, Config(access=access))["trusted_proxies"] == access["trusted_proxies"]
    with pytest.raises(pydantic.ValidationError, match="is no address or network such as"):
        config(trusted_proxies=["nginx"])


@pytest.mark.parametrize(
    ("trusted", "headers", "sees"),
    [
        ([], {}, True),
        ([], {FOR: HERE}, False),
        ([HERE], {FOR: FAR}, False),
        ([HERE], {FOR: f"{HERE}, {FAR}", "X-Real-IP": HERE}, False),
        ([HERE], {FOR: HERE, "Via": "1.1 Caddy", "X-Real-IP": HERE}, True),
        (["192.0.2.1"], {FOR: HERE}, False),
    ],
)
async def test_without_keys_an_operator_is_at_this_machine_at_both_ends_of_the_proxy(
    trusted: list[str], headers: dict[str, str], sees: bool
) -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    async with (
        serving(hangs("text"), trusted_proxies=trusted) as served,
        aiohttp.ClientSession(served.url) as http,
        http.post("/v1/chat/completions", json=body, headers={"x-anywire-tenant": "a"}) as running,
    ):
        await running.content.readuntil(b"text")
        async with http.get("/v1/tasks", headers=headers) as answer:
            assert len((await answer.json())["data"]) == sees
        async with http.get("/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "llm.example"}) as answer:
            told = (await answer.json())["url"]
            assert told == ("https://llm.example/v1" if HERE in trusted else f"{served.url}/v1")


@pytest.mark.parametrize(("trusted", "peer"), [([HERE], FAR), ([], HERE)])
async def test_with_keys_too_the_client_is_who_the_proxy_says(trusted: list[str], peer: str) -> None:
    keys = KnownKeys(alice="use")
    async with (
        serving(says("x"), access=keys, trusted_proxies=trusted) as served,
        aiohttp.ClientSession(served.url) as http,
    ):
        for sent, status in (({}, 401), (bearer("alice"), 200)):
            async with http.get("/v1/models", headers={FOR: FAR} | sent) as answer:
                assert answer.status == status
            assert (keys.presented[-1].peer, keys.presented[-1].local) == (peer, False)
