"""The service ``audit`` beside an orchestrator: what it writes, what it never writes, and that it holds nothing up."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from tests.patience import PATIENCE
from typer.testing import CliRunner

from anywire import errors, events
from anywire.access import Presented
from anywire.caller import Caller
from anywire.config_layers import load
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import KeyText, new_key
from anywire.plugins import Plugins
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.stop import Stop
from anywire.roles.told_access import told_access
from anywire.route import Response
from anywire.testing.doubles import Script
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_audit.chain import Record, read
from anywire_service_audit.cli import app
from anywire_service_audit.config import AuditConfig
from anywire_service_audit.folder import log_files
from anywire_service_audit.service import Audit
from anywire_service_audit.told import MAX_OF_ACTION, MAX_OF_ONE
from anywire_service_audit.verify import verify_below

OPERATOR = Caller("key-1", "lab", "operate")
SECRETS = [f"planted-{place}-8d21" for place in ("text", "token", "argument", "reason", "session", "answer")]
TEXT, TOKEN, ARGUMENT, REASON, SESSION, ANSWER = SECRETS


class TestAudit(ServiceConformance):
    service = "audit"

    def make(self) -> Audit:
        return Audit(AuditConfig(tasks=True, required=True))


def records(folder: Path) -> list[Record]:
    lines = [line for _, path in log_files(folder) for line in path.read_bytes().splitlines()]
    return [found[0] for line in lines if (found := read(line)) is not None]


def told(folder: Path, *actions: str) -> list[Record]:
    return [record for record in records(folder) if record.action.startswith(actions)]


def audit(folder: Path, **settings: Any) -> Audit:
    return Audit(AuditConfig(folder=folder / "log", **settings))


def command(bench: ServiceBench, caller: Caller = OPERATOR, name: str = "count", **arguments: Any) -> Any:
    return bench.orchestrator.command(["agent"], name, arguments, caller=caller)


class NoKeys:
    """Access that lets nobody in."""

    needs_key = True

    def caller(self, presented: Presented) -> Caller:
        raise errors.Unauthenticated("no such key")

    def still(self, caller: Caller) -> Caller | None:
        return None

    def listen(self, gone: Any) -> Any:
        return lambda: None


def knock(bench: ServiceBench, peer: str) -> None:
    access = told_access(NoKeys(), bench.orchestrator.events)
    with pytest.raises(errors.Unauthenticated):
        access.caller(Presented(token=TOKEN, peer=peer))


async def test_orders_are_written_with_who_gave_them_and_why(tmp_path: Path) -> None:
    async with service_bench(audit(tmp_path), state=tmp_path) as bench:
        order = bench.orchestrator.order_agent
        order("agent", "drained", "new disk", OPERATOR)
        order("agent", "isolated", "wrong answers", Caller("key-2", "", "operate"))
        order("agent", "", "", OPERATOR)
        with pytest.raises(errors.Forbidden):
            order("agent", "drained", "mine", Caller("key-3", "lab", "observe"))
    written = told(tmp_path / "log", "agent.drained", "agent.isolated", "agent.restored")
    assert [
        (each.action, each.target, each.actor.id, each.actor.tenant, each.detail["reason"]) for each in written
    ] == [
        ("agent.drained", "agent", "key-1", "lab", "new disk"),
        ("agent.isolated", "agent", "key-2", "", "wrong answers"),
        ("agent.restored", "agent", "key-1", "lab", ""),
    ]
    assert {each.actor.role for each in written} == {"operate"}


async def test_who_did_what_is_written_and_verified(tmp_path: Path) -> None:
    other, folder = Caller("key-2", "other"), tmp_path / "log"
    async with service_bench(audit(tmp_path), state=tmp_path) as bench:
        assert [each async for each in command(bench, count=1)] == [0]
        with pytest.raises(errors.Forbidden):
            command(bench, Caller("key-3", "lab", "observe"))
        own = bench.submit(Script("own", hold_after=0).body(), caller=other)
        taken = bench.submit(Script("taken", hold_after=0).body(), caller=other)
        assert bench.orchestrator.cancel(own.task_id, REASON, other)
        assert bench.orchestrator.cancel(taken.task_id, REASON, OPERATOR)
        knock(bench, "10.0.0.1")
        publish = bench.orchestrator.events.publish
        publish(events.KeyChanged, key_id="abc", state="created", key_tenant="lab", key_role="use")
        publish(events.KeyChanged, key_id="abc", state="expired", key_tenant="lab", key_role="use")
        publish(events.AdmissionChanged, fingerprint="SHA256:x", end="agent", state="admitted", end_id="a")
        publish(events.AdmissionChanged, fingerprint="SHA256:y", end="orchestrator", state="refused", reason="unknown")
        publish(events.ConfigReloaded, what="certificate")
        await bench.agent.close()
    (found,) = verify_below(folder)
    assert (found.fault, found.closed, found.is_written) == (None, True, False)
    user = f"uid:{os.getuid()}"
    assert [(each.action, each.actor.id, each.actor.role, each.target, each.outcome) for each in records(folder)] == [
        ("log.begun", "", "", "", "ok"),
        ("log.opened", "", "", "", "ok"),
        ("orchestrator.started", "", "", bench.orchestrator.info.hub_id, "ok"),
        ("agent.joined", "", "", "agent", "ok"),
        ("command.begun", "key-1", "operate", "agent", "begun"),
        ("command.ended", "key-1", "operate", "agent", "ok"),
        ("command.ended", "key-3", "observe", "agent", "forbidden"),
        ("task.cancelled", "key-1", "operate", taken.task_id, "ok"),
        ("access.refused", "", "", "", "refused"),
        ("key.created", user, "operate", "abc", "ok"),
        ("key.expired", "", "", "abc", "ok"),
        ("admission.admitted", user, "operate", "SHA256:x", "ok"),
        ("admission.refused", "", "", "SHA256:y", "refused"),
        ("config.reloaded", "", "", "certificate", "ok"),
        ("agent.lost", "", "", "agent", "ok"),
        ("orchestrator.closing", "", "", bench.orchestrator.info.hub_id, "ok"),
        ("orchestrator.closed", "", "", bench.orchestrator.info.hub_id, "ok"),
        ("log.closed", "", "", "", "ok"),
    ]
    (cancelled,) = told(folder, "task.cancelled")
    assert cancelled.detail == {"owner": "key-2", "owner_tenant": "other"}
    (refused,) = told(folder, "access.refused")
    assert refused.detail == {"peer": "10.0.0.1", "presented": "token", "reason": "no such key"}


@pytest.mark.parametrize("required", [False, True])
async def test_no_text_and_no_secret_is_written(tmp_path: Path, caplog: Any, required: bool) -> None:
    caplog.set_level("DEBUG", "anywire_service_audit")
    service = audit(tmp_path, tasks=True, required=required, key_file=tmp_path / "audit.key")
    async with service_bench(service, state=tmp_path) as bench:
        for stream in (True, False):
            body = msgspec.json.encode({**msgspec.to_builtins(Script(ANSWER, 3)), "messages": TEXT}).decode()
            await bench.ask(body, stream=stream, caller=Caller("key-2", "other"))
        with pytest.raises(errors.EngineFailed):
            await bench.ask(Script(TEXT, fail_after=0).body(), caller=OPERATOR)
        assert [each async for each in command(bench, count=1, token=ARGUMENT)] == [0]
        held = bench.submit(Script(TEXT, hold_after=0).body(), caller=OPERATOR)
        assert bench.orchestrator.cancel(held.task_id, REASON, Caller("key-3", "", "operate"))
        knock(bench, "10.0.0.1")
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir()).decode()
    key = (tmp_path / "audit.key").read_text().strip()
    for secret in (*SECRETS, key):
        assert secret not in written
        assert secret not in caplog.text
        assert secret not in repr(service.config)
    tasks = told(tmp_path / "log", "task.ended")
    assert [(each.actor.id, each.actor.tenant, each.outcome) for each in tasks] == [
        ("key-2", "other", "ok"),
        ("key-2", "other", "ok"),
        ("key-1", "lab", "engine_failed"),
        ("key-1", "lab", "cancelled"),
    ]
    assert set(tasks[0].detail) == {
        "kind", "model", "agent", "attempts", "prompt_chars", "prompt_tokens", "tokens", "ms"
    }  # fmt: skip
    assert len(told(tmp_path / "log", "command.begun")) == 1
    (found,) = verify_below(tmp_path / "log", key=key.encode())
    assert found.fault is None


async def test_without_the_setting_no_task_is_written(tmp_path: Path) -> None:
    async with service_bench(audit(tmp_path), state=tmp_path) as bench:
        await bench.ask()
    assert told(tmp_path / "log", "task.") == []


async def test_strangers_cannot_fill_the_log(tmp_path: Path) -> None:
    async with service_bench(audit(tmp_path), state=tmp_path) as bench:
        for _ in range(50):
            knock(bench, "10.0.0.1")
        for number in range(500):
            knock(bench, f"10.0.1.{number}")
    refused = told(tmp_path / "log", "access.refused")
    written = [each for each in refused if each.outcome == "refused"]
    assert len(written) == MAX_OF_ACTION["access.refused"]
    assert sum(each.detail["peer"] == "10.0.0.1" for each in written) == MAX_OF_ONE
    assert sum(each.detail["count"] for each in refused if each.outcome == "left out") == 550 - len(written)


class FullDisk:
    """Lets nothing be written while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self._write = True, os.write
        monkeypatch.setattr("anywire_service_audit.journal.os.write", self)

    def __call__(self, file: int, data: bytes) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return self._write(file, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


async def shown(bench: ServiceBench) -> dict[str, Any]:
    answer = await bench.call("GET", "/audit")
    assert isinstance(answer, Response)
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def test_on_a_full_disk_tasks_go_on_and_what_waits_is_written_later(
    tmp_path: Path, disk: FullDisk, caplog: Any
) -> None:
    async with service_bench(audit(tmp_path, tasks=True), state=tmp_path) as bench:  # it is full from the start
        for _ in range(20):
            await bench.ask()
            assert [each async for each in command(bench, count=1)] == [0]
        status = await shown(bench)
        assert "No space left" in status["error"]
        assert status["waiting"] > 40
        assert [record.getMessage() for record in caplog.records if "cannot be written" in record.msg] == [
            "the audit log cannot be written, entries wait: [Errno 28] No space left on device"
        ], "it is logged once"
        disk.full = False
    assert len(told(tmp_path / "log", "task.ended")) == 20
    assert len(told(tmp_path / "log", "command.")) == 40
    assert verify_below(tmp_path / "log")[0].fault is None


async def test_what_does_not_fit_is_counted_and_the_count_is_written(
    tmp_path: Path, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anywire_service_audit.writer.MAX_WAITING", 10)
    async with service_bench(audit(tmp_path, tasks=True), state=tmp_path) as bench:
        for _ in range(30):
            await bench.ask()
        assert (await shown(bench))["waiting"] <= 10
        lost = (await shown(bench))["lost"]
        assert lost > 20
        disk.full = False
    (entry,) = told(tmp_path / "log", "log.lost")
    assert entry.detail["count"] >= lost
    assert verify_below(tmp_path / "log")[0].fault is None


async def test_where_the_log_is_required_commands_are_refused_and_tasks_go_on(tmp_path: Path, disk: FullDisk) -> None:
    disk.full = False
    async with service_bench(audit(tmp_path, required=True), state=tmp_path) as bench:
        assert [each async for each in command(bench, count=1)] == [0]
        written = told(tmp_path / "log", "command.begun")
        assert len(written) == 1, "it is on the disk before it is sent"
        disk.full = True
        with pytest.raises(errors.PluginFailed, match="the command count is refused: the audit log cannot be written"):
            await anext(command(bench, count=1))
        await bench.ask()
        engine: Any = bench.agent.engine
        assert len(engine.recorder.named("command")) == 1
        disk.full = False
        assert [each async for each in command(bench, count=1)] == [0]
        assert not bench.orchestrator.boundary.failures
    ended = told(tmp_path / "log", "command.ended")
    assert [each.outcome for each in ended] == ["ok", "plugin_failed", "ok"]


async def test_where_the_log_is_required_nothing_starts_without_it(tmp_path: Path, disk: FullDisk) -> None:
    with pytest.raises(errors.ConfigError, match=r"the audit log in .* cannot be written: .*No space left"):
        async with service_bench(audit(tmp_path, required=True), state=tmp_path):
            pass


async def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o755)
    with pytest.raises(errors.ConfigError, match=f"chmod 700 {tmp_path / 'log'}"):
        async with service_bench(audit(tmp_path), state=tmp_path):
            pass


async def test_a_slow_disk_holds_no_task_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    go_on = Event()
    async with service_bench(audit(tmp_path, tasks=True), state=tmp_path) as bench:
        with monkeypatch.context() as slow:
            slow.setattr("anywire_service_audit.journal.os.fdatasync", lambda file: go_on.wait())
            for _ in range(5):
                await expect(bench.ask(), "an answer")
            assert (await shown(bench))["waiting"] >= 4
            go_on.set()
    assert len(told(tmp_path / "log", "task.ended")) == 5


# The command line


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


async def test_the_commands_verify_and_show(tmp_path: Path) -> None:
    folder = str(tmp_path / "log")
    async with service_bench(audit(tmp_path, tasks=True), state=tmp_path) as bench:
        assert [each async for each in command(bench, count=1)] == [0]
        await bench.ask(caller=Caller("key-2", "other"))
        head = (await shown(bench))["hash"]
        code, said = run("verify", folder)
        assert code == 0
        assert "unbroken" in said
    code, said = run("verify", folder, "--head", head, "--json")
    assert (code, json.loads(said)["fault"], json.loads(said)["closed"]) == (0, None, True)
    code, said = run("show", folder, "--action", "command.*", "--actor", "key-1")
    assert code == 0
    assert [line.split("  ")[2] for line in said.splitlines()] == ["command.begun", "command.ended"]
    assert "by key-1 tenant lab operate" in said
    code, said = run("show", folder, "--tenant", "other", "--json")
    assert [json.loads(line)["action"] for line in said.splitlines()] == ["task.ended"]
    code, said = run("show", folder, "--last", "1")
    assert "log.closed" in said
    assert len(said.splitlines()) == 1
    assert run("show", folder, "--until", "2020-01-01")[1] == ""
    assert run("show", folder, "--since", "2020-01-01")[1] == run("show", folder)[1] != ""
    path = tmp_path / "log" / "audit-000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"key-1", b"key-9", 1))
    code, said = run("verify", folder)
    assert code == 1
    assert "broken at audit-000001.jsonl line 5: its hash is another one" in said
    assert run("verify", str(tmp_path / "nothing"))[0] == 1
    assert isinstance(CliRunner().invoke(app, ["show", folder, "--since", "soon"]).exception, errors.ConfigError)


async def test_an_orchestrator_with_keys_is_audited(tmp_path: Path) -> None:
    """From the files and over HTTP, as an operator and a stranger do it."""
    keys = tmp_path / "keys.json"
    operator, user = new_key(), new_key()
    add_key(keys, record_of(operator, tenant="lab", role="operate"))
    add_key(keys, record_of(user, tenant="other"))
    settings = {
        "transports": [{"memory": {"network": f"audit-{uuid4()}"}}],
        "engine": "synthetic",
        "server": {"port": 0},
        "access": {"keys": str(keys)},
        "services": [{"audit": {"folder": str(tmp_path / "log"), "tasks": True}}],
        "gateways": ["openai"],
    }
    plugins = Plugins()
    async with running(load(flags=settings, environment={}), plugins, Stop()) as served:
        revoked = asyncio.Event()
        served.orchestrator.events.subscribe("revoked", lambda event: revoked.set(), events.KeyChanged)
        async with httpx.AsyncClient(base_url=served.address, timeout=PATIENCE) as client:

            def by(key: KeyText) -> dict[str, str]:
                return {"Authorization": f"Bearer {key}"}

            body = {"model": "synthetic", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 2}
            assert (await client.post("/v1/chat/completions", json=body, headers=by(user))).status_code == 200
            assert (await client.post("/v1/chat/completions", json=body, headers=by(new_key()))).status_code == 401
            assert (await client.get("/v1/audit", headers=by(user))).status_code == 403
            found = await client.get("/v1/audit", headers=by(operator))
            assert (found.status_code, found.json()["error"], found.json()["lost"]) == (200, "", 0)
            revoke_keys(keys, [user.id])
            await expect(revoked.wait(), "the key is revoked")
            assert (await client.post("/v1/chat/completions", json=body, headers=by(user))).status_code == 401
    assert verify_below(tmp_path / "log")[0].fault is None
    assert [each.outcome for each in told(tmp_path / "log", "access.refused")] == ["refused", "refused"]
    (task,) = told(tmp_path / "log", "task.ended")
    assert (task.actor.id, task.actor.tenant, task.outcome) == (user.id, "other", "ok")
    (gone,) = told(tmp_path / "log", "key.revoked")
    assert (gone.target, gone.detail) == (user.id, {"tenant": "other", "role": "use"})
    written = (tmp_path / "log" / "audit-000001.jsonl").read_text()
    for secret in (TEXT, operator.secret, user.secret):
        assert secret not in written
