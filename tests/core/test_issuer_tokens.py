"""Tokens of an issuer: what counts, what does not, and where the keys to check them come from."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from tests.patience import PATIENCE

from anywire.access import Presented
from anywire.access_settings import JwtConfig
from anywire.caller import Caller
from anywire.errors import ConfigError, Unauthenticated
from anywire.keys.issuer_tokens import ALGORITHMS, LEAST_PAUSE, MAX_TOKEN_CHARS, IssuerTokens, read_jwks
from anywire.keys.key_access import KeyAccess
from anywire.testing.clock import SimulatedClock

ISSUER, AUDIENCE = "https://login.example.org", "anywire"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(65537, 2048)


def jwk(private: Any, name: str | None, **members: Any) -> dict[str, Any]:
    kind: Any = RSAAlgorithm if private in (RSA, OTHER) else ECAlgorithm if private is EC else OKPAlgorithm
    found: dict[str, Any] = kind.to_jwk(private.public_key(), as_dict=True)
    return found | ({"kid": name} if name is not None else {}) | members


JWKS = {"keys": [jwk(RSA, "rsa"), jwk(EC, "ec", use="sig", alg="ES256"), jwk(ED, "ed"), {"kty": "oct", "k": "AAAA"}]}


def config(jwks: str = "", **changes: str) -> JwtConfig:
    return JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, **changes)


def claims(**changes: Any) -> dict[str, Any]:
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600} | changes
    return {key: value for key, value in found.items() if value is not None}


def token(private: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changes: Any) -> str:
    return jwt.encode(claims(**changes), private, algorithm, headers={"kid": kid} if kid is not None else None)


def refused(tokens: IssuerTokens, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.caller(text)
    assert text not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(JWKS))
    return file


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> IssuerTokens:
    file = tmp_path_factory.mktemp("jwks") / "jwks.json"
    file.write_text(json.dumps(JWKS))
    return IssuerTokens(config(str(file)))


@pytest.mark.parametrize(
    ("private", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (RSA, "PS512", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
)
def test_a_token_of_the_issuer_names_its_subject(tokens: IssuerTokens, private: Any, algorithm: str, kid: str) -> None:
    text = token(private, algorithm, kid)
    for _ in range(2):
        assert tokens.caller(text) == Caller("jwt:alice", "jwt:alice", "use")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "another"}, "somebody else"),
        ({"aud": None}, "no valid token"),
        ({"iss": "https://elsewhere.example.org"}, "another issuer"),
        ({"iss": None}, "no valid token"),
        ({"exp": 1}, "run out"),
        ({"exp": None}, "no valid token"),
        ({"exp": float("nan")}, "no valid token"),
        ({"exp": "soon"}, "no valid token"),
        ({"exp": 10**400}, "no valid token"),
        ({"nbf": 4_000_000_000}, "no valid token"),
        ({"sub": None}, "no valid token"),
        ({"sub": ""}, "claim sub"),
        ({"sub": "a\nb"}, "claim sub"),
        ({"sub": "a" * 201}, "claim sub"),
        ({"private": OTHER}, "no valid token"),
        ({"kid": "another"}, "not known"),
        ({"kid": None}, "not known"),
        ({"private": EC, "algorithm": "ES256", "kid": "rsa"}, "no valid token"),
        ({"sub": "a" * MAX_TOKEN_CHARS}, "too long"),
    ],
)
def test_any_other_token_is_refused(tokens: IssuerTokens, changes: dict[str, Any], why: str) -> None:
    assert why in refused(tokens, token(**changes))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_key_that_is_public_signs_nothing(tokens: IssuerTokens) -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for algorithm, secret in (("HS256", pem), ("HS256", json.dumps(JWKS["keys"][0]).encode()), ("none", b"")):
        text = ".".join(encoded(json.dumps(each).encode()) for each in ({"alg": algorithm, "kid": "rsa"}, claims()))
        signature = hmac.digest(secret, text.encode(), "sha256") if secret else b""
        assert "no valid token" in refused(tokens, f"{text}.{encoded(signature)}")
    assert not [each for names in ALGORITHMS.values() for each in names if each.startswith("HS") or each == "none"]


@given(
    st.text()
    | st.tuples(st.text(), st.text(), st.text()).map(".".join)
    | st.integers(0, 400).map(lambda at: (whole := token())[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :])
)
def test_no_other_text_is_a_token(tokens: IssuerTokens, text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens.caller(text)


@pytest.mark.parametrize(
    ("settings", "changes", "caller"),
    [
        ({"tenant_claim": "team"}, {"team": "lab"}, Caller("jwt:alice", "lab")),
        ({"tenant_claim": "org.team"}, {"org": {"team": "lab"}}, Caller("jwt:alice", "lab")),
        (
            {"tenant_claim": "https://lab.example.org/t"},
            {"https://lab.example.org/t": "lab"},
            Caller("jwt:alice", "lab"),
        ),
        ({}, {"role": "operate"}, Caller("jwt:alice", "jwt:alice", "operate")),
        ({}, {"role": "root"}, Caller("jwt:alice", "jwt:alice", "use")),
        ({}, {"role": {"operate": True}}, Caller("jwt:alice", "jwt:alice", "use")),
        (
            {"role_claim": "realm.roles"},
            {"realm": {"roles": ["x", "use", "observe"]}},
            Caller("jwt:alice", "jwt:alice", "observe"),
        ),
    ],
)
def test_claims_name_tenant_and_role(
    path: Path, settings: dict[str, str], changes: dict[str, Any], caller: Caller
) -> None:
    assert IssuerTokens(config(str(path), **settings)).caller(token(**changes)) == caller


def test_a_tenant_that_is_missing_is_said(path: Path) -> None:
    assert "claim team" in refused(IssuerTokens(config(str(path), tenant_claim="team")), token())


def test_a_token_that_is_remembered_runs_out(path: Path) -> None:
    clock = SimulatedClock()
    offset = time.time() - clock.now()
    one = IssuerTokens(config(str(path)), now=lambda: clock.now() + offset)
    text = token()
    one.caller(text)
    clock.advance(600)
    one.caller(text)  # what clocks may differ by
    clock.advance(31)
    assert refused(one, text) == "this token has run out"


def test_one_key_needs_no_name() -> None:
    assert list(read_jwks(json.dumps({"keys": [jwk(RSA, None)]}).encode())) == [""]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 3}',
        b'{"keys": []}',
        b'{"keys": [3, {"kty": "oct", "k": "AAAA", "alg": "HS256"}]}',
        b"[" * 10**5,
    ],
)
def test_a_set_without_usable_keys_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"access\.jwt\.jwks"):
        IssuerTokens(config(str(path)))


@pytest.mark.parametrize(
    "address", ["http://login.example.org/keys", "ftp://localhost/keys", "https//x", "http://[::1"]
)
def test_keys_are_fetched_where_nobody_can_change_them(address: str) -> None:
    with pytest.raises(ConfigError, match="https://"):
        IssuerTokens(JwtConfig(issuer=address, audience=AUDIENCE, jwks=address if "://" in address else ""))


def test_tokens_and_keys_stand_beside_each_other(path: Path) -> None:
    access = KeyAccess(tokens=IssuerTokens(config(str(path))))
    assert access.caller(Presented(token=token())).id == "jwt:alice"
    assert access.caller(Presented(token=access.own_key)).role == "operate"
    with pytest.raises(Unauthenticated):
        access.caller(Presented(token=token(exp=1), certificate="ab" * 32))


async def known(one: IssuerTokens, text: str) -> None:
    """Wait until the token counts."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert one.caller(text).id == "jwt:alice"
                return
            except Unauthenticated:
                await asyncio.sleep(0.01)


async def test_a_file_is_read_again_when_it_changes(path: Path) -> None:
    one = IssuerTokens(config(str(path)))
    text = token(OTHER, kid="other")
    await one.start()
    try:
        assert "not known" in refused(one, text)
        new = path.with_suffix(".new")
        await asyncio.to_thread(new.write_text, json.dumps({"keys": [jwk(OTHER, "other")]}))
        await asyncio.to_thread(new.replace, path)
        await known(one, text)
        assert "not known" in refused(one, token())
    finally:
        await one.close()


class Issuer:
    """An issuer on this machine: what it answers, and how often it was asked for its keys."""

    def __init__(self) -> None:
        self.jwks: dict[str, Any] = JWKS
        self.status, self.asked, self.url = 200, asyncio.Queue[None](), ""

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def keys(self, request: web.Request) -> web.Response:
        self.asked.put_nowait(None)
        return web.json_response(self.jwks, status=self.status)

    async def was_asked(self) -> None:
        await asyncio.wait_for(self.asked.get(), PATIENCE)


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    one = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", one.discovery)
    app.router.add_get("/keys", one.keys)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


async def test_keys_come_from_the_issuer_and_unknown_ones_are_looked_for_once_a_minute(issuer: Issuer) -> None:
    clock = SimulatedClock()
    one = IssuerTokens(JwtConfig(issuer=issuer.url, audience=AUDIENCE), clock=clock)
    await one.start()
    try:
        await issuer.was_asked()
        old = token(iss=issuer.url)
        assert one.caller(old).id == "jwt:alice"
        issuer.jwks = {"keys": [jwk(OTHER, "other")]}
        text = token(OTHER, kid="other", iss=issuer.url)
        for _ in range(100):
            refused(one, text)
        assert one._fetching is None, "it was asked just now"
        clock.advance(LEAST_PAUSE)
        for _ in range(100):
            refused(one, text)
        await issuer.was_asked()
        await known(one, text)
        assert issuer.asked.empty()
        assert "not known" in refused(one, old), "its key was withdrawn"
    finally:
        await one.close()


async def test_an_issuer_that_is_away_is_asked_again(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    clock = SimulatedClock()
    issuer.status = 503
    one = IssuerTokens(JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks=f"{issuer.url}/keys"), clock=clock)
    await one.start()
    try:
        await issuer.was_asked()
        assert [each.levelno for each in caplog.records if each.name.endswith("issuer_tokens")] == [logging.ERROR]
        refused(one, token())
        issuer.status = 200
        clock.advance(LEAST_PAUSE)
        await issuer.was_asked()
        await known(one, token())
        issuer.status = 503
        clock.advance(4000)
        await issuer.was_asked()
        one.caller(token())
    finally:
        await one.close()
