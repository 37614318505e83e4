"""How commands of one user find what runs: records, ports that move, invite codes; and what is refused."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.finished_commands import commands, commands_end
from tests.long_form import SOAK

from anywire.cli import invite_codes, meeting
from anywire.cli.fleet_records import FleetRecord, recording, running_fleets
from anywire.cli.invite_codes import Invitation
from anywire.cli.meeting import Meeting
from anywire.config_layers import load
from anywire.errors import ConfigError
from anywire.files.private_files import kept_secret, private_folder, runtime_folder
from anywire.keys.key_text import new_key
from anywire.plugins import Plugins
from anywire.transport import Lan

pytestmark = pytest.mark.timeout(120)
__all__ = ["commands_end"]  # a fixture

TRANSPORTS = ["memory", "dds", "zeromq", "http", "grpc"] if SOAK else ["dds", "http"]
DIRECTORIES = ["zeromq", "http", "grpc"]


def anywire(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return commands.finished(arguments, os.environ | environment)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder in which nothing runs yet."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Any]:
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "anywire.cli", *arguments, "--log-level", "error"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def agents(*arguments: str) -> list[str]:
    done = anywire("agents", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [each["id"] for each in json.loads(done.stdout)]


# Several of one user


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_up_side_by_side_are_two_fleets(start: Any, home: Path, transport: str) -> None:
    fleets = {}
    for name in ("one", "two"):
        fleet = ["--fleet", name] if name == "one" else []
        _, ready = start("up", "-t", transport, "--engine", "synthetic", "--agent-id", name, *fleet)
        assert ready.startswith("ready: http://127.0.0.1:"), ready
        fleets[name] = ready.split()[1]
    assert fleets["one"] != fleets["two"]
    assert {name: agents("--url", url) for name, url in fleets.items()} == {"one": ["one-1"], "two": ["two-1"]}
    # Without more it is the newest that is asked; a name asks for another one.
    assert agents() == ["two-1"]
    assert agents("--fleet", "one") == ["one-1"]
    if transport != "memory":
        assert agents("-t", transport) == ["two-1"]


def test_an_agent_joins_what_runs_and_what_has_ended_is_forgotten(start: Any, home: Path) -> None:
    hub, _ = start("serve", "-t", "zeromq", "--port", "0")
    assert "serves" not in anywire("agents").stderr
    _, ready = start("agent", "--engine", "synthetic", "--agent-id", "a")
    assert ready.startswith("ready: agent a"), ready
    assert anywire("chat", "hello", "--max-tokens", "3").returncode == 0
    assert agents() == agents("-t", "zeromq") == ["a"]
    (file,) = (home / "anywire").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    os.kill(hub.pid, signal.SIGKILL)
    hub.wait()
    assert "no server answers at http://127.0.0.1:8080" in anywire("agents").stderr
    assert not list((home / "anywire").glob("*.json")), "it is of a process that has ended"


def test_the_record_ends_with_its_process(start: Any, home: Path) -> None:
    up, _ = start("up", "-t", "memory", "--engine", "synthetic")
    assert len(running_fleets()) == 1
    up.terminate()
    up.wait()
    assert not list((home / "anywire").iterdir())


# Records


def test_of_several_the_newest_comes_first_and_a_file_without_its_process_is_removed(home: Path) -> None:
    with recording() as tell:
        tell(FleetRecord("one"))
        tell(FleetRecord("one", "http://127.0.0.1:1"))
        stale = home / "anywire" / "1.json"
        stale.write_text('{"fleet": "stale"}')
        odd = home / "anywire" / "2.json"
        odd.write_text("nonsense")
        assert [(each.fleet, each.url) for each in running_fleets()] == [("one", "http://127.0.0.1:1")]
        assert not stale.exists()
        assert not odd.exists()
    assert running_fleets() == []


@pytest.mark.parametrize("what", ["open", "link", "file"])
def test_a_folder_that_others_could_write_to_is_not_used(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder, real = tmp_path / "anywire", tmp_path / "real"
    real.mkdir(mode=0o700)
    if what == "open":
        folder.mkdir()
        folder.chmod(0o770)
    elif what == "link":
        folder.symlink_to(real)
    else:
        folder.write_text("")
    with pytest.raises(ConfigError, match="this user alone"):
        runtime_folder()
    with recording() as tell:
        tell(FleetRecord("one"))
    assert "will not find this orchestrator" in caplog.text
    assert running_fleets() == []


def test_without_a_runtime_folder_it_is_one_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert runtime_folder() == tmp_path / f"anywire-{os.getuid()}"
    assert private_folder(runtime_folder()).stat().st_mode & 0o777 == 0o700


def test_the_key_of_a_fleet_stays_and_is_refused_when_others_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lan.key"
    secret = kept_secret(path)
    assert (len(secret), kept_secret(path), path.stat().st_mode & 0o777) == (64, secret, 0o600)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read") as caught:
        kept_secret(path)
    assert secret not in str(caught.value)


# Ports


@pytest.mark.parametrize("transport", DIRECTORIES)
def test_a_port_that_was_named_and_is_taken_names_its_setting(home: Path, transport: str) -> None:
    scheme = {"zeromq": "tcp://", "http": "http://", "grpc": ""}[transport]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for plane in ("agent", "client"):
            key = f"transports.{transport}.{plane}_addresses"
            done = anywire("serve", "--port", "0", "-t", transport, "--set", f"{key}={scheme}127.0.0.1:{port}")
            assert done.returncode == 1
            assert key in done.stderr
            assert str(port) in done.stderr


def test_a_gateway_port_that_was_named_and_is_taken_names_its_setting(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = anywire("up", "-t", "memory", "--engine", "synthetic", "--port", str(port))
        assert (done.returncode, "server.port (--port" in done.stderr) == (1, True), done.stderr


def test_ready_names_a_port_that_has_moved(start: Any, home: Path) -> None:
    with contextlib.ExitStack() as stack:
        for port in (8080, 5560, 5561):
            with contextlib.suppress(OSError):  # somebody else has it: as good
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        _, ready = start("serve", "-t", "zeromq")
        (record,) = running_fleets()
        (address,) = record.transports["zeromq"]["agent_addresses"]
        assert ready == f"ready: {record.url} (zeromq at {address})"
        assert not record.url.endswith(":8080")
        assert not address.endswith(":5560")


# Invite codes

INVITATION = Invitation(
    "blue", {"grpc": {"agent_addresses": ["10.0.0.1:1"], "token": "secret" * 8}}, "http://10.0.0.1:2"
)


def test_a_code_says_what_was_put_in() -> None:
    assert invite_codes.decode(f"  {invite_codes.encode(INVITATION)}\n") == INVITATION


@given(st.integers(0), st.integers(0), st.text(max_size=3))
def test_a_code_that_was_changed_is_refused_and_not_repeated(start: int, length: int, other: str) -> None:
    code = invite_codes.encode(INVITATION)
    start %= len(code)
    changed = code[:start] + other + code[start + length % 8 :]
    if changed.strip() == code:
        return
    with pytest.raises(ConfigError, match="invite code") as caught:
        invite_codes.decode(changed)
    assert len(changed) < 20 or changed not in str(caught.value)


def test_a_code_that_unpacks_to_more_than_it_may_is_refused() -> None:
    large = invite_codes.encode(Invitation("x" * 1_000_000, {}))
    assert len(large) < 5000
    with pytest.raises(ConfigError, match="damaged"):
        invite_codes.decode(large)
    with pytest.raises(ConfigError, match="damaged"):
        invite_codes.decode("aw2-" + base64.urlsafe_b64encode(b"\0" * 40).decode())


def test_a_code_that_is_nested_without_end_is_refused() -> None:
    data = zlib.compress(b'{"fleet":"x","transports":{"http":{"x":' + b"[" * 60_000)
    packed = hashlib.sha256(data).digest()[:4] + data
    with pytest.raises(ConfigError, match="damaged"):
        invite_codes.decode("aw2-" + base64.urlsafe_b64encode(packed).decode())


def test_a_code_of_before_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match=r"of an older Anywire.*print a new one with `anywire invite`") as caught:
        invite_codes.decode("aw1-c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)


def test_a_code_can_be_pasted_and_its_repr_shows_no_secret() -> None:
    both = {"agent_addresses": ["10.77.1.1:50051"], "client_addresses": ["10.77.1.1:50051"], "token": "5b" * 32}
    full = Invitation("blue", {"grpc": both}, "http://10.77.1.1:8080", "", "", str(new_key()), "SHA256:" + "x" * 43)
    assert len(invite_codes.encode(full)) < 600
    assert full.key not in repr(full)
    assert "5b5b" not in repr(full)


@pytest.mark.parametrize("command", [["agent"], ["chat", "hi"], ["agents"], ["watch", "--once"], ["tasks"], ["doctor"]])
def test_a_bad_code_is_refused_in_one_line(home: Path, command: list[str]) -> None:
    code = invite_codes.encode(INVITATION)[:-3]
    for how in ({"ANYWIRE_INVITE": code}, {}):
        done = anywire(*command, *([] if how else ["--invite", code]), **how)
        assert done.returncode == 1
        assert "error: this invite code is damaged" in done.stderr
        assert code not in done.stderr + done.stdout
        assert len(done.stderr.strip().splitlines()) == 1


# Options that do not go together


@pytest.mark.parametrize(
    "command", [["serve"], ["up"], ["agent"], ["chat", "hi"], ["agents"], ["watch"], ["tasks"], ["doctor"]]
)
def test_lan_needs_the_name_of_a_fleet(home: Path, command: list[str]) -> None:
    done = anywire(*command, "--lan")
    assert done.returncode == 2
    assert "--lan" in done.stderr
    assert "--fleet NAME" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serve", "--fleet", "a/b"], 2, "--fleet"),
        (["agent", "--fleet", "a", "--invite", "x"], 2, "--invite"),
        (["agent", "--fleet", "nobody", "-t", "zeromq"], 1, "called nobody"),
        (["agent", "--fleet", "a", "--lan", "-t", "http"], 1, "found by its address"),
        (["agents", "--fleet", "nobody"], 1, "no fleet nobody of yours runs"),
        (["chat", "hi", "-t", "grpc"], 1, "no orchestrator of yours"),
        (["invite"], 1, "--lan --fleet NAME"),
        (["invite", "--role", "king"], 2, "expected one of use, observe, operate"),
        (["invite", "--expires", "soon"], 2, "--expires"),
        (["agent", "--invite", invite_codes.encode(INVITATION), "-t", "zeromq"], 1, "name one of grpc"),
        (["agent", "--invite", invite_codes.encode(Invitation("x", {"pigeon": {}}))], 1, "not installed here: pigeon"),
    ],
)
def test_what_does_not_go_together_is_said(home: Path, arguments: list[str], code: int, says: str) -> None:
    done = anywire(*arguments)
    assert done.returncode == code
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


# What --lan sets, without a network


@pytest.mark.parametrize("transport", DIRECTORIES)
def test_lan_protects_what_it_opens_and_leaves_what_was_named(transport: str) -> None:
    cls = Plugins().load("transports", transport)
    lan = Lan("blue", "5" * 64, "0.0.0.0")
    found = cls.lan_options({}, lan)
    assert cls.lan_options({}, lan) == found, "the same at every start"
    assert "0.0.0.0" in found["agent_addresses"][0]
    secret = found.get("token") or found["secret_key"]
    assert secret
    assert cls.lan_options({}, lan._replace(secret="6" * 64)) != found
    key = "token" if "token" in found else "secret_key"
    own = cls.lan_options({"agent_addresses": ["x"], key: "mine"}, lan)
    assert not {"agent_addresses", key} & own.keys()
    cls.Config(**found)
    shared = {"token", "secret_key", "server_key", "allowed_keys"}
    assert not shared & cls.lan_options({}, lan._replace(secret="")).keys()


def test_options_of_a_file_win_over_a_record(home: Path) -> None:
    plugins = Plugins()
    with recording() as tell:
        tell(FleetRecord("one", transports={"dds": {"domain": 9, "fleet": "one", "interface": "127.0.0.1"}}))
        for settings, wanted in (
            ({}, {"domain": 9, "fleet": "one", "interface": "127.0.0.1"}),
            ({"transports.dds.lease": 3}, {"domain": 9, "fleet": "one", "interface": "127.0.0.1", "lease": 3}),
            ({"transports.dds.domain": 4}, {"domain": 4}),
        ):
            config = load(settings=settings, environment={})
            joined = meeting.joining(config, plugins, Meeting(), bool(settings))
            choice = joined.transport("dds")
            assert choice is not None
            assert choice.options == wanted


def test_a_private_fleet_is_one_of_its_own_each_time(home: Path) -> None:
    plugins, config = Plugins(), load(environment={})
    fleets = {meeting.serving(config, plugins, Meeting(), apart=True).fleet for _ in range(3)}
    assert len(fleets) == 3
    named = meeting.serving(config, plugins, Meeting("blue"), apart=True)
    assert named.fleet == "blue"
    with pytest.raises(typer.BadParameter, match="--fleet NAME"):
        meeting.serving(config, plugins, Meeting(lan=True))
