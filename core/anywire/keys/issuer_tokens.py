"""Tokens of an OpenID Connect issuer: JWTs, checked with the keys that the issuer publishes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from anywire.access_settings import JwtConfig
from anywire.boundary import Boundary
from anywire.caller import ROLES, Caller, Role
from anywire.clock import Clock, SystemClock, Timer
from anywire.errors import ConfigError, Unauthenticated
from anywire.event_bus import EventBus
from anywire.events import ConfigReloaded
from anywire.files.watched_files import WatchedFiles

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""By the type of key. All are asymmetric: who can check a token must not be able to make one."""
MAX_TOKEN_CHARS, MAX_SUBJECT_CHARS, MAX_TENANT_CHARS = 16_384, 200, 256
MAX_JWKS_BYTES, MAX_KEYS, MAX_CACHED = 1024 * 1024, 100, 4096
LEEWAY = 30.0
"""Seconds that the issuer's clock may differ from this one."""
REFRESH, LEAST_PAUSE = 3600.0, 60.0
"""Seconds until the keys are fetched again, and at least between two fetches, also for keys that are not known."""
FETCH_TIMEOUT, START_TIMEOUT = 10.0, 5.0
"""Seconds for a fetch, and for the first one before the orchestrator starts without it."""


class _Key(NamedTuple):
    key: Any
    algorithms: tuple[str, ...]


class _Known(NamedTuple):
    """A token that was checked."""

    caller: Caller
    ends: float


class IssuerTokens:
    """Who has a token of the issuer that ``config`` names.

    A token is checked against the keys that are known; no call waits. They are read from a file, which is watched, or
    fetched in the background: at the start, every hour, and when a token names one that is not known, at most once a
    minute. When they cannot be had any more, those known before stay. The constructor raises `ConfigError`.
    ``bus`` is told when they were read again, ``now`` tells the Unix time.
    """

    def __init__(
        self,
        config: JwtConfig,
        *,
        bus: EventBus | None = None,
        clock: Clock | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus or EventBus(Boundary())
        self._config, self._clock, self._now = config, clock or SystemClock(), now
        self._keys: dict[str, _Key] = {}
        self._known: dict[bytes, _Known] = {}
        self._path = Path(config.jwks) if config.jwks and "://" not in config.jwks else None
        self._watched = WatchedFiles([self._path] if self._path is not None else [], self._read_again)
        self._fetching: asyncio.Task[None] | None = None
        self._next_fetch = 0.0
        self._timer: Timer | None = None
        if self._path is not None:
            self._read(self._path)
        else:
            _check_address("access.jwt.jwks" if config.jwks else "access.jwt.issuer", config.jwks or config.issuer)

    async def start(self) -> None:
        """Follow the keys from now on. An issuer that does not answer is logged as an error and asked again."""
        if self._path is not None:
            self._watched.start()
            return
        self._fetch()
        assert self._fetching is not None
        await asyncio.wait([self._fetching], timeout=START_TIMEOUT)

    async def close(self) -> None:
        await self._watched.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait([fetching])

    def caller(self, token: str) -> Caller:
        """Whom the token names, as a caller with the id ``jwt:SUBJECT``. Raises `Unauthenticated`, whose sentence
        repeats nothing of the token."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None:
            if len(token) > MAX_TOKEN_CHARS:
                raise Unauthenticated("this token is too long")
            known = self._checked(token)
            self._known[digest] = known
            if len(self._known) > MAX_CACHED:
                del self._known[next(iter(self._known))]
        if known.ends + LEEWAY <= self._now():
            self._known.pop(digest, None)
            raise Unauthenticated("this token has run out")
        return known.caller

    def _checked(self, token: str) -> _Known:
        import jwt

        try:
            key = self._key_of(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False},
            )
        except jwt.InvalidAudienceError:
            raise Unauthenticated("this token is for somebody else (aud)") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("this token is of another issuer (iss)") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            raise Unauthenticated("this is no valid token of the issuer") from None
        ends = claims["exp"]
        if not isinstance(ends, int | float) or not 0 < ends < 2**53:
            raise Unauthenticated("this is no valid token of the issuer")
        subject = _name(claims["sub"], "sub", MAX_SUBJECT_CHARS)
        # A subject that is called as a tenant of keys is called does not belong to it.
        caller_id, named = f"jwt:{subject}", self._config.tenant_claim
        tenant = _name(_claim(claims, named), named, MAX_TENANT_CHARS) if named else caller_id
        return _Known(Caller(caller_id, tenant, _role(_claim(claims, self._config.role_claim))), ends)

    def _key_of(self, header: Mapping[str, Any]) -> _Key:
        name = header.get("kid")
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(name) if isinstance(name, str) else None
        if key is None:
            if self._path is None:
                self._fetch()
            raise Unauthenticated("the key that this token is signed with is not known here")
        return key

    # The issuer's keys

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._take(file.read(MAX_JWKS_BYTES + 1))
        except OSError as error:
            raise ConfigError(f"access.jwt.jwks: {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"access.jwt.jwks: {path}: {error}") from error

    def _read_again(self) -> None:
        assert self._path is not None
        try:
            self._read(self._path)
        except ConfigError as error:
            log.error("the keys of the issuer stay as they were: %s", error)
            self._bus.publish(ConfigReloaded, what="jwks", error=str(error))
        else:
            self._bus.publish(ConfigReloaded, what="jwks", error="")

    def _take(self, data: bytes) -> None:
        """Let the keys of this JSON Web Key Set count from now on. Raises `ValueError` when there is none."""
        self._keys = read_jwks(data)
        self._known.clear()

    def _fetch(self) -> None:
        """Fetch the keys in the background unless that was tried just now."""
        if self._fetching is not None or self._clock.now() < self._next_fetch:
            return
        self._next_fetch = self._clock.now() + LEAST_PAUSE
        self._fetching = asyncio.get_running_loop().create_task(self._fetch_and_plan())

    async def _fetch_and_plan(self) -> None:
        pause = LEAST_PAUSE
        try:
            await self._fetch_once()
            pause, why = REFRESH, ""
        except Exception as error:
            why = f"the keys of the issuer cannot be fetched: {error or type(error).__name__}"
            log.error("%s", why)
        self._bus.publish(ConfigReloaded, what="jwks", error=why)
        self._fetching = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(pause, self._fetch)

    async def _fetch_once(self) -> None:
        import httpx

        async with asyncio.timeout(FETCH_TIMEOUT), httpx.AsyncClient(timeout=FETCH_TIMEOUT) as client:
            address = self._config.jwks
            if not address:
                place = self._config.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = msgspec.json.decode(await _get(client, place), type=dict[str, Any])
                if found.get("issuer") != self._config.issuer or not isinstance(found.get("jwks_uri"), str):
                    raise ValueError(f"what {place} says is of another issuer")
                address = found["jwks_uri"]
                _check_address("jwks_uri", address)
            data = await _get(client, address)
        self._take(data)


def read_jwks(data: bytes) -> dict[str, _Key]:
    """The usable keys of a JSON Web Key Set by their ids. Raises `ValueError` when there is none."""
    import jwt

    if len(data) > MAX_JWKS_BYTES:
        raise ValueError(f"the set of keys is longer than {MAX_JWKS_BYTES} bytes")
    try:
        entries = msgspec.json.decode(data, type=dict[str, Any]).get("keys")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError("this is no set of keys (JWKS)") from error
    found: dict[str, _Key] = {}
    for entry in entries[:MAX_KEYS] if isinstance(entries, list) else ():
        allowed = ALGORITHMS.get(str(entry.get("kty")), ()) if isinstance(entry, dict) else ()
        if not allowed or entry.get("use", "sig") != "sig":
            continue
        named = entry.get("alg")
        algorithms = tuple(each for each in allowed if named in (None, each))
        if not algorithms:
            continue
        try:
            # What is private of a key is left out, should it be there by mistake.
            public = {key: value for key, value in entry.items() if key in ("kty", "n", "e", "crv", "x", "y")}
            key = jwt.PyJWK(public, algorithms[0] if entry["kty"] == "RSA" else None)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            continue
        name = entry.get("kid")
        found[name if isinstance(name, str) else ""] = _Key(key.key, algorithms)
    if not found:
        raise ValueError("there is no usable key in the set (JWKS)")
    return found


async def _get(client: httpx.AsyncClient, address: str) -> bytes:
    data = bytearray()
    async with client.stream("GET", address, headers={"accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{address} answered with status {answer.status_code}")
        async for piece in answer.aiter_bytes():
            data += piece
            if len(data) > MAX_JWKS_BYTES:
                raise ValueError(f"what {address} says is longer than {MAX_JWKS_BYTES} bytes")
    return bytes(data)


def _check_address(key: str, address: str) -> None:
    from anywire.transport_tools import is_loopback

    try:
        parts = urlsplit(address)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(str(parts.hostname)))
    except ValueError:
        safe = False
    if not safe:
        raise ConfigError(
            f"{key}: the keys of an issuer need an address that begins with https:// (http:// on this machine), "
            "so that nobody on the way can put in others"
        )


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that name; with dots, one inside of others."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _name(value: Any, claim: str, limit: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise Unauthenticated(f"this token has no claim {claim} that is a short name")
    return value


def _role(value: Any) -> Role:
    """The highest role that the claim names, alone or in a list; `use` when there is none."""
    named = value if isinstance(value, list) else [value]
    return next((role for role in reversed(ROLES) if role in named), ROLES[0])
