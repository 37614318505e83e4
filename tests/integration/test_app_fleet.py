"""The fleet for tests of applications, its pytest plugin, and answers that are recorded and given again over HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.patience import PATIENCE

from anywire import Client
from anywire.errors import ConfigError, PluginError
from anywire.plugins import Plugins
from anywire.testing.app_fleet import AppFleet, app_fleet


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert not [each for each in threading.enumerate() if each.name == "anywire-fleet"]


def client(fleet: AppFleet) -> openai.OpenAI:
    return openai.OpenAI(base_url=fleet.base_url, api_key="none", max_retries=0, timeout=PATIENCE)


def ask(fleet: AppFleet, text: str, **members: Any) -> str:
    with client(fleet) as asking:
        answer = asking.chat.completions.create(
            model="synthetic", messages=[{"role": "user", "content": text}], **members
        )
        return answer.choices[0].message.content or ""


def test_an_application_asks_it_and_it_tells_what_it_was_asked() -> None:
    with app_fleet(agents=2) as fleet:
        assert fleet.agents == ["agent-1", "agent-2"]
        assert ask(fleet, "hello", temperature=0) == ask(fleet, "hello", temperature=0)
        first, _ = fleet.asked
        assert (first.kind, first.model, first.stream) == ("chat", "synthetic", False)
        assert first.body["messages"][0]["content"] == "hello"
        assert fleet.stats()["tasks"]["ended"] == {"answered": 2}


def test_agents_come_and_go_and_a_stream_of_one_that_is_killed_goes_on() -> None:
    slow = {"name": "synthetic", "itl": 10, "length": 40}
    with app_fleet(engine=slow) as fleet, client(fleet) as asking:
        whole = ask(fleet, "hello")
        stream = asking.chat.completions.create(
            model="synthetic", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        pieces = iter(stream)
        text = "".join(next(pieces).choices[0].delta.content or "" for _ in range(3))
        assert fleet.add_agent() == "agent-2"
        fleet.kill("agent-1")
        assert fleet.agents == ["agent-2"]
        text += "".join(each.choices[0].delta.content or "" for each in pieces)
        assert text == whole
        with pytest.raises(ConfigError, match="no agent 'agent-1'"):
            fleet.kill("agent-1")
        assert fleet.add_agent("special", {"name": "synthetic", "models": ["other"]}) == "special"
        with pytest.raises(ConfigError, match="already"):
            fleet.add_agent("special")
        with httpx.Client(base_url=fleet.base_url) as http:
            models = {each["id"] for each in http.get("models").json()["data"]}
        assert models == {"synthetic", "other"}


@pytest.mark.parametrize("transport", ["http", "zeromq", "dds"])
def test_any_transport_may_lie_between(transport: str, options_of: Callable[[str], dict[str, Any]]) -> None:
    options = options_of("dds") if transport == "dds" else {}
    with app_fleet(transport=transport, transport_options=options) as fleet:
        assert ask(fleet, "hello")
        fleet.add_agent()
        fleet.kill("agent-1")
        assert ask(fleet, "hello")


async def test_a_client_meets_it_over_its_transport() -> None:
    with app_fleet(transport="zeromq") as fleet:
        transport = Plugins().create("transports", "zeromq", fleet.transport_options)
        async with Client(transport) as asking:
            async with asyncio.timeout(PATIENCE):
                assert await asking.models()


def test_what_keeps_it_from_starting_is_raised() -> None:
    with pytest.raises(PluginError, match="nothing"), app_fleet(engine="nothing"):
        raise AssertionError("it has started")


def test_it_answers_with_what_was_recorded(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with app_fleet(engine={"name": "recording", "file": str(file), "inner": "synthetic"}) as fleet:
        first = ask(fleet, "hello")
    with app_fleet(answers=file) as fleet:
        assert ask(fleet, "hello") == first
        with pytest.raises(openai.NotFoundError, match=r"The nearest of 1 is 'hello'"):
            ask(fleet, "hallo")


PLUGIN_TEST = """
    import openai
    import pytest

    @pytest.mark.parametrize("anywire_transport", ["memory", "zeromq"])
    @pytest.mark.anywire_fleet(agents=2, engine={"name": "synthetic", "models": ["mine"]})
    def test_it(anywire_fleet):
        with openai.OpenAI(base_url=anywire_fleet.base_url, api_key="none") as client:
            answer = client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "hello"}])
        assert answer.choices[0].message.content
        anywire_fleet.kill("agent-1")
        assert anywire_fleet.agents == ["agent-2"]

    async def test_it_in_a_coroutine(anywire_fleet):
        async with openai.AsyncOpenAI(base_url=anywire_fleet.base_url, api_key="none") as client:
            answer = await client.chat.completions.create(
                model="synthetic", messages=[{"role": "user", "content": "hello"}]
            )
        assert answer.choices[0].message.content
"""


def test_the_plugin_gives_tests_a_fleet(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(PLUGIN_TEST))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    command += ["-p", "anywire.testing.pytest_plugin", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


MARKS_TEST = """
    import pytest

    @pytest.mark.anywire_fleet(answers="mine/answers.jsonl", services="cache")
    def test_a_file_from_the_root(anywire_fleet):
        assert anywire_fleet.agents

    @pytest.mark.anywire_fleet(2)
    def test_without_a_name(anywire_fleet):
        pass
"""


def test_marks_find_their_file_from_the_root_and_refuse_what_has_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "pytest.ini").touch()
    (folder / "test_mine.py").write_text(textwrap.dedent(MARKS_TEST))
    (folder / "answers.jsonl").write_text(
        '{"anywire_answers":1}\n{"kind":"chat","model":"m","request":{},"deltas":[]}\n'
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "anywire.testing.pytest_plugin"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "takes settings by name alone" in done.stdout


def test_whoever_has_imported_it_before_pytest_starts_is_not_warned(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_it(): pass")
    starts = "import sys, anywire.testing, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", starts, "-q", "-W", "error", "-p", "no:cacheprovider"]
    command += ["-p", "anywire.testing.pytest_plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_ends_when_its_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Future[Any]):
        interrupted = False

        def result(self, timeout: float | None = None) -> Any:
            if not self.interrupted and not self.done():
                self.interrupted = True
                raise KeyboardInterrupt
            return super().result(timeout)

    monkeypatch.setattr("anywire.testing.app_fleet.Future", Interrupted)
    with pytest.raises(KeyboardInterrupt), app_fleet():
        raise AssertionError("it has started")


def test_a_fleet_that_has_ended_says_so() -> None:
    with app_fleet() as fleet:
        pass
    with pytest.raises(ConfigError, match="has ended"):
        fleet.kill("agent-1")


def test_a_file_that_is_there_is_not_recorded_over(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    command = [sys.executable, "-m", "anywire.cli", "answers", "record", "there", "--engine", "synthetic"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "add to it with --append" in done.stderr
    (tmp_path / "there").write_text("notes")
    done = subprocess.run([*command, "--append"], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False, timeout=2 * PATIENCE)  # fmt: skip
    assert done.returncode == 1
    assert "there, line 1" in done.stderr
