"""From factors to arms: every combination of levels with its whole configuration, and the orders they are run in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pydantic

from anywire.config import Config
from anywire.errors import AnywireError, ConfigError
from anywire.plugins import describe_validation
from anywire.roles import assembly
from anywire_experiment.plan.companions import Companion, check_named, check_order
from anywire_experiment.plan.config_tree import SHORT, choose, configure, merge, normalised, set_option
from anywire_experiment.plan.fault_kinds import OPENAI, StandInServers, fault_without
from anywire_experiment.plan.faults import FAULT, faults_of
from anywire_experiment.plan.levels import Level
from anywire_experiment.plan.network import Network
from anywire_experiment.plan.orders import arm_names
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.programs import Named, ReadyAt, addressed, sample_value
from anywire_experiment.plan.systems import SYSTEM, AnywireSystem, ForeignSystem, check_foreign, system_of
from anywire_experiment.plan.workload import Fault

REQUEST = "request"
"""The factor whose levels are members of the requests; with a dot, one of them."""
_OF_WORKLOADS = ("messages", "stream", "stream_options", "n")
"""Members of a request that the workload or the framework settles."""
ALONE = "system"
"""The arm of a plan without factors."""

DELIBERATION = ("deliberate", "deliberation")
"""A model whose answers are deliberations, and the service that offers it."""

LAUNCHER = "launcher"
"""The key by which a plan has a launcher start the agents, in place of the cell."""


@dataclass(frozen=True)
class Build:
    """A revision of Anywire that can be run: the interpreter of the environment that has it, and its commit."""

    python: Path
    commit: str


@dataclass(frozen=True)
class Arm:
    """One combination of levels. ``tree`` is a configuration as a file would hold it, in which hosts and ports of its
    ``companions`` still stand in braces; it is empty where the system is ``foreign``, and not Anywire's."""

    name: str
    levels: Mapping[str, str]
    tree: Mapping[str, Any]
    agents: int
    network: Network | None
    companions: Mapping[str, Companion] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    """Members of every chat request that clients send, over those of the workload."""
    system: AnywireSystem | ForeignSystem = field(default_factory=AnywireSystem)
    """Its level of the factor ``system``."""
    build: Build | None = None
    """Where the system's revision was built; None for what is installed here, and before it was built."""
    faults: Mapping[str, Fault] = field(default_factory=dict)
    """By workload, what is done to the system while it is measured."""
    stand_in: StandInServers | None = None
    """The servers behind its agents."""

    @property
    def foreign(self) -> ForeignSystem | None:
        """The system, where it is not Anywire's."""
        return self.system if isinstance(self.system, ForeignSystem) else None

    @property
    def transports(self) -> list[str]:
        """Of Anywire; none where the system is another one."""
        return list(self.tree.get("transports", ()))


def arms_of(plan: Plan) -> list[Arm]:
    """Every arm, its configuration checked down to each plugin's own options. Raises `ConfigError`."""
    factors = list(plan.factors)
    made = []
    for levels in itertools.product(*plan.factors.values()):
        chosen = dict(zip(factors, levels, strict=True))
        labels = {factor: level.label for factor, level in chosen.items()}
        where = ", ".join(f"{factor} {label}" for factor, label in labels.items()) or "system"
        made.append(_arm(plan, chosen, labels, where))
        _check(plan, made[-1], where)
        _check_faults(plan, made[-1])
    return made


def _arm(plan: Plan, chosen: Mapping[str, Level], labels: Mapping[str, str], where: str) -> Arm:
    system = system_of(chosen[SYSTEM].label, chosen[SYSTEM].value) if SYSTEM in chosen else AnywireSystem()
    tree: dict[str, Any] = {}
    agents, network, request = 0, plan.network, dict[str, Any]()
    if isinstance(system, AnywireSystem):
        tree, agents = normalised(plan.system, "system"), system.agents or plan.agents
        configure(tree, system.config, f"factors.{SYSTEM}.{labels.get(SYSTEM, '')}.config")
    faults = {key: each.fault for key, each in plan.workloads.items() if each.fault is not None}
    for factor, level in chosen.items():
        if is_of_requests(factor):
            _ask(request, factor, level.value)
        elif factor == SYSTEM:
            continue
        elif isinstance(system, ForeignSystem):
            raise ConfigError(
                f"{where}: the factor {factor!r} is of Anywire, and this system is another one: leave the factor out, "
                f"and give each form of Anywire a level of `{SYSTEM}`, such as "
                "{anywire-dds: {config: {transports: dds}}}"
            )
        elif factor == "agents":
            agents = _agents(level.value)
        elif factor == FAULT:
            faults = faults_of(plan.workloads, level.value)
        elif factor == "network":
            network = _network(level.value)
        elif factor in SHORT:
            choose(tree, SHORT[factor], level.value, f"factors.{factor}")
        else:
            set_option(tree, factor, level.value)
    companions = {key: each for key, each in plan.companions.items() if each.is_of(labels)}
    if double := next((key for key in system.companions if key in plan.companions), None):
        raise ConfigError(f"{where}: the plan has a companion {double!r} too; choose another name")
    companions |= system.companions
    name = "+".join(labels.values()) or ALONE
    return Arm(name, labels, tree, agents, network, companions, request, system, None, faults, plan.stand_in)


def _check_faults(plan: Plan, arm: Arm) -> None:
    """Raises `ConfigError` for a fault that cannot be inflicted on it."""
    if arm.foreign is not None:
        if plan.stand_in is not None or arm.faults:
            raise ConfigError(
                f"faults and `stand_in` are of Anywire's processes, and the system of the arm {arm.name!r} is another "
                "one: leave that level out"
            )
        return
    where = "started by a launcher" if LAUNCHER in arm.tree else "in the orchestrator's own process"
    engine, own_agents = config_of(arm).engine.name, not starts_its_agents(arm)
    if arm.stand_in is not None and (engine != OPENAI or not own_agents):
        lacking = f"the engine is {engine}" if engine != OPENAI else f"the agents are {where}"
        raise ConfigError(
            f"stand_in: it needs the engine {OPENAI} in agents of the cell; in the arm {arm.name!r} {lacking}"
        )
    for name, each in arm.faults.items():
        lacking = fault_without(
            each.kind,
            network=arm.network is not None,
            own_agents=own_agents,
            agents_where=where,
            engine=engine,
            stand_in=arm.stand_in is not None,
        )
        if lacking:
            raise ConfigError(f"workload {name!r} {lacking.replace('{arm}', repr(arm.name))}")


def is_of_requests(factor: str) -> bool:
    """Whether its levels are members of the requests that clients send, and not settings of the system."""
    return factor.partition(".")[0] == REQUEST


def config_of(arm: Arm, where: str = "", value_of: Named = sample_value) -> Config:
    """The arm's configuration, with the hosts and ports of its companions by ``value_of``. Raises `ConfigError`, also
    for an arm whose system is not Anywire's."""
    if arm.foreign is not None:
        raise ConfigError(f"{where or arm.name}: this system is not Anywire's, and has no configuration of it")
    check_named(arm.tree, arm.companions, where or arm.name)
    try:
        return Config.model_validate(addressed(deepcopy(dict(arm.tree)), value_of))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where or arm.name}: {describe_validation(error, Config, '')}") from None


def _check(plan: Plan, arm: Arm, where: str) -> None:
    """Raises `ConfigError` for whatever is wrong with an arm, so that it is told before anything starts."""
    check_order(arm.companions, where)
    for name, each in arm.companions.items():
        if arm.network is not None and isinstance(each.ready, ReadyAt):
            raise ConfigError(
                f"{where}: companions.{name}.ready: with `network` no URL of it can be asked from here: give the line "
                "that it writes"
            )
    if arm.foreign is not None:
        check_foreign(plan, arm.foreign, arm.companions, where)
        return
    check(arm, where)
    _check_model(plan, arm, where)


def check(arm: Arm, where: str) -> None:
    """Build everything that an arm of Anywire names. Raises `ConfigError`."""
    config = config_of(arm, where)
    try:
        plugins = assembly.load_plugins(config)
        _, faults = assembly.effective(config, plugins)
    except AnywireError as error:
        raise ConfigError(f"{where}: {error}") from error
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    inside = in_one_process(arm)
    if arm.network is not None and inside:
        raise ConfigError(f"{where}: a network lies between processes, and this transport stays inside of one process")
    if LAUNCHER in arm.tree and arm.network is not None:
        raise ConfigError(
            f"{where}: a launcher starts the agents on the orchestrator's host, and with `network` they are on another"
        )
    if config.on_demand.most and LAUNCHER not in arm.tree:
        raise ConfigError(
            f"{where}: agents on demand are started by a launcher, and the cell starts those of this arm: add "
            "`launcher: local` to `system`, or set on_demand.most to 0"
        )
    if LAUNCHER in arm.tree and inside:
        raise ConfigError(
            f"{where}: this transport stays inside of one process, where no launcher is used: leave `launcher` out"
        )


def _check_model(plan: Plan, arm: Arm, where: str) -> None:
    """Raises `ConfigError` for requests to a deliberation where nothing deliberates."""
    services = [each.name for each in config_of(arm, where).services or []]
    for name, workload in plan.workloads.items():
        model = arm.request.get("model", workload.model)
        if not isinstance(model, str):
            raise ConfigError(f"{where}: request.model: expected the name of a model, found {model!r}")
        if model.partition(":")[0] == DELIBERATION[0] and DELIBERATION[1] not in services:
            raise ConfigError(
                f"{where}: workload {name!r} asks for the model {model!r}, which the service {DELIBERATION[1]!r} "
                f"offers: add `services: {{{DELIBERATION[1]}: {{}}}}` to `system`"
            )


def starts_its_agents(arm: Arm) -> bool:
    """Whether the orchestrator's process has the agents: inside of it, or started by the launcher that the plan names.
    Otherwise each of them is a process of the cell, or the system is not Anywire's and has none."""
    return LAUNCHER in arm.tree or in_one_process(arm)


def in_one_process(arm: Arm) -> bool:
    if arm.foreign is not None:
        return False
    config = config_of(arm)
    return assembly.in_one_process(config, assembly.load_plugins(config))


def arm_order(plan: Plan, block: int, arms: list[Arm]) -> list[Arm]:
    """The arms of a block, in the order in which they run."""
    by_name = {each.name: each for each in arms}
    return [by_name[name] for name in arm_names(plan, block, list(by_name))]


def load_seed(plan: Plan, block: int) -> int:
    """The seed of a block's arrivals and prompts: the same for every arm of it, so that they get equal work."""
    return random.Random(f"{plan.seed}/block {block}/load").getrandbits(48)


def _ask(request: dict[str, Any], factor: str, value: Any) -> None:
    """A level of a factor ``request``: members of the requests, or with dots one of them."""
    _, *keys = factor.split(".")
    for key in reversed(keys):
        value = {key: value}
    if not isinstance(value, dict):
        raise ConfigError(f"factors.{factor}: a level is a mapping with members of the requests, found {value!r}")
    if settled := [key for key in _OF_WORKLOADS if key in value]:
        raise ConfigError(f"factors.{factor}: the workload says {settled[0]!r}; leave it out")
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigError(f"factors.{factor}: a request is JSON: {error}") from error
    merge(request, deepcopy(value))


def _agents(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 200:
        raise ConfigError(f"factors.agents: a level is a number from 1 to 200, found {value!r}")
    return value


def _network(value: Any) -> Network | None:
    if value is None or value in ("none", "loopback"):
        return None
    try:
        return Network.model_validate(value)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation(error, Network, "factors.network")) from None
