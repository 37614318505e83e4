"""Who is let in by a NATS server, what its user may do there, and TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from pathlib import Path
from typing import Any

import nkeys
import pytest
from tests.integration.nats_servers import NatsServer, bench, exchange, log, needs_nats_server, refusal, serve, server
from tests.integration.tls_files import TlsFiles
from tests.integration.wire_bench import Bench, echo, request
from tests.integration.wire_faults import Log

from anywire import errors

__all__ = ["bench", "log", "serve", "server"]  # fixtures

pytestmark = needs_nats_server


# Who is let in


@pytest.mark.parametrize(
    ("settings", "right", "wrong"),
    [
        (
            "authorization: {user: ann, password: hunter2}",
            {"user": "ann", "password": "hunter2"},
            {"user": "ann", "password": "x"},
        ),
        ("authorization: {token: hunter2}", {"token": "hunter2"}, {"token": "x"}),
        ("authorization: {token: hunter2}", {"token": "hunter2"}, {}),
    ],
    ids=["user", "token", "nothing"],
)
async def test_who_is_not_let_in_is_told_what_to_check(
    bench: Bench, serve: Any, settings: str, right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    server = await serve(settings)
    told = await refusal(bench, servers=server.url, **wrong)
    assert "does not let this end in: check user and password, token" in told
    assert "hunter2" not in told
    await exchange(bench, servers=server.url, **right)


async def test_keys_that_are_made_let_agents_answer_and_not_ask(bench: Bench, serve: Any, tmp_path: Path) -> None:
    from anywire_nats.transport import NatsTransport

    folder = tmp_path / "keys"
    told = NatsTransport.make_keys(folder)
    hub, agent = folder / "hub.nk", folder / "agent.nk"
    assert str(hub) in told
    assert str(agent) in told
    assert [path.stat().st_mode & 0o077 for path in (hub, agent)] == [0, 0]
    users = (folder / "users.conf").read_text()
    assert all(path.read_text().strip() not in users for path in (hub, agent))
    server = await serve(users)
    sending, sink = await bench.hub(servers=server.url, nkey=hub)
    port, _, _ = await bench.port(on_task=echo, servers=server.url, nkey=agent)
    await sink.event("joined", "a")
    sending.send("a", request("t", body="fine"))
    assert "".join((await sink.final("t")).deltas) == "fine"
    await port.close()
    await sending.close()
    with pytest.raises(errors.TransportUnavailable):
        await bench.hub(servers=server.url, nkey=agent)
    before = hub.read_text()
    with pytest.raises(errors.ConfigError, match="is there already"):
        NatsTransport.make_keys(folder)
    assert hub.read_text() == before


def seed_file(folder: Path, name: str) -> tuple[Path, str]:
    """A file with the seed of a new nkey, and its public part."""
    pair = nkeys.from_seed(nkeys.encode_seed(random.Random(name).randbytes(32), nkeys.PREFIX_BYTE_USER))
    path = folder / name
    path.write_bytes(bytes(pair.seed) + b"\n")
    path.chmod(0o600)
    return path, pair.public_key.decode()


async def test_an_nkey_is_let_in_and_another_is_not(bench: Bench, serve: Any, tmp_path: Path) -> None:
    path, public = seed_file(tmp_path, "one")
    other, _ = seed_file(tmp_path, "other")
    server = await serve(f"authorization: {{users: [{{nkey: {public}}}]}}")
    assert "does not let this end in" in await refusal(bench, servers=server.url, nkey=str(other))
    await exchange(bench, servers=server.url, nkey=str(path))


def signed(key: nkeys.KeyPair, of: nkeys.KeyPair, kind: str, **claims: Any) -> str:
    """A token as `nsc` makes them: what ``key`` says of the one whose key is ``of``."""
    content = {"iss": key.public_key.decode(), "sub": of.public_key.decode(), "name": kind, "iat": 1, "jti": kind}
    content["nats"] = {"type": kind, "version": 2, **claims}
    parts = [json.dumps(each).encode() for each in ({"typ": "JWT", "alg": "ed25519-nkey"}, content)]
    text = ".".join(_base64(each) for each in parts)
    return f"{text}.{_base64(key.sign(text.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_file_of_credentials_is_enough(bench: Bench, serve: Any, tmp_path: Path) -> None:
    kinds = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    operator, account, user = (nkeys.from_seed(nkeys.encode_seed(bytes([kind]) * 32, kind)) for kind in kinds)
    no_limits = dict.fromkeys(("subs", "data", "payload"), -1)
    limits = {**no_limits, **dict.fromkeys(("conn", "leaf", "imports", "exports"), -1), "wildcards": True}
    of_account = signed(operator, account, "account", limits=limits)
    server = await serve(
        f'operator: "{signed(operator, operator, "operator")}"\nresolver: MEMORY\n'
        f'resolver_preload: {{{account.public_key.decode()}: "{of_account}"}}'
    )
    path = tmp_path / "robot.creds"
    parts = ("NATS USER JWT", signed(account, user, "user", **no_limits)), ("USER NKEY SEED", bytes(user.seed).decode())
    path.write_text("".join(f"-----BEGIN {name}-----\n{text}\n------END {name}------\n\n" for name, text in parts))
    path.chmod(0o600)
    assert "does not let this end in" in await refusal(bench, servers=server.url)
    await exchange(bench, servers=server.url, credentials=str(path))


@pytest.mark.parametrize("setting", ["credentials", "nkey"])
async def test_a_file_that_is_none_of_its_kind_is_told_and_not_repeated(
    bench: Bench, server: NatsServer, tmp_path: Path, setting: str
) -> None:
    path = tmp_path / "secret"
    path.write_text("hQ3xV9pL2mT8wY5k\n")
    path.chmod(0o600)
    told = await refusal(bench, servers=server.url, **{setting: str(path)})
    assert "hQ3xV9pL2mT8wY5k" not in told
    assert setting in told
    missing = await refusal(bench, servers=server.url, **{setting: str(tmp_path / "none")})
    assert f"transports.nats.{setting}: there is no file" in missing


async def test_an_end_that_may_not_use_its_subjects_is_told(bench: Bench, serve: Any) -> None:
    users = 'users: [{user: u, password: p, permissions: {subscribe: {deny: "anywire.>"}}}]'
    server = await serve(f"authorization: {{{users}}}")
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable, match="allow those that the README of anywire-nats lists"):
            await opening(servers=server.url, user="u", password="p")


async def test_the_permissions_of_the_readme_are_enough_and_keep_agents_from_acting_as_hubs(
    bench: Bench, serve: Any, log: Log
) -> None:
    page = (Path(__file__).parents[2] / "plugins" / "transports" / "nats" / "README.md").read_text()
    users = []
    for name, row in (("hub", "an orchestrator"), ("agent", "an agent"), ("client", "a client")):
        cells = next(line for line in page.splitlines() if line.startswith(f"| {row} |")).split("|")[2:4]
        publish, subscribe = (cell.replace("`", '"').replace("FLEET", "default") for cell in cells)
        permissions = f"publish: [{publish}], subscribe: [{subscribe}]"
        users.append(f"{{user: {name}, password: {name}, permissions: {{{permissions}}}}}")
    server = await serve(f"authorization: {{users: [{', '.join(users)}]}}")

    def of(user: str) -> dict[str, Any]:
        return {"servers": server.url, "user": user, "password": user}

    for plane, dials, answers in (("agent", "hub", "agent"), ("client", "client", "hub")):
        hub, sink = await bench.hub(plane=plane, **of(dials))  # type: ignore[arg-type]
        await bench.port(plane, on_task=echo, plane=plane, **of(answers))  # type: ignore[arg-type]
        await sink.event("joined", plane)
        hub.send(plane, request("t", body="here"))
        assert (await sink.final("t")).deltas == ("here",)
    with pytest.raises(errors.TransportUnavailable, match="permissions violation"):
        await bench.hub("false", **of("agent"))
    await log.says("permissions violation")


# TLS


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "tls")


def tls_settings(files: TlsFiles, more: str = "") -> str:
    return f'tls: {{cert_file: "{files.certificate}", key_file: "{files.key}"{more}}}'


async def test_tls_with_an_authority_of_ones_own(bench: Bench, serve: Any, files: TlsFiles, tmp_path: Path) -> None:
    server = await serve(tls_settings(files))
    for url in (server.url, server.url.replace("nats:", "tls:")):
        await exchange(bench, servers=url, tls_ca=str(files.ca))
    other = TlsFiles(tmp_path / "other")
    assert "does not come from an authority in tls_ca" in await refusal(bench, servers=server.url, tls_ca=str(other.ca))
    assert "does not come from an authority in tls_ca" in await refusal(bench, servers=server.url)


async def test_a_server_that_asks_for_a_certificate(bench: Bench, serve: Any, files: TlsFiles) -> None:
    certificate, key = files.client_files()
    key.chmod(0o600)
    server = await serve(tls_settings(files, f', ca_file: "{files.ca}", verify: true'))
    shown = {"tls_ca": str(files.ca), "tls_cert": str(certificate), "tls_key": str(key)}
    await exchange(bench, servers=server.url, **shown)
    for opening in (bench.hub, bench.port):
        with pytest.raises(errors.TransportUnavailable, match="perhaps it asks for a certificate"):
            await opening(servers=server.url, tls_ca=str(files.ca))


@pytest.mark.parametrize("way", ["tls://", "tls_ca"])
async def test_nothing_is_said_to_a_server_without_tls_when_tls_is_asked_for(
    bench: Bench, files: TlsFiles, way: str
) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n')
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()

    fake = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with fake:
        host = f"127.0.0.1:{fake.sockets[0].getsockname()[1]}"
        more = {"tls_ca": str(files.ca)} if way == "tls_ca" else {}
        url = f"{'tls' if way == 'tls://' else 'nats'}://{host}"
        told = await refusal(bench, servers=url, user="ann", password="hunter2", **more)
    assert "it does not use TLS" in told
    assert not heard
