"""The gateway with TLS: what it shows, what it asks for, and what happens when the certificate is replaced."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, ScriptedEngine, Served, says, serving
from tests.integration.test_gateway_same_http import ODD, post
from tests.integration.tls_files import TlsFiles, replace

import anywire.listening.handshakes
from anywire.access_settings import TlsConfig
from anywire.engine import Delta
from anywire.errors import ConfigError
from anywire.events import ConfigReloaded, TaskAdmitted
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.listening.certificates import server_context
from anywire.messages import TaskRequest
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.recorder import Recorder
from anywire_engine_openai import OpenAIConfig, OpenAIEngine
from anywire_gateway_openai.protocol import OpenAIProtocol
from anywire_gateway_predecessor import PredecessorGateway, PredecessorGatewayConfig

ASK = {"model": "m", "messages": MESSAGES}
STREAMS = 50


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "tls")


def client_of(served: Served, context: ssl.SSLContext) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{served.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=TIMEOUT,
        http_client=openai.DefaultAsyncHttpxClient(verify=context),
    )


async def shown_by(served: Served, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def test_openai_clients_use_it_with_the_authority_alone(files: TlsFiles) -> None:
    async with serving(says("a", "b"), tls=files.tls) as served:
        assert served.url == f"https://127.0.0.1:{served.port}"
        async with client_of(served, files.client()) as client:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "ab"
        async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"{served.url}/health")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_newer_are_spoken(files: TlsFiles, version: ssl.TLSVersion) -> None:
    context = files.client()
    context.maximum_version = version
    async with serving(says("a"), tls=files.tls) as served, httpx.AsyncClient(verify=context) as client:
        assert (await client.get(f"{served.url}/health")).status_code == 200


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_what_is_no_tls_and_what_is_too_old_is_refused_and_told(files: TlsFiles) -> None:
    old = files.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with LogRecorder() as log:
        async with serving(says("a"), tls=files.tls) as served, httpx.AsyncClient() as client:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown_by(served, old)
            await log.message("unsupported protocol")
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://127.0.0.1:{served.port}/health")
            await log.message("it speaks HTTP without TLS")


async def test_fifty_streams_go_on_while_the_certificate_is_replaced(files: TlsFiles) -> None:
    go_on = asyncio.Event()

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("before ")
        await go_on.wait()
        yield Delta("after")

    async def ask(client: openai.AsyncOpenAI, began: asyncio.Event) -> str:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        text = ""
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                text += chunk.choices[0].delta.content
                began.set()
        return text

    async with serving(ScriptedEngine(script), tls=files.tls) as served, client_of(served, files.client()) as client:
        told: list[ConfigReloaded] = []
        served.orchestrator.events.subscribe("told", told.append, ConfigReloaded)
        first = await shown_by(served, files.client())
        begun = [asyncio.Event() for _ in range(STREAMS)]
        streams = [asyncio.create_task(ask(client, each)) for each in begun]
        await asyncio.gather(*(each.wait() for each in begun))

        with LogRecorder() as log:
            replace(files.certificate, b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
            await log.message("the certificate in use stays")
        assert await shown_by(served, files.client()) == first, "a file that does not serve changes nothing"

        renewed = changed(served)
        files.renew()
        await asyncio.wait_for(renewed, TIMEOUT)
        second = await shown_by(served, files.client())
        assert second != first
        assert second == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
        assert not any(each.done() for each in streams)
        go_on.set()
        assert await asyncio.gather(*streams) == ["before after"] * STREAMS
        assert [(each.what, bool(each.error)) for each in told] == [("certificate", True), ("certificate", False)]


def changed(served: Served) -> asyncio.Future[None]:
    """Done when the gateway has another certificate."""
    import logging

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    logger = logging.getLogger("anywire.listening.certificates")
    logger.setLevel(logging.INFO)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has changed" in record.getMessage() and not done.done():
                done.set_result(None)

    handler = Told()
    logger.addHandler(handler)
    done.add_done_callback(lambda _: logger.removeHandler(handler))
    return done


async def test_links_to_files_may_lead_elsewhere_as_in_kubernetes(files: TlsFiles, tmp_path: Path) -> None:
    """A volume of Kubernetes: files are links through a link to a folder, and that one is replaced."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for number in (1, 2):
        if number == 2:
            files.renew()
        (mounted / f"..{number}").mkdir()
        for each in (files.certificate, files.key):
            replace(mounted / f"..{number}" / each.name, each.read_bytes())
    (mounted / "..data").symlink_to("..1")
    for each in (files.certificate, files.key):
        (mounted / each.name).symlink_to(f"..data/{each.name}")
    tls = TlsConfig(certificate=mounted / files.certificate.name, key=mounted / files.key.name)
    async with serving(says("a"), tls=tls) as served:
        first = await shown_by(served, files.client())
        renewed = changed(served)
        (mounted / "..new").symlink_to("..2")
        (mounted / "..new").replace(mounted / "..data")
        await asyncio.wait_for(renewed, TIMEOUT)
        assert await shown_by(served, files.client()) != first


async def test_gateway_predecessor_uses_it_too(files: TlsFiles) -> None:
    async with serving(says("a")) as served:
        front = PredecessorGateway(PredecessorGatewayConfig(port=0, tls=files.tls))
        await front.start(served.context)
        try:
            assert front.address.startswith("https://127.0.0.1:")
            async with httpx.AsyncClient(verify=files.client()) as client:
                assert (await client.get(f"{front.address}/health")).status_code == 200
        finally:
            await front.close()


# Clients' certificates


async def test_a_client_without_a_certificate_is_refused_and_one_with_it_is_known_by_its_fingerprint(
    files: TlsFiles,
) -> None:
    certificate, key = files.client_files()
    stranger = TlsFiles(files.folder / "other")
    with LogRecorder() as log:
        async with serving(says("a"), tls=files.mutual) as served:
            async with client_of(served, files.client(certificate, key)) as client:
                answer = await client.chat.completions.create(model="m", messages=MESSAGES)
                assert answer.choices[0].message.content == "a"
                assert served.gateway._server is not None
                (handler,) = served.gateway._server.connections
                fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
                assert handler.proof.certificate == fingerprint  # type: ignore[attr-defined]
            for context, why in (
                (files.client(), "it has shown no certificate"),
                (files.client(*stranger.client_files()), "does not come from an authority in server.tls.client_ca"),
            ):
                async with httpx.AsyncClient(verify=context) as client:
                    with pytest.raises(httpx.TransportError):
                        await client.get(f"{served.url}/health")
                await log.message(why)


async def test_a_connection_that_is_handed_over_stays_its_clients(files: TlsFiles) -> None:
    """To aiohttp's server, with a chunked body, behind a usual request and before others."""
    certificate, key = files.client_files()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    async with serving(says("a"), tls=files.mutual) as served:
        context = files.client(certificate, key)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        writer.write(post() + ODD["chunked"])
        writer.write(post())
        for _ in range(3):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            assert head.startswith(b"HTTP/1.1 200 ")
            length = next(each for each in head.lower().split(b"\r\n") if each.startswith(b"content-length: "))
            await reader.readexactly(int(length.partition(b" ")[2]))
        assert served.gateway._server is not None
        (handler,) = served.gateway._server.connections
        assert isinstance(handler, OpenAIProtocol)
        assert handler.proof.certificate == fingerprint
        writer.transport.abort()


async def test_a_key_that_a_certificate_stands_for_counts(files: TlsFiles, tmp_path: Path) -> None:
    certificate, key = files.client_files()
    shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    keys = tmp_path / "keys.json"
    add_key(keys, record_of(None, "robotrobotro", tenant="robots", certificate=shown))
    events = Recorder()
    async with serving(says("a"), tls=files.mutual, access=KeyAccess(keys)) as served:
        served.orchestrator.events.subscribe("test", lambda event: events.add(event.caller), TaskAdmitted)
        async with httpx.AsyncClient(verify=files.client(certificate, key)) as client:
            answer = await client.post(f"{served.url}/v1/chat/completions", json=ASK)
            assert answer.status_code == 200
            forwarded = {"X-Forwarded-For": "127.0.0.1"}
            assert (await client.get(f"{served.url}/v1/models", headers=forwarded)).status_code == 200
        async with httpx.AsyncClient(verify=files.client(*files.client_files("other@example.org"))) as client:
            assert (await client.post(f"{served.url}/v1/chat/completions", json=ASK)).status_code == 401
        await events.until(lambda: events.events)
    assert events.events == [("robotrobotro",)]
    through: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "access": KeyAccess(keys)}
    async with (
        serving(says("a"), tls=files.mutual, **through) as served,
        httpx.AsyncClient(verify=files.client(certificate, key)) as client,
    ):
        answer = await client.get(f"{served.url}/v1/models", headers={"X-Forwarded-For": "192.0.2.9"})
        assert answer.status_code == 401, "the certificate is that of the proxy and not of the client"


# An engine that asks a server with TLS


async def test_engine_openai_knows_a_server_by_its_own_authority(files: TlsFiles) -> None:
    async with serving(says("a"), tls=files.tls) as served:
        options = {"base_url": f"{served.url}/v1", "startup_timeout": 0.01}
        for tls_ca, known in ((files.ca, True), (None, False)):
            engine = OpenAIEngine(OpenAIConfig(tls_ca=tls_ca, **options))
            try:
                await engine.start(lambda: None)
                assert ("m" in engine.status().models) is known
            finally:
                await engine.close()


# What is wrong with files


def test_what_is_wrong_with_the_files_is_said(files: TlsFiles, tmp_path: Path) -> None:
    def refused(tls: TlsConfig) -> str:
        with pytest.raises(ConfigError) as caught:
            server_context(tls)
        return str(caught.value)

    def with_key(key: Path) -> TlsConfig:
        return TlsConfig(certificate=files.certificate, key=key)

    for mode in (0o640, 0o604, 0o602):
        files.key.chmod(mode)
        assert f"run `chmod 600 {files.key}`" in refused(files.tls)
    files.key.chmod(0o600)
    other = TlsFiles(tmp_path / "other")
    assert "is not that of the first certificate" in refused(with_key(other.key))
    assert "cannot be read: No such file" in refused(with_key(tmp_path / "missing"))
    assert "Is a directory" in refused(with_key(tmp_path))
    assert "holds no private key" in refused(with_key(files.certificate))
    assert "holds no certificate" in refused(TlsConfig(certificate=files.key, key=files.key))
    locked = tmp_path / "locked"
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    replace(
        locked,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        ),
    )
    assert "has a passphrase" in refused(with_key(locked))
    assert "holds no certificate" in refused(files.tls.model_copy(update={"client_ca": files.key}))
    long_ago = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    files.renew(expires=long_ago)
    assert "expired on 2020-01-02 00:00 UTC" in refused(files.tls)
    files.renew(expires=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3))
    assert "is not valid before" in refused(files.tls)


# Peers that harm


async def test_peers_that_begin_no_handshake_leave_room_for_others(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anywire.listening.handshakes, "descriptors", lambda: 40)
    async with serving(says("a"), tls=files.tls) as served:
        silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(60)]
        async with client_of(served, files.client()) as client:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        assert answer.choices[0].message.content == "a"
        for reader, _ in silent[:40]:
            assert await asyncio.wait_for(_end(reader), TIMEOUT) == b""
        for _, writer in silent:
            writer.close()


async def _end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_handshake_that_does_not_end_is_cut_off(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anywire.listening.handshakes, "TIMEOUT_S", 0.1)
    async with serving(says("a"), tls=files.tls) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"\x16\x03\x01")
        assert await asyncio.wait_for(_end(reader), TIMEOUT) == b""
        writer.close()


async def test_it_closes_with_handshakes_under_way(files: TlsFiles) -> None:
    async with serving(says("a"), tls=files.tls) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await shown_by(served, files.client())  # that one has been accepted before this one
    assert await asyncio.wait_for(_end(reader), TIMEOUT) == b""
    writer.close()


def test_settings_reach_the_gateway(files: TlsFiles) -> None:
    from anywire.config import Config
    from anywire.core_settings import core_options
    from anywire_gateway_openai import OpenAIGatewayConfig

    config = Config.model_validate({"server": {"tls": files.tls.model_dump(), "unix": "/run/anywire.sock"}})
    options: dict[str, Any] = core_options(OpenAIGatewayConfig, config)
    made = OpenAIGatewayConfig(**options)
    assert (made.tls, made.unix) == (files.tls, Path("/run/anywire.sock"))
