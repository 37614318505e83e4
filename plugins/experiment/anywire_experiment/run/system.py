"""The system under test of one cell: an orchestrator and its agents, each a process of its own, started afresh."""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pydantic
import yaml
from pydantic.fields import FieldInfo

from anywire.config import Config, replaced
from anywire.events import TaskEnded
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire_experiment.load.spec import ClientPlane
from anywire_experiment.network import Host, Hosts
from anywire_experiment.plan.arms import LAUNCHER, Arm, config_of, starts_its_agents
from anywire_experiment.record.masking import masked
from anywire_experiment.run import recorder
from anywire_experiment.run.managed import CellFailed, Died, Managed
from anywire_experiment.run.process import AGENT
from anywire_experiment.run.revision import VARIABLES, command_of, for_revision
from anywire_experiment.run.subject import GRACE, LOOPBACK, Subject, free_port

ORCHESTRATOR = "orchestrator"
_ANSWER = 15.0
"""Seconds in which the orchestrator answers a question, however busy it is."""
_DDS_DOMAINS = range(10, 101)
"""Up to 100 they keep clear of the ports that the system gives out."""


class System(Subject):
    """An arm's orchestrator, agents and companions. Agents that a launcher starts are measured with the orchestrator,
    whose process has the launcher."""

    def __init__(
        self,
        arm: Arm,
        folder: Path,
        private: Path,
        cpus: Sequence[int],
        domain: int,
        hosts: Hosts | None,
        died: Died,
        beside: Collection[str] = (),
    ) -> None:
        """``beside``: agents that run on the orchestrator's host, and not behind the link."""
        super().__init__(arm, folder, private, cpus, hosts, died)
        self._single = starts_its_agents(arm)
        self._counts, self._tells_available = True, False
        self._tasks = private / "tasks.jsonl"
        """What the recorder writes."""
        host = hosts.orchestrator.address if hosts else LOOPBACK
        base = _with_addresses(config_of(arm, value_of=lambda name, what: self._places[name][what]), domain, host)
        central = _on_host(base, hosts.orchestrator) if hosts else base
        remote = _on_host(base, hosts.agents) if hosts else base
        self._plane = ClientPlane(
            transport=arm.transports[0], options=central.transports[0].options, lease=base.lease.timeout
        )
        self._own_grace = base.shutdown_grace + GRACE
        if LAUNCHER in arm.tree:
            # Its agents get theirs, one after the other.
            self._own_grace *= 2
        role = "all" if self._single else ORCHESTRATOR
        self.orchestrator = self._managed(ORCHESTRATOR, [role, str(arm.agents)], cpus, died)
        self.orchestrator.prefix = hosts.orchestrator.command() if hosts else []
        # What it keeps beyond its life is of this cell alone: a service must not go on with what another one left.
        state = (private / "state").absolute()
        self.orchestrator.environment = {recorder.VARIABLE: str(self._tasks), "XDG_STATE_HOME": str(state)}
        own = base.agent.model_dump() | {"id": AGENT if self._single else ""}
        self.configs = {ORCHESTRATOR: replaced(central, plugins=[*base.plugins, recorder.__name__], agent=own)}
        self.agents: dict[str, Managed] = {}
        for number in range(1, 1 if self._single else arm.agents + 1):
            name = f"{AGENT}-{number}"
            self.agents[name] = self._managed(name, [AGENT, "0"], cpus, died)
            there = central if name in beside else remote
            if hosts:
                self.agents[name].prefix = (hosts.orchestrator if name in beside else hosts.agents).command()
            self.configs[name] = replaced(there, agent=base.agent.model_dump() | {"id": name})

    @property
    def own(self) -> Mapping[str, Managed]:
        return {ORCHESTRATOR: self.orchestrator, **self.agents}

    @property
    def wire_pid(self) -> int:
        return self.orchestrator.pid

    @property
    def _grace(self) -> float:
        return self._own_grace

    def client_plane(self) -> ClientPlane:
        return self._plane

    async def _start(self) -> None:
        self._write_configs()
        await self.orchestrator.start(self._first_line(ORCHESTRATOR))
        told = await self.orchestrator.hear("started")
        self.url, self._tells_available = told["url"], "available" in told.get("answers", ())
        for name in self.agents:
            await self.start_agent(name)
        await self.whole()
        for name, each in self.own.items():
            each.say("settings")
            told = (await each.hear("settings"))["transports"]
            text = msgspec.json.format(msgspec.json.encode(told), indent=2)
            (self._folder / f"settings-{name}.json").write_bytes(text + b"\n")

    async def start_agent(self, name: str) -> None:
        await self.agents[name].start(self._first_line(name))

    async def whole(self) -> None:
        """Wait until every agent is there and ready, and a request was answered. Raises `CellFailed`."""
        self.orchestrator.say("whole")
        told = await self.orchestrator.hear("whole", "refused")
        if told["event"] == "refused":
            raise CellFailed(f"the first request was not answered: {told['reason']}")
        expected = self.arm.transports[0]
        if told["transport"] != expected:
            raise CellFailed(f"the first request was answered over {told['transport']} and not {expected}")

    async def available(self) -> None:
        if not self._tells_available:
            return  # a revision from before it was asked for that
        self.trouble = ""
        self.orchestrator.say("available")
        told = await self.orchestrator.hear("available", "awaited", silence=_ANSWER)
        while told["event"] == "awaited":
            self.trouble = told["reason"]
            told = await self.orchestrator.hear("available", "awaited")

    async def counters(self) -> Mapping[str, float]:
        if not self.orchestrator.alive or not self._counts:
            return {}
        self.orchestrator.say("counters")
        try:
            counted: dict[str, float] = (await self.orchestrator.hear("counters", silence=_ANSWER))["counters"]
        except CellFailed:
            if self.arm.build is None or not self.orchestrator.alive:
                raise
            # A revision from before it was asked for them.
            self._counts = False
            return {}
        return counted

    def recorded(self) -> tuple[list[TaskEnded], list[recorder.Change], str]:
        try:
            tasks, changes, whole = recorder.read(self._tasks)
        except msgspec.DecodeError:
            if self.arm.build is None:
                raise
            # Another version may write its events in another form: there are no stages then.
            return [], [], ""
        missing = f"the orchestrator could not write down all of its tasks: {self.orchestrator.last_lines()}"
        return tasks, changes, "" if whole else missing

    def _first_line(self, name: str) -> str:
        """The configuration that a process is given."""
        if self.arm.build is None:
            return self.configs[name].model_dump_json()
        return for_revision(self.arm, self.configs[name], self._places)

    def _write_configs(self) -> None:
        for name, config in self.configs.items():
            if self.arm.build is None:
                tree, _ = assembly.effective(config, assembly.load_plugins(config))
            else:
                # What it makes of that, it alone knows.
                tree = masked(msgspec.json.decode(for_revision(self.arm, config, self._places)))
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            (self._folder / f"config-{name}.yaml").write_text(text, encoding="utf-8")

    def _managed(self, name: str, arguments: list[str], cpus: Sequence[int], died: Died) -> Managed:
        log = self._folder / "logs" / f"{name}.log"
        made = Managed(name, ["anywire_experiment.run.process", *arguments], cpus, log, died)
        if self.arm.build is not None:
            made.python, made.without = command_of(self.arm.build), VARIABLES
        return made


def free_dds_domain() -> int:
    """A DDS domain on whose ports nothing listens on this machine."""
    used = {each.laddr.port for each in psutil.net_connections("udp") if each.laddr}
    free = [each for each in _DDS_DOMAINS if not used.intersection(range(7400 + 250 * each, 7650 + 250 * each))]
    return random.SystemRandom().choice(free or list(_DDS_DOMAINS))


def _with_addresses(config: Config, domain: int, host: str) -> Config:
    """With addresses and a domain that nobody else uses, where the plan names none."""
    plugins = assembly.load_plugins(config)
    transports: dict[str, dict[str, Any]] = {}
    for each in config.transports:
        options = dict(each.options)
        fields = _fields(plugins, each.name)
        for key in ("agent_addresses", "client_addresses"):
            if key in fields and key not in options:
                usual = str(fields[key].get_default(call_default_factory=True)[0])
                options[key] = [f"{_scheme(usual)}{host}:{free_port()}"]
        if "domain" in fields:
            options.setdefault("domain", domain)
        elif plugins.load("transports", each.name).capabilities.discovery == "brokered":
            # Its server may have other fleets.
            options |= plugins.load("transports", each.name).free_options(options)
        if host != LOOPBACK and "token" in fields:
            # Between hosts transports may insist on one; those that do not have it as their users would.
            options.setdefault("token", secrets.token_urlsafe(16))
        transports[each.name] = options
    changes: dict[str, Any] = {"transports": transports, "server": config.server.model_dump() | {"port": 0}}
    if host != LOOPBACK and not config.access.model_fields_set:
        # The emulated network has no others in it; what a plan says of who may come in stays.
        changes["access"] = {"insecure": True}
    return replaced(config, **changes)


def _on_host(config: Config, host: Host) -> Config:
    """With what its transports must know of the host a process runs on, where the plan does not say it."""
    plugins = assembly.load_plugins(config)
    transports: dict[str, dict[str, Any]] = {}
    for each in config.transports:
        options = dict(each.options)
        fields = _fields(plugins, each.name)
        if "agent_listen" in fields:
            options.setdefault("agent_listen", f"{_scheme(fields['agent_listen'].default)}{host.address}:0")
        if "interface" in fields:
            options.setdefault("interface", host.interface)
        transports[each.name] = options
    return replaced(config, transports=transports)


def _scheme(address: str) -> str:
    """What a transport's addresses begin with: ``tcp://``, or nothing."""
    scheme, separator, _ = address.rpartition("://")
    return scheme + separator


def _fields(plugins: Plugins, transport: str) -> dict[str, FieldInfo]:
    options: type[pydantic.BaseModel] = plugins.load("transports", transport).Config
    return options.model_fields
