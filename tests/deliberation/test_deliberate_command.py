"""``anywire deliberate`` as a process, against the routes of a double."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.deliberation.front_bench import degraded, front, update

from anywire.errors import ConfigError
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_deliberation import asked


@asynccontextmanager
async def begun(url: str, *arguments: str, stdin: str = "") -> AsyncIterator[Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYWIRE_")}
    command = [sys.executable, "-m", "anywire.cli", "deliberate", *arguments, "--url", url]
    environment = kept | {"NO_COLOR": "1", "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(stdin.encode())
    process.stdin.close()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: Process) -> tuple[int, str, str]:
    out, err = await expect(process.communicate(), "the command ends")
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


async def run(url: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    async with begun(url, *arguments, stdin=stdin) as process:
        return await ended(process)


async def test_a_question_is_asked_watched_and_reported(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    options = ["--role", "DEV", "--agents", "3", "--rubric", "clean-code", "--rounds", "1", "--id", "q-1"]
    async with front(tmp_path) as served:
        double = served.double
        async with begun(served.url, "Reverse a list.", *options, "--out", str(out)) as process:
            await polled(lambda: double.readers and double.waits, "the command follows it")
            assert double.asked == [
                {
                    "id": "q-1",
                    "task": "Reverse a list.",
                    "role": "DEV",
                    "members": 3,
                    "rubric": "clean-code",
                    "rounds": 1,
                }
            ]
            await double.say(
                update(1, "stage", status="generating", round=0),
                update(2, "answered", work="proposal/0/member-1", agent="agent-1", transport="dds", seconds=0.5),
            )
            assert process.stderr is not None
            lines = [(await expect(process.stderr.readline(), "a line")).decode() for _ in range(2)]
            assert lines == ["generating\n", "member-1: proposal by agent-1 over dds after 0.5 s\n"]
            await double.say(update(3, "ended", status="degraded", winner="member-2"), ends=degraded())
            code, printed, err = await ended(process)
    assert code == 0, err
    assert "Answer: the proposal of member-2\n[].reverse()\n" in printed
    assert "member-3: no critique (agent_lost: it went)" in printed
    assert f"report: {out}" in err
    assert "[].reverse()" in out.read_text()


async def test_json_is_all_that_is_printed(tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    async with front(tmp_path) as served:
        await served.double.say(ends=degraded())
        code, printed, err = await run(served.url, "--id", "q-1", "--json", "--out", str(out))
    assert (code, err) == (0, "")
    assert json.loads(printed)["winner"] == "member-2"
    assert out.read_text().startswith("# Reverse a list.")


async def test_an_interrupted_command_says_how_to_come_back(tmp_path: Path) -> None:
    async with front(tmp_path) as served:
        async with begun(served.url, "-", stdin="What is it?\n") as process:
            await polled(lambda: served.double.readers and served.double.waits, "the command follows it")
            process.send_signal(signal.SIGINT)
            code, printed, err = await ended(process)
        (name,) = served.double.kept
        assert served.double.asked[0]["task"] == "What is it?\n"
        assert (code, printed) == (130, "")
        assert f"the deliberation goes on: `anywire deliberate --id {name}` follows it" in err
        code, printed, err = await run(served.url, "--id", name, "--cancel")
        assert served.double.cancelled == [name]
        assert (code, "status: cancelled" in printed) == (1, True), err


async def test_what_is_refused_is_said_in_a_line(tmp_path: Path) -> None:
    async with front(tmp_path) as served:
        assert await run(served.url, "?", "--rubric", "none") == (1, "", "error: rubric: there is no rubric 'none'\n")
        unknown = "error: there is no deliberation 'no pe' (any more)\n"
        assert await run(served.url, "--id", "no pe") == (1, "", unknown)


async def test_a_server_without_the_service_is_told(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        try:
            code, printed, err = await run(gateway.address, "?")
        finally:
            await gateway.close()
    assert (code, printed) == (1, "")
    assert err.startswith("error: no deliberations are kept there: configure the service deliberation")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected a question"),
        (["?", "--cancel"], "expected --id ID and no question"),
        (["?", "--timeout", "0"], "above 0"),
        (["?", "--council", "c", "--agents", "3"], "leave --agents and --model out"),
        (["?", "--out", "report.pdf"], "FILE.md or FILE.html"),
        (["?", "--out", "/nowhere/report.md"], "in a folder that exists"),
        (["?", "--transport", "dds"], "--transport"),
    ],
)
async def test_wrong_usage_is_told_before_anything_is_asked(arguments: list[str], says: str) -> None:
    from typer.testing import CliRunner

    from anywire.cli import app

    found = CliRunner().invoke(app, ["deliberate", *arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert says in found.output


def test_the_command_imports_nothing_heavy() -> None:
    import subprocess

    heavy = "{'httpx', 'rich', 'msgspec', 'yaml', 'pydantic', 'asyncio'}"
    code = f"import anywire_service_deliberation.cli, sys; print(sorted({heavy} & sys.modules.keys()))"
    typer_alone = f"import typer, sys; print(sorted({heavy} & sys.modules.keys()))"
    printed = [
        subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=True).stdout
        for each in (code, typer_alone)
    ]
    assert printed[0] == printed[1]


def test_models_are_taken_in_turn() -> None:
    assert asked.members_of(None, ()) is None
    assert asked.members_of(5, ()) == 5
    assert asked.members_of(None, ("a", "b")) == [{"model": "a"}, {"model": "b"}, {"model": "a"}]
    assert asked.members_of(2, ("a", "b", "c")) == [{"model": "a"}, {"model": "b"}]


def test_a_rubric_is_a_name_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("criteria:\n- name: truth\n  anchors: {1: wrong, 5: right}\n")
    assert asked.read_rubric("clean-code") == "clean-code"
    assert asked.read_rubric(str(file)) == {"criteria": [{"name": "truth", "anchors": {1: "wrong", 5: "right"}}]}
    for text, says in (("- a", "no mapping"), ("a: [", "no YAML"), ("x" * 70_000, "more than")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            asked.read_rubric(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        asked.read_rubric(str(tmp_path / "none.yaml"))


async def test_a_report_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    out.mkdir()
    async with front(tmp_path / "state") as served:
        await served.double.say(ends=degraded())
        code, printed, err = await run(served.url, "--id", "q-1", "--out", str(out))
    assert (code, "[].reverse()" in printed) == (1, True)
    assert "`anywire deliberate --id q-1 --out FILE` writes it elsewhere" in err
