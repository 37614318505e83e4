"""``anywire keys create``, ``list`` and ``revoke``, and which key a command shows to whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from tests.integration.test_cli import MEMORY, anywire, start
from typer.testing import CliRunner, Result

from anywire.access import Presented
from anywire.caller import Caller, Limits
from anywire.cli import app, doctor
from anywire.cli.asked_server import Server
from anywire.cli.fleet_records import FleetRecord, recording, running_fleets
from anywire.cli.meeting import Meeting
from anywire.cli.settle import OverTransports, target
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import MAX_KEYS, KeyRecord, change_keys, read_keys
from anywire.keys.key_text import read_key

__all__ = ["start"]  # a fixture

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user without configuration, and whose commands find no server that others have started. What the commands set
    up of the log is undone."""
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield tmp_path
    root.setLevel(level)
    root.handlers[:] = handlers


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def made(*arguments: str) -> KeyRecord:
    """The record of a key that is made with these options."""
    done = keys("create", *arguments)
    assert done.exit_code == 0, done.output
    key = read_key(done.stdout.removesuffix("\n"))
    assert key is not None, "standard output is the key and nothing else"
    assert key.secret not in done.stderr
    return read_keys(Path(arguments[1]))[key.id]


def test_a_key_has_the_limits_that_it_was_made_with(tmp_path: Path) -> None:
    file = str(tmp_path / "new" / "keys.json")
    before = int(time.time())
    record = made(
        *("--file", file, "--label", "Ann's", "--tenant", "lab", "--role", "observe", "--expires", "2w"),
        *("--model", "llama*", "--model", "m", "--max-priority", "-3", "--requests-per-minute", "60"),
        *("--concurrency", "4", "--tokens-per-day", "1000000"),
    )
    assert record.caller == Caller(record.id, "lab", "observe", Limits(("llama*", "m"), -3, 60, 4, 1_000_000))
    assert record.label == "Ann's"
    assert before <= record.expires - 14 * 86_400 <= time.time()
    bare = made("--file", file)
    assert bare.caller == Caller(bare.id, bare.id)
    assert (bare.expires, bare.revoked) == (0, 0)
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--role", "root"], "use, observe, operate"),
        (["--expires", "30"], "such as 30d"),
        (["--expires", "0d"], "such as 30d"),
        (["--expires", "999999999w"], "such as 30d"),
        (["--label", "a\nb"], "printable"),
        (["--tenant", "a" * 257], "printable"),
        (["--model", "\x1b"], "printable"),
        (["--concurrency", "0"], "greater than or equal to 1"),
        (["--max-priority", "1001"], "less than or equal to 1000"),
    ],
)
def test_what_no_key_may_have_is_refused(tmp_path: Path, arguments: list[str], why: str) -> None:
    done = keys("create", "--file", str(tmp_path / "keys.json"), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr
    assert not (tmp_path / "keys.json").exists()


def test_the_list_has_everything_but_what_is_secret(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    kept, gone = made("--file", file, "--tenant", "\x5b31m"), made("--file", file, "--concurrency", "2")
    whole = keys("create", "--file", file).stdout.strip()
    assert keys("revoke", "--file", file, gone.id, whole).exit_code == 0
    shown = {each["id"]: each for each in json.loads(keys("list", "--file", file, "--json").stdout)}
    assert [each["state"] for each in shown.values()] == ["active", "revoked", "revoked"]
    assert shown[gone.id]["limits"] == {"concurrency": 2}
    assert shown[kept.id]["tenant"] == "[31m"
    for output in (keys("list", "--file", file).stdout, json.dumps(shown)):
        for record in (kept, gone):
            assert record.id in output
            assert record.digest not in output
            assert record.public_key not in output
    unknown = keys("revoke", "--file", file, kept.id, "unknown")
    assert isinstance(unknown.exception, ConfigError)
    assert not read_keys(Path(file))[kept.id].revoked, "all or none"


def test_without_a_file_named_it_is_that_of_the_configuration_or_of_the_user(home: Path) -> None:
    keys("create", "--label", "user")
    assert [each.label for each in read_keys(home / "anywire" / "keys.json").values()] == ["user"]
    keys("create", "--label", "set", "--set", f"access.keys={home}/set.json")
    assert [each.label for each in read_keys(home / "set.json").values()] == ["set"]


def test_a_certificate_stands_for_a_key(tmp_path: Path) -> None:
    file, pem = tmp_path / "keys.json", tmp_path / "robot.pem"
    trustme.CA().issue_cert("robot").cert_chain_pems[0].write_to_path(str(pem))
    done = keys("create", "--file", str(file), "--certificate", str(pem), "--tenant", "robots")
    assert (done.exit_code, done.stdout) == (0, "")
    fingerprint = load_pem_x509_certificate(pem.read_bytes()).fingerprint(SHA256()).hex()
    assert KeyAccess(file).caller(Presented(certificate=fingerprint)).tenant == "robots"
    again = keys("create", "--file", str(file), "--certificate", str(pem))
    assert isinstance(again.exception, ConfigError)
    pem.write_text("no certificate")
    assert "form PEM" in str(keys("create", "--file", str(file), "--certificate", str(pem)).exception)
    assert "cannot be read" in str(keys("create", "--file", str(file), "--certificate", f"{pem}.old").exception)
    assert len(read_keys(file)) == 1


def test_doctor_looks_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made("--file", str(file))
    keys("revoke", "--file", str(file), made("--file", str(file)).id)
    assert asyncio.run(doctor._keys(file)).detail == f"{file} has 1 keys that count, and 1 that do no more"
    file.chmod(0o644)
    finding = asyncio.run(doctor._keys(file))
    assert not finding.ok
    assert "chmod 600" in finding.detail


async def test_doctor_knows_a_server_of_this_user_that_asks_for_a_certificate() -> None:
    """It hangs up on who shows none."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        config = Config.model_validate({"server": {"port": port}})
        assert not (await doctor._port(config, lambda each: each)).ok
        with recording() as tell:
            tell(FleetRecord("one", f"http://127.0.0.1:{port}"))
            assert "an Anywire server runs" in (await doctor._port(config, lambda each: each)).detail


def test_a_file_that_would_be_too_long_to_be_read_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    record = made("--file", str(file), *(each for number in range(8) for each in ("--model", f"{number:0250}")))
    before = file.read_bytes()
    for copies, why in ((MAX_KEYS, "longer"), (MAX_KEYS + 1, "no more are possible")):
        with pytest.raises(ConfigError, match=why):
            change_keys(file, lambda keys, copies=copies: [record] * copies)  # type: ignore[misc]
        assert file.read_bytes() == before


# Which key is shown


def asked(url: str | None = None, key: str | None = None, **options: Any) -> Server | OverTransports:
    names: dict[str, Any] = {"host": None, "port": None, "transports": None, "dds_domain": None}
    return target(Meeting(), url, key=key, **(names | options))


@contextlib.contextmanager
def an_own_server(key: str = "aw-own") -> Iterator[None]:
    with recording() as tell:
        met = {"zeromq": {"agent_addresses": ["tcp://127.0.0.1:1"], "client_addresses": ["tcp://127.0.0.1:2"]}}
        tell(FleetRecord("one", "http://127.0.0.1:8123", met, key=key))
        assert "aw-own" not in repr(running_fleets())
        yield


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (None, "aw-own"),
        ("http://127.0.0.1:8123", "aw-own"),
        ("127.0.0.1:8123/v1/", "aw-own"),
        ("https://127.0.0.1:8123", ""),
        ("http://127.0.0.1:8124", ""),
        ("http://localhost:8123", ""),
        ("http://[::1]:8123", ""),
        ("http://127.0.0.2:8123", ""),
        ("http://127.0.0.1:8123@example.org", ""),
        ("http://example.org:8123", ""),
        ("http://[::1", ""),
    ],
)
def test_the_key_of_this_run_goes_to_its_own_server_alone(url: str | None, key: str) -> None:
    with an_own_server():
        assert asked(url).key == key
        assert asked(url, key="aw-named").key == "aw-named"
        assert "aw-own" not in repr(asked(url))
    assert asked("http://127.0.0.1:8123").key == ""


def test_over_a_transport_the_key_goes_where_the_record_leads() -> None:
    with an_own_server():
        found = asked(transports=["zeromq"])
        assert isinstance(found, OverTransports)
        assert found.key == "aw-own"
        assert "aw-own" not in repr(found)
        elsewhere = ["transports.zeromq.client_addresses=tcp://127.0.0.1:3"]
        assert asked(transports=["zeromq"], settings=elsewhere).key == ""


def test_over_a_transport_no_key_goes_where_the_record_says_that_none_is_needed() -> None:
    """Its client would not be linked. ANYWIRE_API_KEY may be meant for another server."""
    with an_own_server(key=""):
        for key in ("aw-named", None):
            assert asked(transports=["zeromq"], key=key).key == ""
        assert asked(key="aw-named").key == "aw-named", "over HTTP it does no harm"
    assert (
        asked(transports=["zeromq"], settings=["transports.zeromq.client_addresses=tcp://h:1"], key="aw-n").key
        == "aw-n"
    )


def test_a_server_with_keys_lets_its_own_user_in_and_shows_no_secret(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = keys("create", "--file", str(file), "--tenant", "lab").stdout.strip()
    up = start("up", "--port", "0", *MEMORY, "--keys", str(file), "--log-level", "debug")
    (record,) = (each for each in running_fleets() if each.url == up.url)
    assert record.key != key
    (written,) = (each for each in (tmp_path / "anywire").glob("[0-9]*.json"))
    assert stat.S_IMODE(written.stat().st_mode) == 0o600

    assert anywire("agents", "--json").returncode == 0
    assert anywire("chat", "hello", "--max-tokens", "2", environment={"ANYWIRE_API_KEY": key}).returncode == 0
    wrong = anywire("chat", "hello", environment={"ANYWIRE_API_KEY": f"{key[:-1]}_"})
    assert wrong.returncode == 1
    assert "ANYWIRE_API_KEY" in wrong.stderr

    told = up.errors() + wrong.stderr + wrong.stdout + up.ready
    for process in psutil.process_iter(["cmdline"]):
        told += "\0".join(process.info["cmdline"] or ())
    for secret in (key, record.key):
        assert secret.split("-", 2)[-1] not in told
        assert read_key(secret).digest not in told  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["wide", "missing", "damaged"])
def test_a_server_does_not_start_with_a_file_that_is_no_good(tmp_path: Path, what: str) -> None:
    file = tmp_path / "keys.json"
    if what != "missing":
        keys("create", "--file", str(file))
    if what == "wide":
        file.chmod(0o644)
    elif what == "damaged":
        file.write_text("{")
    done = CliRunner().invoke(app, ["up", "--port", "0", *MEMORY, "--keys", str(file)])
    mends = {"wide": f"run `chmod 600 {file}`", "missing": f"anywire keys create --file {file}", "damaged": "a copy"}
    assert isinstance(done.exception, ConfigError)
    assert mends[what] in str(done.exception)
