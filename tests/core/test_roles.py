"""The roles as a library: which agents there are, what is let in when, and the process that a launcher starts."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import pydantic
import pytest
from tests.patience import PATIENCE

from anywire.builtin.local import LocalLauncher
from anywire.config import Config
from anywire.context import Context
from anywire.core_settings import FromCore
from anywire.engine import EngineStatus
from anywire.errors import AnywireError, ConfigError
from anywire.gateway import Gateway
from anywire.hookspecs import hookimpl
from anywire.identity import agent_info
from anywire.launcher import RoleName
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.agent import Agent
from anywire.roles.agent_configs import agent_configs
from anywire.roles.agent_role import description
from anywire.roles.orchestrator_and_agents import running, what_is_missing
from anywire.roles.orchestrator_role import OrchestratorRole, Served, serving
from anywire.roles.stop import Stop
from anywire.route import Request, Response, Route
from anywire.service import Service
from anywire.testing.doubles import ScriptedEngine
from anywire.testing.patience import expect

ALONE = {"transports": {"memory": {"network": "test-roles"}}, "engine": "synthetic", "gateways": []}


class Notes:
    """What plugins of a test were told, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


NOTES = Notes()


class NotingConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    port: Annotated[int, FromCore("server.port")] = 1
    host: str = "its own"
    grace: Annotated[float, FromCore("shutdown_grace")] = 1.0


class NotingGateway(Gateway):
    name = "noting"
    Config = NotingConfig

    async def start(self, context: Context) -> None:
        NOTES.lines.append(f"gateway starts, service {context.services.get('noting')}")

    async def close(self) -> None:
        NOTES.lines.append("gateway closes")

    @property
    def address(self) -> str:
        return "noting://here"

    @property
    def is_local(self) -> bool:
        return True


class NotingService(Service):
    name = "noting"
    fails: ClassVar[bool] = False

    async def start(self, context: Context) -> None:
        async def handle(request: Request) -> Response:
            return Response()

        context.routes.add(Route("GET", "/noting", handle))
        NOTES.lines.append("service starts")
        if self.fails:
            raise RuntimeError("no")

    async def close(self) -> None:
        NOTES.lines.append("service closes")

    def gate_closed(self) -> None:
        NOTES.lines.append("service told the gate")

    @property
    def offered(self) -> Any:
        return "offered"


class Noting:
    @hookimpl
    def anywire_register(self, kind: str) -> dict[str, type] | None:
        known: dict[str, dict[str, type]] = {
            "gateways": {"noting": NotingGateway},
            "services": {"noting": NotingService},
            "launchers": {"launching": Launching},
        }
        return known.get(kind)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.setattr(NOTES, "lines", [])
    made = Plugins()
    made.manager.register(Noting())
    return made


def config(**sections: Any) -> Config:
    return Config.model_validate({**ALONE, **sections})


# Agents


def ids(**sections: Any) -> dict[str, tuple[str, int]]:
    return {name: (each.engine.name, each.agent.slots) for name, each in agent_configs(config(**sections)).items()}


def test_each_entry_makes_agents_of_its_sort() -> None:
    agent = {"id": "a", "slots": 3, "specialization": "all"}
    entries = [{"count": 2}, {"engine": {"name": "openai", "url": "x"}, "slots": 8, "id": "far"}, {"engine": "llama"}]
    made = agent_configs(config(agent=agent, agents=entries))
    assert [(name, each.engine.name, each.agent.slots) for name, each in made.items()] == [
        ("a-1", "synthetic", 3),
        ("a-2", "synthetic", 3),
        ("far", "openai", 8),
        ("a-3", "llama", 3),
    ]
    assert made["far"].engine.options == {"url": "x"}
    assert all(name == each.agent.id and not each.agents for name, each in made.items())
    assert {each.agent.specialization for each in made.values()} == {"all"}


def test_without_entries_the_sections_count() -> None:
    assert list(agent_configs(config(agent={"id": "a"}), 2)) == ["a-1", "a-2"]
    assert len(agent_configs(config())) == 1
    with pytest.raises(ConfigError, match="--agents"):
        agent_configs(config(agents=[{}]), 2)
    with pytest.raises(ConfigError, match="'x'"):
        agent_configs(config(agents=[{"id": "x"}, {"id": "x"}]))


async def test_agents_of_several_sorts_join_one_orchestrator(plugins: Plugins) -> None:
    entries = [
        {"id": "small", "engine": {"name": "synthetic", "models": ["s"]}},
        {"id": "large", "count": 2, "slots": 5, "engine": {"name": "synthetic", "models": ["l"]}},
    ]
    async with running(config(agents=entries), plugins, Stop()) as served:
        agents = {each.agent_id: each for each in served.orchestrator.agents()}
        assert {name: (list(each.offers), each.status.slots) for name, each in agents.items()} == {
            "small": (["s"], 1),
            "large-1": (["l"], 5),
            "large-2": (["l"], 5),
        }
        assert served.address == ""
        assert served.addresses == ["the client plane, no gateway"]


# Core settings


def test_options_follow_the_core_where_they_say_so_and_are_not_set(plugins: Plugins) -> None:
    chosen = config(server={"host": "::1", "port": 5}, shutdown_grace=3, gateways="noting")
    (gateway,) = assembly.make_gateways(chosen, plugins)
    assert gateway.config == NotingConfig(port=5, grace=3), "a field of the same name alone gets nothing"
    (gateway,) = assembly.make_gateways(config(server={"port": 5}, gateways={"noting": {"port": 7}}), plugins)
    assert gateway.config.port == 7
    tree, faults = assembly.effective(chosen, plugins)
    assert not faults
    assert tree["gateways"]["noting"] == {"host": "its own"}, "what follows is left out, and follows when read again"
    assert tree["server"]["port"] == 5


# The launcher


class Launching(LocalLauncher):
    """Starts what the test says in place of an agent."""

    name = "launching"
    gives: ClassVar[Callable[[], Any]] = list
    at: ClassVar[Callable[[], str]] = lambda: "10.0.0.9"

    async def reached(self) -> str:
        return type(self).at()

    def command(self, role: RoleName, name: str) -> Any:
        return type(self).gives()

    def logged(self, name: str, line: str) -> None:
        NOTES.lines.append(f"{name}: {line}")
        raise RuntimeError("not this one")


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda: vars(NOTES)["x"], "the launcher launching cannot start a-1: KeyError: 'x'"),
        (lambda: [sys.executable, 5], r"command\(\) of the launcher launching gave .*, which is no list of texts"),
        (list, "which is no list of texts"),
        (lambda: ["a\0b"], "cannot be run: embedded null byte"),
    ],
)
async def test_a_launcher_that_fails_is_named(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch, gives: Any, said: str
) -> None:
    monkeypatch.setattr(Launching, "gives", staticmethod(gives))
    monkeypatch.setattr(assembly, "in_one_process", lambda config, plugins: False)
    with pytest.raises(AnywireError, match=said):
        async with running(config(launcher="launching", agent={"id": "a"}, agents=[{"count": 2}]), plugins, Stop()):
            pass


async def test_the_agents_meet_the_orchestrator_where_their_launcher_says(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def met(served: Served, host: str) -> dict[str, Any]:
        NOTES.lines.append(host)
        return {}

    monkeypatch.setattr(assembly, "in_one_process", lambda config, plugins: False)
    monkeypatch.setattr(Served, "meeting_options", met)
    with pytest.raises(AnywireError):
        async with running(config(launcher="launching"), plugins, Stop()):
            pass
    assert "10.0.0.9" in NOTES.lines
    monkeypatch.setattr(Launching, "at", staticmethod(lambda: vars(NOTES)["x"]))
    with pytest.raises(AnywireError, match="launching does not know how this machine is reached: KeyError: 'x'"):
        async with running(config(launcher="launching"), plugins, Stop()):
            pass


async def test_a_launcher_is_told_each_line_that_its_processes_log(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys; print('one\\ntwo', file=sys.stderr)"
    monkeypatch.setattr(Launching, "gives", staticmethod(lambda: [sys.executable, "-c", script]))
    launcher = plugins.create("launchers", "launching", {})
    process = await launcher.start("agent", config(), "a")
    await expect(process.ended(), "it ends")
    assert NOTES.lines == ["a: one", "a: two"]
    assert process.logs() == ["one", "two"]
    await launcher.close()


async def test_a_launcher_keeps_nothing_of_processes_that_have_ended(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Launching, "gives", staticmethod(lambda: [sys.executable, "-c", ""]))
    launcher = plugins.create("launchers", "launching", {})
    first = weakref.ref(await launcher.start("agent", config(), "a"))
    await expect(first().ended(), "it ends")  # type: ignore[union-attr]
    await launcher.start("agent", config(), "b")
    gc.collect()
    assert first() is None
    await launcher.close()


async def test_on_demand_of_a_sort_alone_is_told_to_start_none(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Launching, "gives", staticmethod(list))
    monkeypatch.setattr(assembly, "in_one_process", lambda config, plugins: False)
    for entry, times in ({"on_demand": 3}, 1), ({}, 1), ({"on_demand": 0}, 1):
        with pytest.raises(AnywireError):
            async with running(config(launcher="launching", agents=[entry]), plugins, Stop()):
                pass
        assert caplog.text.count("on_demand is set, and starts none while on_demand.most is 0") == times


async def test_a_launcher_that_is_not_used_is_told_once(plugins: Plugins, caplog: pytest.LogCaptureFixture) -> None:
    for launcher, told in (("local", 0), ("launching", 1)):
        caplog.clear()
        async with running(config(launcher=launcher), plugins, Stop()):
            pass
        text = f"the launcher {launcher} is not used: over memory the agents run in this process"
        assert caplog.text.count(text) == told


# The orchestrator


async def test_services_start_before_clients_are_let_in_and_close_after_the_drain(plugins: Plugins) -> None:
    async with serving(config(gateways="noting", services=["noting"]), plugins, Stop()) as served:
        assert served.address == "noting://here"
        assert NOTES.lines == ["service starts", "gateway starts, service offered"]
    assert NOTES.lines[2:] == ["gateway closes", "service told the gate", "service closes"]


async def test_a_service_that_cannot_start_ends_the_role_before_clients_are_let_in(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotingService, "fails", True)
    with pytest.raises(ConfigError, match="the service noting cannot start: RuntimeError: no"):
        async with serving(config(gateways="noting", services=["noting"]), plugins, Stop()):
            pass
    assert NOTES.lines == ["service starts", "service closes"]


async def test_routes_that_no_gateway_serves_are_told(plugins: Plugins, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(config(services=["noting"]), plugins, Stop()):
        pass
    assert "no gateway serves them" in caplog.text
    assert "clients use the client plane over memory" in caplog.text


async def test_without_a_gateway_installed_the_client_plane_serves(
    plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plugins._entry_points["gateways"].clear()
    role = OrchestratorRole(config(gateways=None), plugins, ready=lambda served: told.append(served))
    told: list[Served] = []
    await role.start()
    await role.admit()
    await expect(role.close(0.0), "it closes")
    assert told[0].address == ""
    assert caplog.text.count("pip install") + caplog.text.count("anywire-gateway-openai has one") == 1
    assert not assembly.make_gateways(config(gateways=None), plugins)
    with pytest.raises(Exception, match="no gateway named 'openai' is installed: pip install anywire-gateway-openai"):
        assembly.make_gateways(config(gateways="openai"), plugins)


# The process


def process(role: str, text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anywire.roles.process", *([role] if role else [])]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_process_of_a_role_ends_with_its_standard_input() -> None:
    for role, said in (
        ("agent", "ready: agent a, engine synthetic (synthetic), over memory"),
        ("orchestrator", "ready: "),
    ):
        done = process(role, config(agent={"id": "a"}, client_plane=False).model_dump_json() + "\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said) or "the parent process ended" in done.stderr


@pytest.mark.parametrize(
    ("role", "text", "code", "said"),
    [
        ("", "", 2, "usage: "),
        ("gardener", "{}\n", 2, "agent|orchestrator"),
        ("agent", "", 1, "error: this is for processes that a launcher starts"),
        ("agent", '{"engine": {"name": "synthetic", "x": 1}, "transports": "memory"}\n', 1, "error: unknown key"),
    ],
)
def test_what_is_wrong_ends_it_with_one_line(role: str, text: str, code: int, said: str) -> None:
    done = process(role, text)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# Who imports whom


def test_no_plugin_imports_the_command_line() -> None:
    root = Path(__file__).parents[2]
    for path in [*(root / "plugins").rglob("*.py"), *(root / "core/anywire/roles").glob("*.py")]:
        assert "anywire.cli" not in path.read_text().replace('"-m", "anywire.cli"', ""), path


async def test_stopping_before_the_start_is_no_error() -> None:
    from anywire.roles.stop import StopRequested

    stop = Stop()
    stop.request("a test")
    with pytest.raises(StopRequested):
        await stop.unless(asyncio.Event().wait())


async def test_an_engine_whose_offers_are_none_is_described_and_its_agent_runs() -> None:
    class Wrong(ScriptedEngine):
        def status(self) -> EngineStatus:
            return EngineStatus("ready", ("\x1b[31m", 5))  # type: ignore[arg-type]

    engine = Wrong()
    agent = Agent(agent_info("a", engine=engine), engine, [])
    assert description(agent, Config()) == "agent a, engine scripted (no model), over dds"


LEFT = """
import asyncio, sys
from anywire.roles import stop

stop.LEFT_ALONE = 0.01


async def never():
    while True:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass


async def main(asked):
    kept.append(asyncio.create_task(never()))
    await asyncio.sleep(0)
    return "done"


kept = []
print(stop.run(main))
"""


def test_what_does_not_end_at_its_cancel_keeps_no_process() -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    assert "left alone: <coroutine object never" in ended.stderr


async def test_what_keeps_agents_from_answering_is_said_for_each() -> None:
    def view(agent_id: str, state: str, detail: str = "") -> Any:
        return SimpleNamespace(agent_id=agent_id, status=SimpleNamespace(state=state, detail=detail))

    agents = [
        view("a", "ready"),
        view("b", "starting", "http://127.0.0.1:1/v1 cannot\nbe reached"),
        view("z", "failed"),
    ]
    said = what_is_missing(["a", "b", "c", "d"], agents, "dds")
    assert said == [
        "agents run but have not joined over dds: c, d; `anywire doctor` tells what is missing",
        "agent b has joined but cannot answer: it is starting, http://127.0.0.1:1/v1 cannot be reached",
    ]
    assert what_is_missing(["a"], agents, "dds") == []
