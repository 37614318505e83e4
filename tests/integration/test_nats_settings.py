"""The settings of the transport over NATS, and what becomes of the errors of its libraries."""

from __future__ import annotations

import inspect
import ssl
from typing import Any

import nats.errors
import pytest

from anywire import errors
from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire_nats import NatsConfig
from anywire_nats.faults import mapped

# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"servers": "localhost:4222"}, "use nats://host:port or tls://host:port"),
        ({"servers": "ws://localhost"}, "use nats://host:port or tls://host:port"),
        ({"servers": "nats://localhost:70000"}, "use nats://host:port or tls://host:port"),
        ({"servers": "nats://ann:hunter2@localhost"}, "use user and password, token, credentials or nkey"),
        ({"servers": []}, "servers"),
        ({"server": "nats://localhost"}, "did you mean 'servers'"),
        ({"fleet": "a b"}, "fleet"),
        ({"user": "ann"}, "user and password belong together"),
        ({"user": "ann", "password": "x", "token": "y"}, "user and token are different ways"),
        ({"token": "x", "nkey": "y"}, "token and nkey are different ways"),
        ({"tls_cert": "x"}, "tls_cert and tls_key belong together"),
        ({"local": True, "servers": "nats://10.0.0.1"}, "servers names others"),
        ({"max_message_bytes": 0}, "greater than or equal to 1024"),
    ],
)
def test_bad_settings_are_answered_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Plugins().create("transports", "nats", options)
    assert "hunter2" not in str(refused.value)


def test_addresses_have_a_port_and_secrets_are_not_shown() -> None:
    config = NatsConfig(servers=["nats://host", "tls://[::1]:5000"], token="hunter2")
    assert config.servers == ["nats://host:4222", "tls://[::1]:5000"]
    assert "hunter2" not in repr(config)


def test_who_counts_as_local() -> None:
    def transport(**options: Any) -> Any:
        return Plugins().create("transports", "nats", options)

    assert not transport().is_local
    assert transport().takes_any_agent
    assert transport(local=True).is_local
    assert not transport(local=True).takes_any_agent
    assert not transport(token="a token").takes_any_agent


def test_others_meet_what_is_open_here() -> None:
    def met(host: str, **options: Any) -> Any:
        return Plugins().create("transports", "nats", options).meeting_options(host)

    assert met("10.0.0.9") == {"servers": ["nats://10.0.0.9:4222"], "fleet": "default"}
    assert met("10.0.0.9", servers="tls://nats.lab")["servers"] == ["tls://nats.lab:4222"]
    assert met("127.0.0.1", local=True, token="tok-1")["token"] == "tok-1"


# Errors


def library_errors() -> list[type[Exception]]:
    found = [ssl.SSLError, ssl.SSLCertVerificationError, ConnectionRefusedError, TimeoutError, OSError, ValueError]
    return found + [
        each
        for _, each in inspect.getmembers(nats.errors, inspect.isclass)
        if issubclass(each, Exception) and each is not nats.errors.SlowConsumerError
    ]


@pytest.mark.parametrize("cls", library_errors(), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_libraries_is_mapped(cls: type[Exception]) -> None:
    original = cls()
    error = mapped(original, "doing this")
    assert isinstance(error, errors.TransportUnavailable)
    assert error.__cause__ is original
    assert str(error).startswith("doing this: ")
    assert len(str(error)) > len("doing this: ")
