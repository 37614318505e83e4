"""What code was measured: where each plugin and companion of a plan comes from, so that a reader can get the same."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, metadata, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from anywire.config import Config
from anywire.plugins import PluginKind, Plugins
from anywire.roles import assembly
from anywire_experiment.plan.arms import Arm, config_of
from anywire_experiment.plan.programs import Program
from anywire_experiment.plan.systems import SYSTEM, programs_of
from anywire_experiment.record.checkout import checkout_of
from anywire_experiment.record.programs import program_found

_LARGEST = 64 * 1024 * 1024
"""Bytes of sources that are hashed; a package with more is told by its version alone."""


class Source(msgspec.Struct, frozen=True):
    """Where one plugin or companion comes from.

    ``distribution`` and ``version`` are of the installed package, empty for a file. So many ``files`` were hashed: the
    Python files of the package or module that the plugin is in, or the program; ``sha256`` is of their names and
    contents. ``commit`` and ``changes`` are of the git checkout that the files lie in, empty without one: ``clean``, or
    a hash of what differs from the commit. ``wheel`` is the SHA-256 of the list of files and hashes that an installed
    wheel brings (its ``RECORD``), to 32 digits; empty where the package was not installed from one.
    """

    distribution: str = ""
    version: str = ""
    module: str = ""
    files: int = 0
    sha256: str = ""
    commit: str = ""
    changes: str = ""
    wheel: str = ""

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}" if self.distribution else f"module {self.module}"
        if self.version and not self.distribution:
            package = f"{self.module}: {self.version}"
        if not self.files and not self.sha256 and self.commit:
            return f"commit {self.commit[:12]}"
        checkout = f", commit {self.commit[:12]}, changes: {self.changes}" if self.commit else ""
        files = f"{self.files} file{'' if self.files == 1 else 's'}"
        wheel = f", wheel {self.wheel[:16]}" if self.wheel else ""
        return f"{package}, {files}, SHA-256 {self.sha256[:16] or 'not known'}{checkout}{wheel}"


class Code(NamedTuple):
    """Where the code of one plugin is: the file of the module it is in, None where there is none."""

    file: str | None
    module: str
    distribution: str
    version: str


def sources_of(arms: Sequence[Arm]) -> dict[str, Source]:
    """By kind and name (``transports dds``), every plugin that the arms load, their companions, and systems that are
    not Anywire's. Raises `ConfigError` for a program that is not there."""
    found = {name: source_of(code) for name, code in code_of(arms).items()}
    for arm in arms:
        label = arm.levels.get(SYSTEM, arm.name)
        if arm.build is not None:
            found[f"revision {label}"] = Source(module=arm.name, commit=arm.build.commit, changes="clean")
        program = arm.foreign.program if arm.foreign is not None else None
        for name, each in programs_of(arm.companions, program):
            kind, of = (SYSTEM, label) if each is program else ("companion", name)
            if f"{kind} {of}" not in found:
                where = f"factors.{SYSTEM}.{of}.command" if kind == SYSTEM else f"companions.{name}.command"
                found[f"{kind} {of}"] = _run_module(each) or Source(**program_found(where, each)._asdict())
    return dict(sorted(found.items()))


def code_of(arms: Sequence[Arm]) -> dict[str, Code]:
    """By kind and name, where the code of every plugin is that the arms load here: those of a revision are of it."""
    found: dict[str, Code] = {}
    for arm in arms:
        if arm.build is not None or arm.foreign is not None:
            continue
        config = config_of(arm)
        plugins = assembly.load_plugins(config)
        for kind, name in plugins_named(config, plugins):
            if f"{kind} {name}" not in found:
                found[f"{kind} {name}"] = _plugin(plugins, kind, name)
        for name, hooks in plugins.manager.list_name_plugin():
            if file := getattr(hooks, "__file__", None):
                code = Code(file, getattr(hooks, "__name__", name), "", "")
                found.setdefault(f"hooks {Path(name).name}", code)
    return found


def source_of(code: Code) -> Source:
    if code.file is None:
        return Source(code.distribution, code.version, code.module)
    source = _module(code.file, code.module)
    wheel = wheel_of(code.distribution) if code.distribution else ""
    return msgspec.structs.replace(source, distribution=code.distribution, version=code.version, wheel=wheel)


@cache
def wheel_of(name: str) -> str:
    """Of an installed distribution, as `Source.wheel`; empty for an editable one, and for one without a wheel."""
    try:
        installed = distribution(name)
        listed = installed.read_text("RECORD")
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return ""
    editable = isinstance(origin, dict) and bool(origin.get("dir_info", {}).get("editable"))
    # Without the lines that installing adds, which tell of this machine.
    kept = [line for line in (listed or "").splitlines() if ",sha256=" in line and ".dist-info/" not in line]
    return hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:32] if kept and not editable else ""


def files_of(code: Code) -> tuple[Path, list[Path]]:
    """The folder above the package or module, or that of a file, and the Python files in it that are the code's."""
    path = Path(code.file or "")
    top = path.parent
    for _ in range(code.module.count(".") - (path.name != "__init__.py")):
        top = top.parent
    inside = "." in code.module or path.name == "__init__.py"
    return top, sorted(top.rglob("*.py")) if inside else [path]


def plugins_named(config: Config, plugins: Plugins) -> Iterator[tuple[PluginKind, str]]:
    """Kind and name of every plugin that a configuration loads."""
    for transport in config.transports:
        yield "transports", transport.name
    yield "engines", config.engine.name
    yield "schedulers", config.scheduler.name
    yield "selectors", config.selector.name
    for gateway in assembly.chosen_gateways(config, plugins):
        yield "gateways", gateway.name
    for service in config.services or []:
        yield "services", service.name


def _plugin(plugins: Plugins, kind: PluginKind, name: str) -> Code:
    made = plugins.load(kind, name)
    package, _, version = plugins.distribution(kind, name).rpartition(" ")
    # A module that was loaded from a file is known to the plugins alone.
    loaded = {getattr(each, "__name__", ""): each for _, each in plugins.manager.list_name_plugin()}
    file = getattr(sys.modules.get(made.__module__) or loaded.get(made.__module__), "__file__", None)
    return Code(file, made.__module__, package, version)


def _run_module(program: Program) -> Source | None:
    """Of ``{python} -m MODULE``; None for any other program."""
    interpreter, flag, name, *_ = (*program.command, "", "")
    top = name.partition(".")[0]
    spec = find_spec(top) if (interpreter, flag) == ("{python}", "-m") and top else None
    if spec is None or spec.origin is None:
        return None
    named = (packages_distributions().get(top) or [top])[0]
    try:
        told = metadata(named)
    except PackageNotFoundError:
        return msgspec.structs.replace(_module(spec.origin, top), module=name)
    return msgspec.structs.replace(
        _module(spec.origin, top), module=name, distribution=told["Name"], version=told["Version"]
    )


@cache
def _module(file: str, module: str) -> Source:
    path = Path(file)
    if not path.is_file():
        return Source(module=module)
    top, files = files_of(Code(file, module, "", ""))
    commit, changes = checkout_of(path)
    return Source(module=module, commit=commit, changes=changes, files=len(files), sha256=_hash(top, files))


def _hash(top: Path, files: Iterable[Path]) -> str:
    whole, room = hashlib.sha256(), _LARGEST
    for each in files:
        room -= each.stat().st_size
        if room < 0:
            return ""
        with each.open("rb") as file:
            whole.update(f"{each.relative_to(top)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
