"""From factors to arms: every combination of levels with its whole configuration, and the orders they are run in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic

from anywire.config import Config, named
from anywire.errors import AnywireError, ConfigError
from anywire.plugins import describe_validation
from anywire.roles import assembly
from anywire_experiment.companions import Companion, addressed, check_named, sample_value
from anywire_experiment.orders import arm_names
from anywire_experiment.plan import Network, Plan

SHORT = {
    "transport": "transports",
    "selector": "selector",
    "scheduler": "scheduler",
    "engine": "engine",
    "launcher": "launcher",
}
REQUEST = "request"
"""The factor whose levels are members of the requests; with a dot, one of them."""
_OF_WORKLOADS = ("messages", "stream", "stream_options", "n")
"""Members of a request that the workload or the framework settles."""
_SECTIONS = ("scheduler", "selector", "engine", "launcher")
ALONE = "system"
"""The arm of a plan without factors."""

DELIBERATION = ("deliberate", "deliberation")
"""A model whose answers are deliberations, and the service that offers it."""

LAUNCHER = "launcher"
"""The key by which a plan has a launcher start the agents, in place of the cell."""

SETTLED = ("server", "gateways", "join", "standby")
"""Keys that each cell settles for itself."""


@dataclass(frozen=True)
class Arm:
    """One combination of levels. ``tree`` is a configuration as a file would hold it, in which hosts and ports of its
    ``companions`` still stand in braces."""

    name: str
    levels: Mapping[str, str]
    tree: Mapping[str, Any]
    agents: int
    network: Network | None
    companions: Mapping[str, Companion] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    """Members of every chat request that clients send, over those of the workload."""

    @property
    def transports(self) -> list[str]:
        return list(self.tree["transports"])


def arms_of(plan: Plan) -> list[Arm]:
    """Every arm, its configuration checked down to each plugin's own options. Raises `ConfigError`."""
    factors = list(plan.factors)
    made = []
    for levels in itertools.product(*plan.factors.values()):
        chosen = dict(zip(factors, levels, strict=True))
        labels = {factor: level.label for factor, level in chosen.items()}
        name = "+".join(labels.values()) or ALONE
        where = ", ".join(f"{factor} {label}" for factor, label in labels.items()) or "system"
        tree, agents, network = _normalised(plan.system, "system"), plan.agents, plan.network
        request: dict[str, Any] = {}
        for factor, level in chosen.items():
            if factor == "agents":
                agents = _agents(level.value)
            elif factor == "network":
                network = _network(level.value)
            elif is_of_requests(factor):
                _ask(request, factor, level.value)
            elif factor in SHORT:
                _choose(tree, SHORT[factor], level.value, f"factors.{factor}")
            else:
                _set(tree, factor, level.value)
        companions = {key: each for key, each in plan.companions.items() if each.is_of(labels)}
        made.append(Arm(name, labels, tree, agents, network, companions, request))
        check(made[-1], where)
        _check_model(plan, made[-1], where)
    needing = [name for name, each in plan.workloads.items() if each.fault and each.fault.kind == "partition"]
    if needing and (bare := next((each.name for each in made if each.network is None), None)):
        raise ConfigError(f"workload {needing[0]!r} cuts the network, and the arm {bare!r} has none: set `network`")
    single = [name for name, each in plan.workloads.items() if each.fault]
    if single and (inside := next((each for each in made if starts_its_agents(each)), None)):
        where = "started by a launcher" if LAUNCHER in inside.tree else "in the orchestrator's own process"
        raise ConfigError(
            f"workload {single[0]!r} has a fault of an agent's process, and in the arm {inside.name!r} the agents are "
            f"{where}: leave that level out"
        )
    return made


def is_of_requests(factor: str) -> bool:
    """Whether its levels are members of the requests that clients send, and not settings of the system."""
    return factor.partition(".")[0] == REQUEST


def config_of(arm: Arm, where: str = "", value_of: Callable[[str, str], str] = sample_value) -> Config:
    """The arm's configuration, with the hosts and ports of its companions by ``value_of``. Raises `ConfigError`."""
    check_named(arm.tree, arm.companions, where or arm.name)
    try:
        return Config.model_validate(addressed(deepcopy(dict(arm.tree)), value_of))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where or arm.name}: {describe_validation(error, Config, '')}") from None


def check(arm: Arm, where: str) -> None:
    """Build everything the arm names, so that what is wrong is told before anything starts. Raises `ConfigError`."""
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
    Otherwise each of them is a process of the cell."""
    return LAUNCHER in arm.tree or in_one_process(arm)


def in_one_process(arm: Arm) -> bool:
    config = config_of(arm)
    return assembly.in_one_process(config, assembly.load_plugins(config))


def arm_order(plan: Plan, block: int, arms: list[Arm]) -> list[Arm]:
    """The arms of a block, in the order in which they run."""
    by_name = {each.name: each for each in arms}
    return [by_name[name] for name in arm_names(plan, block, list(by_name))]


def load_seed(plan: Plan, block: int) -> int:
    """The seed of a block's arrivals and prompts: the same for every arm of it, so that they get equal work."""
    return random.Random(f"{plan.seed}/block {block}/load").getrandbits(48)


def _normalised(system: Mapping[str, Any], where: str) -> dict[str, Any]:
    tree = deepcopy(dict(system))
    for key in SETTLED:
        if key in tree:
            raise ConfigError(f"{where}.{key}: the experiment settles this for each cell; leave it out")
    if isinstance(tree.get("agents"), list):
        raise ConfigError(f"{where}.agents: the agents of a plan are alike; say how many beside `system`: agents: 2")
    default = Config.model_fields["transports"].get_default(call_default_factory=True)
    tree["transports"] = _named(tree.get("transports", default), f"{where}.transports")
    for key in _SECTIONS:
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
        elif not isinstance(tree.get(key, {}), dict):
            raise ConfigError(f"{where}.{key}: expected a name, or a mapping with `name` and options")
    return tree


def _choose(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """A plugin by name; options the system has for one of that name are kept."""
    if key == "transports":
        known = tree[key]
        tree[key] = {name: {**known.get(name, {}), **given} for name, given in _named(value, where).items()}
        return
    section = {"name": value} if isinstance(value, str) else value
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: a level is a name, or a mapping with `name` and options, found {value!r}")
    present = {"name": Config.model_fields[key].default.name, **tree.get(key, {})}
    if section.get("name", present["name"]) != present["name"]:
        shared = type(Config.model_fields[key].default).model_fields
        present = {name: option for name, option in present.items() if name in shared}
    tree[key] = present | section


def _named(value: Any, where: str) -> dict[str, dict[str, Any]]:
    try:
        return named(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _set(tree: dict[str, Any], factor: str, value: Any) -> None:
    first, *rest = factor.split(".")
    if first not in Config.model_fields or first in SETTLED:
        usable = sorted({*SHORT, "network", REQUEST, *Config.model_fields} - {*SETTLED})
        raise ConfigError(
            f"factors.{factor}: no such key of the config; a factor begins with one of: {', '.join(usable)}"
        )
    if first == "transports" and (not rest or rest[0] not in tree["transports"]):
        raise ConfigError(
            f"factors.{factor}: an option of a transport that this arm does not use (it uses "
            f"{', '.join(tree['transports'])}); to choose transports, name the factor `transport`"
        )
    inside = tree
    for part in (first, *rest)[:-1]:
        inside = inside.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"factors.{factor}: {part!r} is a value in `system`, with no keys inside")
    inside[(first, *rest)[-1]] = value


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
    _merge(request, deepcopy(value))


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


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
