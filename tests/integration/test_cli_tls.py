"""Commands that ask a server with TLS, or on a Unix socket: how they know it, and what they say when they do not."""

from __future__ import annotations

import datetime
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.gateway_serving import says, serving
from tests.integration.test_cli import MEMORY, anywire, start
from tests.integration.tls_files import TlsFiles, replace

from anywire.cli import doctor, stream
from anywire.cli.asked_server import Server, known_by, seen_from_outside
from anywire.cli.meeting import Meeting, Serving, running_server
from anywire.cli.settle import knowing
from anywire.config import MASK, Config
from anywire.errors import ConfigError
from anywire.listening import certificates
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.orchestrator_role import Served as OrchestratorServed

__all__ = ["start"]  # a fixture


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "tls")


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[str]:
    """The model of the server, as commands find it."""
    async with stream.client(server) as client:
        yield await stream.first_model(client)


async def fault(server: Server) -> str:
    with pytest.raises(stream.ServerError) as caught:
        async with asking(server):
            pass
    return str(caught.value)


def in_files(files: TlsFiles, **server: Any) -> list[str]:
    """The options of a command with that configuration."""
    path = files.folder / "anywire.yaml"
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    path.write_text(yaml.safe_dump({"server": {"tls": tls} | server}))
    return ["--config", str(path)]


def test_a_server_with_tls_is_found_and_known_by_commands_of_its_user(start: Any, files: TlsFiles) -> None:
    files.renew("anywire.example.org")  # a name that this machine's address has not
    up = start("up", *MEMORY, *in_files(files, port=0), "--fleet", "tls-here")
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", up.url)
    chat = anywire("chat", "hello", "--fleet", "tls-here")
    assert (chat.returncode, chat.stderr) == (0, "")
    files.renew("localhost", "127.0.0.1")
    up.wait_for("has changed: new connections get the new one")
    watched = anywire("watch", "--once", "--json", "--url", up.url, environment={"ANYWIRE_CA": str(files.ca)})
    assert len(json.loads(watched.stdout)["agents"]) == 1
    unknown = anywire("tasks", "--url", up.url)
    assert unknown.returncode == 1
    assert unknown.stderr == (
        f"error: the server at {up.url} shows a certificate of an authority that is not known here: name the file of "
        "that authority with --ca\n"
    )


def test_a_server_on_a_unix_socket_alone_is_found(start: Any, files: TlsFiles, tmp_path: Path) -> None:
    path = tmp_path / "anywire.sock"
    up = start("up", *MEMORY, "--set", f"server.unix={path}", "--host", "", "--fleet", "unix-here")
    assert up.url == f"unix:{path}"
    chat = anywire("chat", "hello", "--fleet", "unix-here")
    assert (chat.returncode, chat.stderr) == (0, "")
    assert up.end() == 0
    assert not path.exists()
    gone = anywire("agents", "--url", f"unix:{path}")
    assert f"no server answers at unix:{path}" in gone.stderr


async def test_what_is_wrong_is_one_sentence(files: TlsFiles) -> None:
    async with serving(says("a"), tls=files.tls) as served:
        there = served.url
        async with asking(knowing(Server(there), files.ca, None)) as model:
            assert model == "m"
        async with asking(knowing(Server(there), files.certificate, None)) as model:
            assert model == "m", "the certificate itself is as good as its authority"
        other = TlsFiles(files.folder / "other")
        unknown = await fault(knowing(Server(there), other.ca, None))
        assert unknown == (
            f"the server at {there} shows a certificate of an authority that is not known here: name the file of that "
            "authority with --ca"
        )
        assert "for another name" in await fault(knowing(Server(there), files.ca, None)._replace(name="x.example.org"))
        assert "or its address begins with https" in await fault(Server(there.replace("https", "http")))
    async with serving(says("a")) as served:
        assert "speaks no TLS: ask it at http://" in await fault(Server(served.url.replace("http", "https")))


async def test_an_expired_certificate_is_said(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_check_dates", lambda path, certificate: None)
    files.renew(expires=datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC))
    async with serving(says("a"), tls=files.tls) as served:
        expired = await fault(knowing(Server(served.url), files.ca, None))
        assert expired == f"the server at {served.url} shows a certificate that has expired"


async def test_a_client_shows_its_certificate(files: TlsFiles) -> None:
    own = files.folder / "own.pem"
    certificate, key = files.client_files()
    replace(own, certificate.read_bytes() + key.read_bytes())
    async with serving(says("a"), tls=files.mutual) as served:
        async with asking(knowing(Server(served.url), files.ca, own)) as model:
            assert model == "m"
        assert "asks for a certificate of the client" in await fault(knowing(Server(served.url), files.ca, None))
        own.chmod(0o644)
        with pytest.raises(ConfigError, match="run `chmod 600"):
            async with asking(knowing(Server(served.url), files.ca, own)):
                pass


# What codes and records hold


async def test_another_machine_gets_the_authority_and_the_name_that_it_needs(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(files.certificate, files.certificate.read_bytes() + files.ca.read_bytes())
    async with serving(says("a"), tls=files.tls) as served:
        assert seen_from_outside(served.url, files.tls).name == "", "the URL's is in the certificate"
        files.renew("anywire.example.org")
        replace(files.certificate, files.certificate.read_bytes() + files.ca.read_bytes())
        server = seen_from_outside(served.url, files.tls)
        assert server == Server(served.url, files.ca.read_text(), "anywire.example.org")
        usual = ssl.create_default_context(cafile=files.ca)
        monkeypatch.setattr("httpx.create_ssl_context", lambda *_, **__: usual)
        public = seen_from_outside(served.url, files.tls)
        assert public == Server(served.url, "", "anywire.example.org")
    assert known_by("http://127.0.0.1:1", None) == Server("http://127.0.0.1:1")


async def test_an_invite_code_carries_it(files: TlsFiles) -> None:
    files.renew("anywire.example.org")
    replace(files.certificate, files.certificate.read_bytes() + files.ca.read_bytes())
    config = Config.model_validate({"server": {"host": "0.0.0.0"}, "transports": "memory"})
    async with serving(says("a"), tls=files.tls, host="0.0.0.0") as served:
        orchestrator = OrchestratorServed(served.orchestrator, [served.gateway])
        record = Serving(config, "one", "127.0.0.1", config).record(orchestrator)
        assert record.certificate == str(files.certificate)
        server = running_server(Meeting(invite=record.invite))
        assert server == Server(served.url, files.ca.read_text(), "anywire.example.org")
        async with asking(server) as model:
            assert model == "m"


# Checks and configuration


async def test_doctor_looks_at_the_certificate(files: TlsFiles) -> None:
    found = await doctor._certificate(files.tls)
    assert (found.state, "for localhost, 127.0.0.1" in found.detail) == ("ok", True)
    files.renew(expires=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=20))
    assert (await doctor._certificate(files.tls)).state == "warn"
    files.key.chmod(0o644)
    found = await doctor._certificate(files.tls)
    assert (found.state, "run `chmod 600" in found.detail) == ("fail", True)


def test_config_shows_the_path_of_the_key_and_no_secret(files: TlsFiles) -> None:
    server = {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}
    engine = {"name": "openai", "api_key": "secret"}
    config = Config.model_validate({"server": server, "transports": "memory", "engine": engine})
    tree, _ = assembly.effective(config, Plugins())
    assert tree["server"]["tls"]["key"] == str(files.key)
    assert tree["engine"]["api_key"] == MASK


def test_what_is_wrong_with_the_files_ends_the_server(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    up = anywire("up", *MEMORY, *in_files(files, port=0))
    assert up.returncode == 1
    assert up.stderr.splitlines()[-1] == f"error: others can read {files.key}: run `chmod 600 {files.key}`"
