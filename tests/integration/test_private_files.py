"""Every setting that names a file with a secret takes one of this user alone, and says what mends another."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth
from tests.core.test_secrecy import every_setting
from tests.integration.tls_files import TlsFiles

from anywire.access_settings import TlsConfig
from anywire.errors import AnywireError
from anywire.files.private_files import kept_secret
from anywire.identities.admitted import change_admitted, read_admitted
from anywire.identities.identity_proof import Identity
from anywire.keys.key_records import add_key, read_keys, record_of
from anywire.keys.key_text import new_key
from anywire.listening.certificates import client_context, server_context
from anywire.secrecy import is_secret
from anywire_dds.security import SecurityConfig, settings_xml
from anywire_grpc.config import GrpcConfig
from anywire_grpc.library import check_tls
from anywire_nats.config import NatsConfig, ServerConfig
from anywire_nats.login import CREDENTIALS_PARTS, login
from anywire_service_audit.folder import read_key
from anywire_service_nats.config import NatsServiceConfig
from anywire_zeromq.config import ZeromqConfig

Use = Callable[[Path], object]


def of_keys(path: Path) -> Use:
    add_key(path, record_of(new_key()))
    return read_keys


def of_identity(path: Path) -> Use:
    Identity.from_file(path)
    return Identity.from_file


def of_admitted(path: Path) -> Use:
    change_admitted(path, lambda admitted: admitted)
    return read_admitted


def of_server(path: Path) -> Use:
    files = TlsFiles(path.parent)
    files.key.rename(path)
    return lambda key: server_context(TlsConfig(certificate=files.certificate, key=key))


def of_client(path: Path) -> Use:
    files = TlsFiles(path.parent)
    path.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    return lambda own: client_context(own=own)


def of_grpc(path: Path) -> Use:
    files = TlsFiles(path.parent)
    files.key.rename(path)
    return lambda key: check_tls(GrpcConfig(tls_cert=str(files.certificate), tls_key=str(key)))


def of_zeromq(path: Path) -> Use:
    _, secret = zmq.auth.create_certificates(path.parent, "made")
    Path(secret).rename(path)
    server, _ = zmq.curve_keypair()
    return lambda key: ZeromqConfig(secret_key=str(key), server_key=server.decode())


def of_nats(setting: str, model: type[ServerConfig] = NatsConfig) -> Callable[[Path], Use]:
    def of(path: Path) -> Use:
        certificate = ""
        if setting == "tls_key":
            files = TlsFiles(path.parent)
            files.key.rename(path)
            certificate = str(files.certificate)
        else:
            path.write_text("\n".join(CREDENTIALS_PARTS))
        return lambda key: login(model.model_validate({setting: str(key), "tls_cert": certificate}))

    return of


def of_dds(path: Path) -> Use:
    path.write_text("a key")
    other = path.with_name("other")
    files = dict.fromkeys(("identity_ca", "certificate", "permissions_ca", "governance", "permissions"), other)

    def use(key: Path) -> None:
        try:
            settings_xml(SecurityConfig(private_key=key, **files))
        except AnywireError as error:
            if "not available, because" not in str(error):  # it has come past the key
                raise

    return use


def of_audit(path: Path) -> Use:
    read_key(path, make=True)
    return read_key


def of_fleet(path: Path) -> Use:
    kept_secret(path)
    return kept_secret


FILES: dict[str, Callable[[Path], Use]] = {
    "access.keys": of_keys,
    "identity.key": of_identity,
    "identity.admitted": of_admitted,
    "server.tls.key": of_server,
    "gateways.grpc.tls.key": of_server,
    "gateways.openai.tls.key": of_server,
    "gateways.predecessor.tls.key": of_server,
    "transports.grpc.tls_key": of_grpc,
    "transports.nats.credentials": of_nats("credentials"),
    "transports.nats.nkey": of_nats("nkey"),
    "transports.nats.tls_key": of_nats("tls_key"),
    "transports.zeromq.secret_key": of_zeromq,
    "transports.dds.security.private_key": of_dds,
    "services.audit.key_file": of_audit,
    "services.nats.credentials": of_nats("credentials", NatsServiceConfig),
    "services.nats.nkey": of_nats("nkey", NatsServiceConfig),
    "services.nats.tls_key": of_nats("tls_key", NatsServiceConfig),
    "--cert": of_client,
    "lan.key": of_fleet,
}
TEXTS = {
    "access.jwt.jwks",  # keys that are public
    "engine.api_key",
    "engine.api_key_env",
    "services.nats.password",
    "services.nats.token",
    "transports.grpc.token",
    "transports.http.token",
    "transports.nats.password",
    "transports.nats.token",
    "transports.zeromq.allowed_keys",
    "transports.zeromq.server_key",
}
"""Settings called for a key or token whose value is no file with a secret."""


def test_every_setting_with_a_secret_is_known() -> None:
    of_secrets = re.compile("key|token|secret|password|credentials|admitted|jwks")
    called = {".".join(place) for place in every_setting() if of_secrets.search(place[-1])}
    settings = {name for name in called if not re.search("keyless|(max|complex|expected)_tokens|_token_timeout", name)}
    assert settings - TEXTS == {name for name in FILES if "." in name} - {"lan.key"}
    assert all(is_secret(name.rpartition(".")[2]) for name in TEXTS & {"engine.api_key", "transports.http.token"})


@pytest.mark.parametrize("setting", FILES)
def test_a_file_with_a_secret_is_of_this_user_alone(setting: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    path, link = folder / "a secret", tmp_path / "link"
    use = FILES[setting](path)
    link.symlink_to(path)

    def refusal(where: Path) -> str:
        with pytest.raises(AnywireError) as refused:
            use(where)
        return str(refused.value)

    for mode in (0o600, 0o400):
        path.chmod(mode)
        use(path)
        use(link)
    for mode in (0o644, 0o640, 0o604, 0o660, 0o666):
        path.chmod(mode)
        assert f"run `chmod 600 '{path}'`" in refusal(path)
        assert f"run `chmod 600 {link}`" in refusal(link)
    path.chmod(0o600)
    folder.chmod(0o777)
    assert f"run `chmod o-w {folder}`" in refusal(path)
    folder.chmod(0o1777)
    use(path)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        assert f"belongs to another user: run `chown 0 '{path}'`" in refusal(path)
        assert "belongs to another user" in refusal(link)
        os.chown(folder, 12345, -1)
        use(path)  # root looks after the files of others


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files on to another group")
def test_root_looks_after_a_file_that_a_group_may_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, record_of(new_key()))
    os.chown(file, 0, 12345)
    file.chmod(0o640)
    add_key(file, record_of(new_key()))
    assert len(read_keys(file)) == 2
    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 12345, 0o640)
    file.chmod(0o660)
    with pytest.raises(AnywireError, match="others can read"):
        read_keys(file)
