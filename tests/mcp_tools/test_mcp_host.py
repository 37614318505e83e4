"""The owner of MCP servers with real processes: they start, are called, end, and nothing of them is left."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
import sys
import textwrap
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from tests.long_form import examples
from tests.mcp_tools.servers import HERE, http_server, owner, plain, real, until
from tests.models.logged import texts

from anywire.errors import AnywireError, EngineFailed, InvalidRequest, ModelStopped, ShuttingDown
from anywire.testing.patience import FACTOR, PATIENCE, expect, polled
from anywire_engine_mcp.connection import questions
from anywire_engine_mcp.host import McpChanged, McpHost, ToolFault
from anywire_engine_mcp.server_config import ServerConfig

LAZY: Any = {"autostart": False}


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


async def error_of(awaited: Awaitable[Any]) -> AnywireError:
    with pytest.raises(AnywireError) as caught:
        await expect(awaited, "it is refused")
    return caught.value


async def test_a_server_starts_with_its_host_is_called_and_ends_with_it() -> None:
    before = children()
    states: list[str] = []
    async with owner(maths=plain()) as host:
        host.listen(lambda change: states.append(change.status.state))
        status = await until(host, "maths", "running")
        assert status.transport == "stdio"
        assert status.protocol == "2025-11-25"
        assert "add" in [each.name for each in status.tools]
        result = await host.call("maths", "add", {"a": 2, "b": 3})
        assert (result.text, result.is_error) == ("5", False)
        failed = await host.call("maths", "fail", {})
        assert (failed.text, failed.is_error) == ("it went wrong", True)
        assert host.status("maths").calls == 2
        pid = host.status("maths").pid
        assert psutil.pid_exists(pid)
        assert await texts(host.logs("maths")) == ["ready to listen"]
    assert is_gone(pid)
    assert children() <= before
    assert states[-1] == "stopped"
    assert isinstance(await error_of(host.call("maths", "add", {"a": 1, "b": 1})), ShuttingDown)


async def test_the_sdks_own_server_over_stdin_and_stdout() -> None:
    async with owner(measures=real(restart="never", on_demand=False)) as host:
        status = await until(host, "measures", "running")
        assert status.protocol >= "2026"
        tools = {each.name: each for each in status.tools}
        assert tools["temperature"].read_only
        assert not tools["add"].read_only
        assert tools["add"].schema["required"] == ["a", "b"]
        assert (await host.call("measures", "temperature", {"room": "lab"})).text == "lab: 21.5 degrees"
        added = await host.call("measures", "add", {"a": 1, "b": 2})
        assert (added.text, added.structured) == ("3", {"result": 3})
        broken = await host.call("measures", "broken", {})
        assert broken.is_error
        assert "the sensor is broken" in broken.text
        (note,) = await host.resources("measures")
        assert (await host.read("measures", note["uri"]))[0]["text"] == "hello from a resource"
        failure = await error_of(host.call("measures", "end", {}))
        assert isinstance(failure, EngineFailed)
        assert failure.status == 424
        assert "ended during the call" in str(failure)
        ending = (await until(host, "measures", "crashed")).exit
        assert ending is not None
        assert ending.code == 7


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_the_sdks_own_server_over_http(protocol: Any) -> None:
    async with http_server() as http, owner(measures=ServerConfig(url=http.url, protocol=protocol)) as host:
        status = await until(host, "measures", "running")
        assert (status.transport, status.pid) == ("http", 0)
        assert (status.protocol >= "2026") == (protocol == "auto")
        results = await asyncio.gather(*[host.call("measures", "add", {"a": n, "b": n}) for n in range(20)])
        assert [each.text for each in results] == [str(2 * n) for n in range(20)]
        await http.down()
        failure = await error_of(host.call("measures", "add", {"a": 1, "b": 1}))
        assert isinstance(failure, EngineFailed | ToolFault)
        await http.up()

        async def answers() -> None:
            while True:
                try:
                    assert (await host.call("measures", "add", {"a": 1, "b": 1})).text == "2"
                    return
                except (EngineFailed, ToolFault):
                    await asyncio.sleep(0.05)  # until it is connected again

        await expect(answers(), "it is connected again")


async def test_a_server_that_is_stopped_is_started_by_a_call_if_it_may() -> None:
    async with owner(lazy=plain(**LAZY), strict=plain(on_demand=False, **LAZY)) as host:
        assert [each.state for each in host.list()] == ["stopped", "stopped"]
        assert (await host.call("lazy", "add", {"a": 1, "b": 1})).text == "2"
        refused = await error_of(host.call("strict", "add", {"a": 1, "b": 1}))
        assert isinstance(refused, ModelStopped)
        assert "anywire mcp start strict" in str(refused)
        await host.connect("strict")
        assert (await host.call("strict", "add", {"a": 1, "b": 1})).text == "2"
        assert (await host.disconnect("strict")).state == "stopped"
        assert host.status("strict").tools, "what it had is still known"


async def test_many_calls_at_once_share_one_process() -> None:
    async with owner(lazy=plain(parallel=4, **LAZY)) as host:
        results = await asyncio.gather(*[host.call("lazy", "add", {"a": n, "b": 1}) for n in range(50)])
        assert [each.text for each in results] == [str(n + 1) for n in range(50)]
        assert host.status("lazy").starts == 1


async def test_what_is_not_there_is_said() -> None:
    async with owner(files=plain(allowed_tools=("add", "gone"), **LAZY)) as host:
        assert "did you mean 'files'?" in str(await error_of(host.call("file", "add", {})))
        assert "did you mean" not in str(await error_of(host.call("zzz", "add", {})))
        assert isinstance(await error_of(host.connect("other")), InvalidRequest)
        assert "may not be used here" in str(await error_of(host.call("files", "echo", {})))
        assert "has no tool 'gone'" in str(await error_of(host.call("files", "gone", {})))
        assert [each.name for each in await host.tools("files")] == ["add"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ServerConfig(command="/nonexistent/program"), "no program /nonexistent/program"),
        (ServerConfig(command="nonexistent-program"), "no program nonexistent-program on the PATH"),
        (ServerConfig(command=sys.executable, cwd=Path("/nonexistent/folder")), "the folder /nonexistent/folder"),
        (ServerConfig(command="a", env={"A": "${NOT_SET_AT_ALL}"}), "NOT_SET_AT_ALL is not set"),
        (ServerConfig(url="http://127.0.0.1:9/mcp"), "http://127.0.0.1:9/mcp cannot be used"),
        (plain("--exit", "5"), "exited with status 5"),
        (plain("--never", start_timeout=0.3), "not ready after 0.3 s"),
    ],
)
async def test_a_server_that_does_not_start_says_why_and_harms_no_other(config: ServerConfig, words: str) -> None:
    before = children()
    config = config.model_copy(update={"autostart": False, "restart": "never"})
    async with owner(bad=config, good=plain(**LAZY)) as host:
        bad, good = await asyncio.gather(
            error_of(host.connect("bad")), expect(host.call("good", "add", {"a": 1, "b": 1}), "the other one answers")
        )
        assert isinstance(bad, EngineFailed)
        assert bad.status == 424
        assert words in str(bad)
        assert good.text == "2"
        status = host.status("bad")
        assert status.state == "crashed"
        if "--exit" in config.command:
            assert status.exit is not None
            assert status.exit.code == 5
            assert status.exit.lines == ("first line", "last line")
        assert len(children() - before) == 2, "the good one and its guardian"


async def test_a_server_that_is_killed_is_told_at_once_and_started_again() -> None:
    async with owner(files=plain()) as host:
        pid = (await until(host, "files", "running")).pid
        hanging = asyncio.create_task(host.call("files", "hang", {}))
        await polled(lambda: host.status("files").serving == 1, "the call is under way")
        os.kill(pid, signal.SIGKILL)
        failure = await error_of(hanging)
        assert isinstance(failure, EngineFailed)
        assert "anywire mcp logs files" in str(failure)
        await polled(lambda: host.status("files").pid not in (0, pid), "it is started again")
        await until(host, "files", "running")
        assert (await host.call("files", "add", {"a": 1, "b": 1})).text == "2"


async def test_a_server_that_crashes_in_a_call_leaves_its_last_lines() -> None:
    async with owner(files=plain(restart="never", on_demand=False)) as host:
        await until(host, "files", "running")
        assert isinstance(await error_of(host.call("files", "crash", {})), EngineFailed)
        status = await until(host, "files", "crashed")
        assert status.exit is not None
        assert (status.exit.code, status.exit.lines[-1]) == (3, "about to crash")


async def test_a_call_that_takes_too_long_is_given_up_and_the_server_goes_on() -> None:
    async with owner(files=plain(timeout=0.2)) as host:
        with pytest.raises(ToolFault, match=r"the tool hang did not answer within 0\.2 s"):
            await host.call("files", "hang", {})
        with pytest.raises(ToolFault, match=r"within 0\.1 s"):
            await host.call("files", "hang", {}, timeout=0.1)
        assert (await host.call("files", "add", {"a": 1, "b": 1})).text == "2"
        assert host.status("files").failed == 2
        with pytest.raises(ToolFault, match="'b'"):
            await host.call("files", "add", {"a": 1})


async def test_noise_on_its_output_goes_to_the_log() -> None:
    async with owner(files=plain()) as host:
        assert (await host.call("files", "noise", {})).text == "noisy"
        assert "this is no message" in await texts(host.logs("files"))


async def test_an_answer_that_cannot_be_read_fails_its_call_at_once() -> None:
    async with owner(files=plain()) as host:
        with pytest.raises(ToolFault, match="its answer is no message of JSON-RPC; its log has it"):
            await expect(host.call("files", "unreadable", {}, timeout=PATIENCE * 2), "the call is answered")
        assert any("ud83d" in line for line in await texts(host.logs("files")))
        assert (await host.call("files", "add", {"a": 1, "b": 1})).text == "2"


async def test_a_message_without_end_ends_its_server_and_says_so() -> None:
    async with owner(files=plain(restart="never", on_demand=False)) as host:
        await until(host, "files", "running")
        failure = await error_of(host.call("files", "endless", {}))
        assert isinstance(failure, EngineFailed)
        status = await until(host, "files", "crashed")
        assert "it sent a message of more than 16 MiB" in status.reason


async def test_a_schema_for_results_costs_no_time() -> None:
    async with owner(files=plain()) as host:
        result = await host.call("files", "against_schema", {})
        assert result.structured == {"a": "a" * 16 + "!"}


async def test_lists_without_end_are_read_up_to_a_bound() -> None:
    async with owner(files=plain("--pages", timeout=PATIENCE)) as host:
        assert len(await host.tools("files")) > 10
        asked_for = int((await host.call("files", "pages", {})).text)
        assert asked_for < 30, "MAX_LIST_BYTES are some twenty pages"
        found = await host.resources("files")
        assert 5 <= len(found) <= 20


async def test_a_key_in_an_address_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    url = "http://127.0.0.1:9/mcp?key=planted-7Gh2kQ9"
    async with owner(keyed=ServerConfig(url=url, restart="never", **LAZY)) as host:
        failure = await error_of(host.connect("keyed"))
        assert "http://127.0.0.1:9/mcp cannot be used" in str(failure)
        assert "planted" not in f"{failure} {host.status('keyed')} {caplog.text}"


async def test_a_compressed_answer_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.Response:
        asked = await request.json() if request.method == "POST" else {}
        if asked.get("method") != "initialize":
            return web.Response(status=404)
        asked_for.append(request.headers.get("Accept-Encoding", ""))
        told = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "it", "version": "1"}}
        body = gzip.compress(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": told}).encode())
        return web.Response(body=body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})

    asked_for: list[str] = []
    app = web.Application()
    app.router.add_route("*", "/mcp", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config = ServerConfig(url=f"http://127.0.0.1:{runner.addresses[0][1]}/mcp", protocol="legacy", **LAZY)
        async with owner(squeezed=config.model_copy(update={"restart": "never"})) as host:
            assert isinstance(await error_of(host.connect("squeezed")), EngineFailed)
        assert set(asked_for) == {"identity"}
        assert "compresses its answers" in caplog.text
    finally:
        await runner.cleanup()


async def test_changed_tools_are_known_at_once() -> None:
    async with owner(files=plain()) as host:
        changed = asyncio.get_running_loop().create_future()

        def look(change: McpChanged) -> None:
            if any(tool.name == "new_tool" for tool in change.status.tools) and not changed.done():
                changed.set_result(None)

        host.listen(look)
        await host.call("files", "change", {})
        await expect(changed, "the new tool is known")
        assert (await host.call("files", "new_tool", {})).text == "new"


async def test_a_server_sees_its_own_variables_and_none_of_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_SECRET", "planted")
    async with owner(files=plain(env={"MINE": "yes"})) as host:
        assert (await host.call("files", "variable", {"name": "MINE"})).text == "yes"
        assert (await host.call("files", "variable", {"name": "AGENTS_SECRET"})).text == "(not set)"
        assert (await host.call("files", "variable", {"name": "PATH"})).text == os.environ["PATH"]


async def test_an_idle_server_that_does_not_answer_counts_as_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "HEALTH_TIMEOUT", 0.05)
    async with owner(files=plain(health_interval=0.05, restart="never", on_demand=False)) as host:
        pid = (await until(host, "files", "running")).pid
        os.kill(pid, signal.SIGSTOP)
        status = await until(host, "files", "crashed")
        assert "has not answered 3 questions" in status.reason
        assert is_gone(pid)


@pytest.mark.parametrize("text", ["x" * 65536, "{}\n" * 20_000])
async def test_a_server_that_writes_without_end_is_stopped(text: str) -> None:
    flood = f"import sys\nwhile True: sys.stdout.write({text!r})"
    config = ServerConfig(
        command=(sys.executable, "-I", "-S", "-c", flood), start_timeout=2.0, stop_grace=0.1, restart="never", **LAZY
    )
    async with owner(flood=config) as host:
        connecting = asyncio.create_task(error_of(host.connect("flood")))
        longest = 0.0
        while not connecting.done():
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(0.01)
            longest = max(longest, asyncio.get_running_loop().time() - began)
        assert isinstance(await expect(connecting, "it is given up"), EngineFailed)
        assert host.status("flood").state == "crashed"
        assert is_gone(host.status("flood").pid)
        assert longest < 1.0 * FACTOR, "everybody else waited for it"


async def test_what_has_escaped_a_killed_guardian_holds_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    async with owner(files=plain("--escaped", str(file), restart="never", on_demand=False)) as host:
        pid = (await until(host, "files", "running")).pid
        guardian = psutil.Process(pid).parent()
        assert guardian is not None
        guardian.kill()
        try:
            assert "killed with its guardian" in (await until(host, "files", "crashed")).reason
        finally:
            os.kill(int(file.read_text()), signal.SIGKILL)
        assert is_gone(pid)


async def test_a_deaf_server_with_a_grandchild_is_killed_with_it(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    async with owner(files=plain("--deaf", "--grandchild", str(file), stop_grace=0.1)) as host:
        pid = (await until(host, "files", "running")).pid
        grandchild = int(file.read_text())
        assert not is_gone(grandchild)
        assert (await host.disconnect("files")).state == "stopped"
        assert is_gone(pid)
        await polled(lambda: is_gone(grandchild), "the grandchild is gone")


async def test_stop_during_start_and_close_during_anything_leave_nothing() -> None:
    before = children()
    async with owner(slow=plain("--never", **LAZY), fine=plain(**LAZY)) as host:
        starting = asyncio.create_task(host.connect("slow"))
        await polled(lambda: host.status("slow").pid, "it has a process")
        await expect(host.disconnect("slow"), "it is stopped")
        assert isinstance(await error_of(starting), AnywireError)
        assert host.status("slow").state == "stopped"
        waiting = asyncio.create_task(host.connect("slow"))
        hanging = asyncio.create_task(host.call("fine", "hang", {}))
        await polled(lambda: host.status("slow").pid and host.status("fine").serving, "both are under way")
    for each in (waiting, hanging):
        assert isinstance(await error_of(each), EngineFailed | ShuttingDown | ModelStopped)
    assert children() <= before
    fine: McpHost = host
    assert [each.state for each in fine.list()] == ["stopped", "stopped"]


async def test_servers_come_and_go() -> None:
    async with owner() as host:
        assert (await host.add("a", plain())).state == "running"
        assert isinstance(await error_of(host.add("a", plain())), InvalidRequest)
        assert isinstance(await error_of(host.add("a b", plain())), InvalidRequest)
        await host.add("b", plain(**LAZY))
        pid = host.status("a").pid
        assert (await host.restart("a")).pid != pid
        changed = await host.update("a", plain(allowed_tools=("add",)))
        assert [each.name for each in changed.tools] == ["add"]
        await host.remove("a")
        assert host.labels == ("b",)
        assert isinstance(await error_of(host.call("a", "add", {})), InvalidRequest)
        with pytest.raises(InvalidRequest):
            host.status("a")


async def test_orders_at_random_moments_are_all_answered_and_leave_nothing() -> None:
    rng, before, files = random.Random(17), children(), psutil.Process().num_fds()
    answered: list[object] = []

    async def order(host: McpHost) -> None:
        label, moment = rng.choice("ab"), rng.uniform(0, 1.5)
        what = rng.choice(["connect", "disconnect", "restart", "call", "call", "hang", "kill"])
        await asyncio.sleep(moment)
        try:
            if what == "kill":
                with suppress(ProcessLookupError):
                    os.kill(host.status(label).pid or 2**22, signal.SIGKILL)
            elif what in ("call", "hang"):
                tool = ("add", {"a": 1, "b": 1}) if what == "call" else ("hang", {})
                answered.append(await host.call(label, *tool, timeout=0.2 if what == "hang" else 20))
            else:
                answered.append(await getattr(host, what)(label))
        except (AnywireError, ToolFault) as error:
            answered.append(error)

    async with owner(a=plain(stop_grace=0.5), b=plain("--deaf", stop_grace=0.05)) as host:
        orders = [order(host) for _ in range(examples(30))]
        await expect(asyncio.gather(*orders), "all are answered", 3 * PATIENCE)
    assert children() <= before
    assert {each.state for each in host.list()} == {"stopped"}
    assert any(not isinstance(each, Exception) for each in answered)
    await polled(lambda: psutil.Process().num_fds() <= files, "no file is left open")


AGENT = """
import asyncio, sys
from tests.mcp_tools.servers import plain
from anywire_engine_mcp.host import McpHost

async def main():
    host = McpHost()
    await host.begin({"files": plain("--deaf", "--grandchild", sys.argv[1])})
    await host.connect("files")
    print(host.status("files").pid, flush=True)
    await host.call("files", "hang", {})

asyncio.run(main())
"""


async def test_nothing_is_left_when_its_owner_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(AGENT), str(file)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE.parents[1])])},
    )
    assert agent.stdout is not None
    try:
        pid = int(await expect(agent.stdout.readline(), "the server runs", 3 * PATIENCE))
        family = [*psutil.Process(agent.pid).children(recursive=True)]
        assert {pid, int(file.read_text())} <= {each.pid for each in family}
    finally:
        agent.kill()
        await agent.wait()
    await polled(lambda: all(is_gone(each.pid) for each in family), "nothing is left", 10 * FACTOR)


async def test_a_server_is_told_the_trace_of_a_call(tmp_path: Path) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with owner(maths=plain("--meta", str(tmp_path / "meta"))) as host:
        for trace, expected in (
            ("", {}),
            (parent, {"traceparent": parent}),
            (f"{parent} a=1", {"traceparent": parent, "tracestate": "a=1"}),
        ):
            await host.call("maths", "add", {"a": 2, "b": 3}, trace=trace)
            told = json.loads((tmp_path / "meta").read_text()) or {}
            assert {name: value for name, value in told.items() if name.startswith("trace")} == expected
