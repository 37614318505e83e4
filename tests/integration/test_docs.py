"""What README and tutorial say is done as written, with real processes; other pages are held against the code."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
import pytest_asyncio
import typer
from tests.experiment.fabricated import fabricate, finished, plan_of
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire import Client
from anywire.cli import app
from anywire.config_layers import load
from anywire.plugins import Plugins
from anywire.roles.assembly import effective
from anywire.testing.recorder import Recorder
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.reading import load_plan
from reserved import free_port, free_ports

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent
LONG_RUNNING = re.compile(r"anywire (up|serve|agent|answers record)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
BESIDE = "third terminal"
"""What a page says before a command that is given while the one before it goes on."""

pytestmark = pytest.mark.timeout(150)


class Block(NamedTuple):
    """A fenced block, and the prose between the one before and it."""

    prose: str
    language: str
    text: str

    @property
    def file(self) -> str:
        """The name the prose tells to save it under."""
        found = re.findall(r"(?:[Ss]aved? (?:this )?as|In) `([\w.]+\.(?:py|yaml))`", self.prose)
        return found[-1] if found else ""


def blocks(page: Path, section: str = "") -> list[Block]:
    """The blocks of a page, or of one section; what follows the last one is the prose of an empty block."""
    text = page.read_text()
    if section:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(*parts[at : at + 3]) for at in range(0, len(parts) - 1, 3)] + [Block(parts[-1], "", "")]


def pattern(text: str) -> str:
    """What an output must match: … stands for anything, any space for any other."""
    return r"\s+".join(
        ".*?".join(re.escape(piece) for piece in word.split("…")) for line in text.splitlines() for word in line.split()
    )


class Program:
    """A command that goes on until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.lines = process, Recorder()
        self._readers = [asyncio.create_task(self._read(each)) for each in (process.stdout, process.stderr)]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.lines.add(line.decode().rstrip())
        self.lines.add("(it ended)")

    async def says(self, expected: str) -> None:
        wanted = re.compile(pattern(expected), re.DOTALL)
        await self.lines.until(lambda: wanted.search("\n".join(each for (each,) in self.lines.events)), expected)

    async def ended(self) -> None:
        """Wait until all that it wrote is read."""
        await asyncio.wait_for(asyncio.gather(*self._readers), PATIENCE)

    async def interrupt(self) -> None:
        """Ctrl-C; it ends in good order and leaves no process behind."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        assert code == 0, self.lines.events
        assert not psutil.wait_procs(children, timeout=PATIENCE)[1]
        await asyncio.gather(*self._readers)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        for reader in self._readers:
            reader.cancel()


class Reader:
    """Somebody who does what a page says, in a folder of their own, on a port and domain that nobody else uses."""

    def __init__(self, folder: Path, dds_domain: int) -> None:
        self.folder = folder
        self.port = free_port()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")}
        self.environment = kept | {
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            "COLUMNS": "300",
            "NO_COLOR": "1",
            "ANYWIRE_SERVER__PORT": str(self.port),
            "ANYWIRE_TRANSPORTS__DDS__DOMAIN": str(dds_domain),
        }
        self.programs: list[Program] = []
        self._beside: Program | None = None

    def here(self, text: str) -> str:
        return text.replace(":8080", f":{self.port}")

    def save(self, block: Block) -> None:
        (self.folder / block.file).write_text(self.here(block.text))

    async def begin(self, command: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(self.here(command)),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.programs.append(Program(process))
        return self.programs[-1]

    async def run(self, command: str) -> str:
        process = await asyncio.create_subprocess_shell(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
        return out.decode()

    async def interrupt_all(self) -> None:
        while self.programs:
            await self.programs.pop().interrupt()

    async def follow(self, page: Path, section: str = "") -> None:
        """Do what the page says, or one section of it. A command that is followed by one for another terminal goes on
        beside that."""
        output, found = "", blocks(page, section)
        for at, block in enumerate(found):
            if "Ctrl-C" in block.prose:
                await self.interrupt_all()
            if block.file:
                self.save(block)
            elif block.language == "sh":
                next_one = next((each.prose for each in found[at + 1 :] if each.language == "sh"), "")
                if BESIDE not in block.prose:
                    await self.finish_beside()
                output = await self._do(block.text.strip(), beside=BESIDE in next_one)
            elif block.language == "log":
                await self.programs[0].says(self.here(block.text))
            elif block.language == "text" and output:
                assert re.fullmatch(pattern(self.here(block.text)), output.strip(), re.DOTALL), (block.text, output)
            elif block.language == "text":
                await self.programs[-1].says(self.here(block.text))

    async def finish_beside(self) -> None:
        """Wait for the end of the command that went on beside others."""
        if self._beside is not None:
            self.programs.remove(self._beside)
            await self._beside.ended()
            assert await self._beside.process.wait() == 0, self._beside.lines.events
            self._beside = None

    async def _do(self, command: str, *, beside: bool = False) -> str:
        """The output of a command that ends; empty for one that goes on."""
        if command == ". .venv/bin/activate":
            return ""
        if command.startswith("make "):
            # The environment is there already: only what the target then does with it.
            recipe = await self.run(f"cd {shlex.quote(str(ROOT))} && make --no-print-directory -n {command[5:]}")
            command = recipe.splitlines()[-1].replace(".venv/bin/", "")
        if LONG_RUNNING.match(command) or beside:
            program = await self.begin(command)
            self._beside = program if beside else self._beside
            return ""
        return await self.run(self.here(command))


@pytest_asyncio.fixture
async def reader(tmp_path: Path, dds_domain: int) -> AsyncIterator[Reader]:
    reader = Reader(tmp_path, dds_domain)
    yield reader
    for program in reader.programs:
        await program.kill()


async def test_the_tutorial_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "tutorial.md")
    assert not reader.programs, "the tutorial ends with everything stopped"


def the(page: Path, language: str, condition: Callable[[str], bool]) -> Block:
    (found,) = (block for block in blocks(page) if block.language == language and condition(block.text))
    return found


async def test_the_selector_of_the_readme_is_ten_lines_and_chooses(reader: Reader) -> None:
    block = the(ROOT / "README.md", "python", lambda text: "Selector" in text)
    assert len(block.text.splitlines()) <= 10
    reader.save(block)
    command = the(ROOT / "README.md", "sh", lambda text: "--selector" in text).text
    # Of two idle agents it takes the quicker: the one that has answered nothing yet counts as quickest.
    reader.environment |= {"ANYWIRE_ENGINE": "synthetic", "ANYWIRE_TRANSPORTS": "memory"}
    up = await reader.begin(command)
    await up.says(f"ready: http://127.0.0.1:{reader.port} (2 agents, memory)")
    question = {"model": "synthetic", "messages": [{"role": "user", "content": "Hello"}]}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{reader.port}/v1") as client:
        answers = [await client.post("/chat/completions", json=question) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    chosen = [answer.headers["x-anywire-agent"] for answer in answers]
    assert sorted(name[-2:] for name in chosen) == ["-1", "-2"]
    await reader.interrupt_all()


async def test_the_readme_starts_and_answers(reader: Reader) -> None:
    start = the(ROOT / "README.md", "sh", lambda text: "activate" in text).text
    yaml = the(ROOT / "README.md", "yaml", lambda text: True)
    reader.save(yaml)
    reader.environment["ANYWIRE_ENGINE"] = "synthetic"
    for command, transport in (
        (start.splitlines()[-1], "dds"),
        (f"anywire up --agents 2 --config {yaml.file}", "memory"),
    ):
        assert command.removesuffix(" --config anywire.yaml") in start
        up = await reader.begin(command)
        await up.says(f"ready: http://127.0.0.1:{reader.port} (2 agents, {transport})")
        snippet = reader.here(the(ROOT / "README.md", "python", lambda text: "OpenAI" in text).text)
        (reader.folder / "ask.py").write_text(snippet)
        assert len((await reader.run("python ask.py")).split()) == 20
        assert (await reader.run('anywire chat "Hello"')).split()
        await reader.interrupt_all()


async def test_the_page_of_the_http_api_answers_as_written(reader: Reader) -> None:
    up = await reader.begin("anywire up --engine synthetic --transport memory")
    await up.says(f"ready: http://127.0.0.1:{reader.port} (1 agents, memory)")
    page = DOCS / "reference" / "http.md"
    command, shown = (the(page, language, lambda text: True).text for language in ("sh", "text"))
    answer = await reader.run(reader.here(command).strip())
    assert re.fullmatch(pattern(shown), answer.strip(), re.DOTALL), answer
    told = {name.lower() for name in re.findall(r"^(x-anywire-[\w-]+):", answer, re.MULTILINE | re.IGNORECASE)}
    listed = set(re.findall(r"^\| `(x-anywire-[\w-]+)` \|[^|]*\|$", page.read_text(), re.MULTILINE))
    # Of an error, of an estimate, of services, or asked for so.
    of_others = {"x-anywire-origin", "x-anywire-decision", "x-anywire-replayed", "x-anywire-trace"}
    of_others |= {f"x-anywire-{name}" for name in ("estimated", "cache", "cache-similarity", "fallback")}
    assert told == listed - of_others, "the table has the headers that an answer has"
    await reader.interrupt_all()


async def test_keys_are_made_used_and_revoked_as_the_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "keys.md")
    assert not reader.programs


SITUATIONS = ["A lab with several users"]
FURTHER_SITUATIONS = ["A robot on a shared network", "Alone", "Behind nginx or Caddy"]


@pytest.mark.parametrize("section", SITUATIONS + FURTHER_SITUATIONS * SOAK)
async def test_each_situation_is_set_up_as_the_page_says(reader: Reader, section: str) -> None:
    ports = iter(free_ports(2))
    here, others = reader.here, {":5560": f":{next(ports)}", ":5561": f":{next(ports)}"}

    def with_ports(text: str) -> str:
        for old, new in others.items():
            text = text.replace(old, new)
        return here(text)

    reader.here = with_ports  # type: ignore[method-assign]
    await reader.follow(DOCS / "how-to" / "who-may-do-what.md", section)
    assert not reader.programs


async def test_the_page_of_the_python_client_works_as_written(reader: Reader) -> None:
    port = free_port()
    page = DOCS / "reference" / "python-client.md"
    here = reader.here
    reader.here = lambda text: here(text).replace(":5561", f":{port}")  # type: ignore[method-assign]
    await reader.follow(page)
    assert not reader.programs
    public = [name for name in dir(Client) if not name.startswith("_") and callable(getattr(Client, name))]
    assert [name for name in public if f"`{name}" not in page.read_text()] == []


@pytest.mark.parametrize(
    ("page", "example"),
    [
        ("write-a-transport.md", "unix_transport"),
        ("write-a-selector.md", "selector"),
        ("write-a-scheduler.md", "scheduler"),
        ("write-a-service.md", "service"),
        ("write-a-launcher.md", "launcher"),
    ],
)
def test_what_a_how_to_shows_is_the_code_of_its_example(page: str, example: str) -> None:
    files = [path for kind in ("*.py", "*.toml", "*.md") for path in (ROOT / "examples" / example).rglob(kind)]
    if page == "write-a-transport.md":  # what it shows of wires without connections
        files.append(ROOT / "tests" / "conformance" / "packets.py")
    sources = [path.read_text() for path in files]
    project = tomllib.loads((ROOT / "examples" / example / "pyproject.toml").read_text())
    shown = [block for block in blocks(DOCS / "how-to" / page) if block.language in ("python", "toml")]
    assert len(shown) >= 5
    for language, text in ((block.language, block.text) for block in shown):
        # What a project says of itself to an index may be left out.
        assert any(text in source for source in sources) or (
            language == "toml" and has_all(project, tomllib.loads(text))
        ), f"{page} shows what is not in {example}:\n{text}"


def has_all(whole: object, part: object) -> bool:
    """Whether every key of ``part`` has its value in ``whole``."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and has_all(whole[key], each) for key, each in part.items())
    return whole == part


async def test_the_service_of_its_page_runs_as_a_file(reader: Reader) -> None:
    text = (DOCS / "how-to" / "write-a-service.md").read_text()
    code = (ROOT / "examples" / "service" / "anywire_memo" / "__init__.py").read_text()
    (reader.folder / "memo.py").write_text(code + hook_in(text))
    page = DOCS / "how-to" / "write-a-service.md"
    up = await reader.begin(the(page, "sh", lambda text: "anywire up" in text).text)
    await up.says(f"ready: http://127.0.0.1:{reader.port} (1 agents, memory)")
    assert await reader.run(reader.here(the(page, "sh", lambda text: "curl" in text).text)) == '{"entries": 0}'
    await reader.interrupt_all()


async def test_the_page_of_the_audit_log_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "audit.md")
    assert not reader.programs
    assert (reader.folder / "audit-log").stat().st_mode & 0o777 == 0o700


async def test_the_page_of_background_tasks_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "background-tasks.md")
    assert not reader.programs


async def test_the_page_of_agents_on_demand_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "agents-on-demand.md")
    assert not reader.programs


async def test_the_page_is_opened_as_told(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "browser.md", "Open it")
    assert not reader.programs


async def test_the_page_of_the_cache_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "cache.md")
    assert not reader.programs


async def test_the_page_of_tests_of_applications_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "test-your-application.md")
    assert not reader.programs


async def test_the_page_of_responses_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "responses.md")
    assert not reader.programs


async def test_the_page_of_ollamas_clients_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "ollama.md")
    assert not reader.programs


async def test_the_page_of_anthropics_api_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "anthropic.md")
    assert not reader.programs


async def test_the_page_of_deliberations_works_as_written(reader: Reader) -> None:
    port, here = free_port(), reader.here
    reader.here = lambda text: here(text).replace(":5561", f":{port}")  # type: ignore[method-assign]
    await reader.follow(DOCS / "how-to" / "deliberate.md")
    assert not reader.programs
    assert "## Critiques" in (reader.folder / "report.md").read_text()


@pytest.mark.timeout(600)
async def test_the_page_of_records_works_as_written(reader: Reader) -> None:
    pytest.importorskip("pandas", reason="missing: pandas")
    shared = {"factors": {"transport": ["memory", "tcp"]}, "workloads": {"one-client": {"requests": 20}}}
    for seed, (name, blocks) in enumerate({"pilot": 6, "main": 16, "change": 16}.items()):
        folder = reader.folder / "records" / name
        metrics = ["latency", "failures"]
        tree = plan_of(name=name, blocks=blocks, seed=seed, metrics=metrics, **shared)
        finished(fabricate(folder, tree, spread=0.02))
    await reader.follow(DOCS / "how-to" / "use-a-record.md")
    assert not reader.programs
    assert (reader.folder / "paper/tables/all.tex").exists()


def test_the_notebook_runs_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="missing: pandas")
    record = tmp_path / "record"
    finished(fabricate(record, plan_of(blocks=3, metrics=["latency"], workloads={"one-client": {"requests": 40}})))
    cells = json.loads((ROOT / "examples/notebook/read_a_record.ipynb").read_text())["cells"]
    code = "\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "code")
    environment = {**os.environ, "RECORD": str(record), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "requests: " in done.stdout.decode()
    assert (tmp_path / "ratios.svg").exists()
    assert all(not each["outputs"] and each["execution_count"] is None for each in cells if "outputs" in each)


async def test_five_agents_are_asked_and_one_is_killed_as_the_tutorial_says(reader: Reader) -> None:
    await reader.follow(DOCS / "tutorial-five-agents.md")
    assert not reader.programs
    assert "<h2>Answer: the proposal of" in (reader.folder / "report.html").read_text()


async def test_the_page_of_roles_and_rubrics_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "roles-and-rubrics.md")
    assert not reader.programs


async def test_the_page_of_local_models_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "local-models.md")
    assert not reader.programs


async def test_the_page_of_failure_handling_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "failure-handling.md")
    assert not reader.programs


async def test_a_file_is_begun_as_its_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "configure.md", "Begin with a file")
    assert "\n  #port: null\n" in (reader.folder / "anywire.yaml").read_text()


async def test_the_page_of_mcp_tools_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "mcp-tools.md")
    assert not reader.programs


async def test_a_server_is_started_as_a_process_as_its_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "model-processes.md")


async def test_faults_are_tried_as_their_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "try-faults.md")
    assert not reader.programs


async def test_a_record_is_published_as_its_page_says(reader: Reader) -> None:
    reader.environment["XDG_CONFIG_HOME"] = str(reader.folder / "config")
    await reader.follow(DOCS / "how-to" / "publish-a-record.md")
    assert not reader.programs


async def test_systems_are_compared_as_their_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "compare-systems.md", "Try it")
    assert not reader.programs


async def test_strategies_are_tried_as_their_page_says(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "choose-a-scheduler-and-selector.md", "Try it")
    assert not reader.programs


async def test_the_launcher_of_its_page_runs_as_a_file(reader: Reader) -> None:
    page = DOCS / "how-to" / "write-a-launcher.md"
    code = (ROOT / "examples" / "launcher" / "anywire_nice" / "__init__.py").read_text()
    (reader.folder / "nice.py").write_text(code + hook_in(page.read_text()))
    for plane in ("AGENT", "CLIENT"):
        reader.environment[f"ANYWIRE_TRANSPORTS__ZEROMQ__{plane}_ADDRESSES"] = f"tcp://127.0.0.1:{free_port()}"
    up = await reader.begin(the(page, "sh", lambda text: "anywire up" in text).text)
    await up.says(f"ready: http://127.0.0.1:{reader.port} (1 agents, zeromq)")
    await reader.interrupt_all()


def hook_in(page: str) -> str:
    """The hook that a page tells to add to the file."""
    (found,) = re.findall(r"^    from anywire.hookspecs import hookimpl\n(?:    .*\n|\n)+", page, re.M)
    return "\n\n" + textwrap.dedent(found)


def test_the_yaml_of_every_page_is_a_configuration_or_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    selector = the(ROOT / "README.md", "python", lambda text: "class Mine" in text)
    (tmp_path / "my_selector.py").write_text(selector.text)
    pages = (*DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "plugins").rglob("*.md"))
    for page in pages:
        # What is below docs/results was written by runs, whose plans name files that are in their records.
        for block in blocks(page) if DOCS / "results" not in page.parents else ():
            if block.language == "yaml":
                if block.text.startswith("sets:"):
                    (tmp_path / block.file).write_text(block.text)
                    continue
                (tmp_path / "shown.yaml").write_text(block.text)
                if "workloads:" in block.text:
                    assert arms_of(load_plan(tmp_path / "shown.yaml")), f"{page}: {block.text}"
                    continue
                _, faults = effective(load(tmp_path / "shown.yaml", environment={}), Plugins())
                assert not faults, f"{page}: {block.text}"


def test_every_command_shown_is_one_with_its_options() -> None:
    root = typer.main.get_command(app)
    folders = (ROOT / name for name in ("docs", "plugins", "examples"))
    pages = (ROOT / "README.md", *(page for folder in folders for page in folder.rglob("*.md")))
    found = 0
    for page in pages:
        text = page.read_text().replace("\\\n", "")
        shown = re.findall(r"^(?:    |\$ )?(anywire [a-z][^\n|>#]*)", text, re.MULTILINE)
        shown += re.findall(r"`(anywire [a-z][^`\n]*)`", text)
        for line in shown if DOCS / "results" not in page.parents else ():
            words, command = line.split()[1:], root
            while words and not words[0].startswith("-") and (inner := getattr(command, "commands", {})):
                assert words[0] in inner, f"{page.relative_to(ROOT)}: {line}"
                command = inner[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
            options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert options <= known, f"{page.relative_to(ROOT)}: {line}: {options - known}"
            found += 1
    assert found > 50


async def test_the_error_shown_is_the_error_given(reader: Reader) -> None:
    shown = the(DOCS / "how-to" / "configure.md", "text", lambda text: text.startswith("error:"))
    (reader.folder / "wrong.yaml").write_text("server:\n  prot: 9000\n")
    given = await reader.run("anywire config --config wrong.yaml 2>&1 || test $? = 1")
    assert given == shown.text


def test_every_setting_is_described_in_one_form() -> None:
    rows = re.findall(r"^\| `[\w.\[\]]+` \| .* \| .* \| (.*) \|$", (DOCS / "reference" / "config.md").read_text(), re.M)
    assert len(rows) > 100
    for meaning in rows:
        assert re.match(r"[A-Z`]", meaning), meaning
        assert meaning.endswith("."), meaning


async def test_the_reference_is_up_to_date(reader: Reader) -> None:
    await reader.run(f"python {shlex.quote(str(DOCS / 'generate.py'))} --check")


def test_keys_of_sections_have_rows_of_their_own() -> None:
    config, http = ((DOCS / "reference" / name).read_text() for name in ("config.md", "http.md"))
    for key in ("pipeline.breaker.errors", "pipeline.retries.repeat", "pipeline.preemption.urgent", "server.tls.key"):
        assert f"| `{key}` | " in config
    assert "| `pipeline.retries.window` | `10` | " in http
    assert "mapping of `errors`" not in config


def test_every_page_begins_with_its_title() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "plugins").rglob("README.md")]
    assert [str(page.relative_to(ROOT)) for page in pages if not page.read_text().startswith("# ")] == []


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")):
        for target, anchor in LINK.findall(page.read_text()):
            if "://" in target:
                continue
            path = page.parent / target
            assert path.exists(), f"{page.relative_to(ROOT)} links to {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
                assert anchor[1:] in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], (
                    f"{page}: {anchor}"
                )


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        if page.is_dir():
            todo.extend(page.glob("*.md"))
        elif page.suffix == ".md":
            todo.extend((page.parent / target).resolve() for target, _ in LINK.findall(page.read_text()))
    missing = {path.relative_to(ROOT) for path in DOCS.rglob("*.md")} - {
        path.relative_to(ROOT) for path in seen if path.is_relative_to(ROOT)
    }
    assert not missing


def test_every_dependency_has_its_reason() -> None:
    table = (DOCS / "decisions" / "0001-dependencies.md").read_text()
    explained = re.findall(r"^\| `([\w.-]+)` \| [^|]+ \| \S[^|]{15,} \|$", table, re.MULTILINE)
    wanted: set[str] = set()
    for path in (
        ROOT / "pyproject.toml",
        *(ROOT / "plugins").rglob("pyproject.toml"),
        *(ROOT / "examples").rglob("pyproject.toml"),
    ):
        described = tomllib.loads(path.read_text())
        project = described["project"]
        required = [*project["dependencies"], *described["build-system"]["requires"]]
        for extra in project.get("optional-dependencies", {}).values():
            required += extra
        wanted |= {re.split(r"[<>=!~;\[ ]", each)[0] for each in required}
    lines = [
        line
        for name in ("requirements-dev.txt", "requirements-demo.txt")
        for line in (ROOT / name).read_text().splitlines()
    ]
    wanted |= {line for line in lines if line and not line.startswith(("-", "#"))}
    assert sorted(explained) == sorted(name for name in wanted if not name.startswith("anywire"))


async def test_the_page_of_failure_experiments_works_as_written(reader: Reader) -> None:
    await reader.follow(DOCS / "how-to" / "failure-experiments.md")
    assert not reader.programs
