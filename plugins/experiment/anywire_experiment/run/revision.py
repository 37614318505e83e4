"""Another revision of Anywire as an arm: checked out and built in an environment of its own, and run with that.

What is built is kept below ``$XDG_CACHE_HOME/anywire/revisions`` (``~/.cache``), a folder for each commit, and used
again. Installed are Anywire and the distributions of the plugins that the arm loads, as that commit has them, with the
versions of its ``constraints.txt`` where it has one. The processes are those of any other arm
(`anywire_experiment.run.process`, that commit's), so that the two differ in nothing but the revision.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

import anywire
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.roles import assembly
from anywire.this_system import lock_file
from anywire_experiment.plan.arms import Arm, Build, config_of
from anywire_experiment.plan.programs import addressed
from anywire_experiment.plan.systems import AnywireSystem
from anywire_experiment.record.masking import redacted
from anywire_experiment.record.sources import plugins_named
from anywire_experiment.run import launch

VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""By which this installation would get into another one's processes."""
_EXPERIMENT = "anywire-experiment"
"""Installed without what it requires: of it only the processes of a cell are used."""
_BUILD_TIMEOUT = 1800.0
_CHECK_TIMEOUT = 120.0
_LAST_LINES = 8
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_CHECK = """
import sys
import anywire_experiment.run.process, anywire_experiment.run.recorder
from anywire.config import Config
from anywire.roles import assembly
config = Config.model_validate_json(sys.stdin.read())
_, faults = assembly.effective(config, assembly.load_plugins(config))
sys.exit("; ".join(faults) or 0)
"""


class Project(NamedTuple):
    """A distribution in a checkout: its folder, what it requires, and what building it requires."""

    folder: Path
    requires: frozenset[str]
    to_build: tuple[str, ...]


def built(arms: Sequence[Arm], say: Callable[[str], None]) -> tuple[list[Arm], dict[str, str]]:
    """The arms, those of revisions with where they were built; and why others could not be, by level, where the plan
    says that they are optional. ``say`` is told what takes long. Raises `ConfigError` for one that cannot be built."""
    made, left_out = list[Arm](), dict[str, str]()
    for arm in arms:
        system = arm.system
        if not isinstance(system, AnywireSystem) or not system.revision:
            made.append(arm)
            continue
        try:
            ready = replace(arm, build=_build(arm, system, say))
            _check(ready)
        except ConfigError as error:
            if not system.optional:
                raise ConfigError(f"{arm.name}: {error}") from error
            left_out[arm.levels["system"]] = str(error)
        else:
            made.append(ready)
    return made, left_out


def command_of(build: Build) -> tuple[str, ...]:
    """What starts a process of it, in the place of `Managed.python`."""
    # This version's own way to start one needs no package, and -P keeps the folder it lies in off the path.
    return str(build.python), "-P", launch.__file__


def for_revision(arm: Arm, config: Config, places: Mapping[str, Mapping[str, str]]) -> str:
    """The configuration as another revision can read it, JSON: what the plan says and what the cell settles, and none
    of this version's defaults."""
    tree = addressed(deepcopy(dict(arm.tree)), lambda name, what: places[name][what])
    tree["transports"] = {each.name: each.options for each in config.transports}
    tree["plugins"] = config.plugins
    tree["agent"] = {**tree.get("agent", {}), "id": config.agent.id}
    tree["server"] = {"port": config.server.port}
    if arm.stand_in is not None:
        tree["engine"] = config.engine.model_dump(mode="json", exclude_unset=True)
    if config.access.model_fields_set:
        tree["access"] = config.access.model_dump(mode="json", exclude_unset=True)
    return msgspec.json.encode(tree).decode()


def commit_of(system: AnywireSystem) -> tuple[Path, str]:
    """The repository and the whole name of the commit. Raises `ConfigError`."""
    given = Path(os.path.expandvars(Path(system.repository).expanduser())) if system.repository else None
    folder = given or Path(anywire.__file__).resolve().parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        hint = "give the folder of one" if given else "this Anywire is not run from one: give its folder"
        raise ConfigError(f"repository: no git checkout at {redacted(str(folder))}: {hint}")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{system.revision}^{{commit}}")
    if commit is None:
        raise ConfigError(f"revision: {system.revision!r} is no commit, tag or branch of {redacted(str(folder))}")
    return Path(os.fsdecode(top).strip()), os.fsdecode(commit).strip()


def projects_in(tree: Path) -> dict[str, Project]:
    """The distributions of a checkout, by name."""
    found = {}
    for path in sorted(tree.rglob("pyproject.toml")):
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        project = told.get("project", {})
        if "name" in project:
            to_build = tuple(told.get("build-system", {}).get("requires", ("setuptools",)))
            names = frozenset(map(canonical, project.get("dependencies", ())))
            found[canonical(project["name"])] = Project(path.parent, names, to_build)
    return found


def needed(names: Iterable[str], projects: Mapping[str, Project]) -> list[str]:
    """Those of the checkout that are among ``names``, with all of it that they require."""
    wanted, found = [canonical(each) for each in names], dict[str, None]()
    while wanted:
        name = wanted.pop()
        if name in projects and name not in found:
            found[name] = None
            wanted.extend(projects[name].requires)
    return sorted(found)


def _build(arm: Arm, system: AnywireSystem, say: Callable[[str], None]) -> Build:
    repository, commit = commit_of(system)
    elsewhere = _distributions(arm)
    names = ["anywire", *(name for name, _ in elsewhere)]
    key = hashlib.sha256("\n".join([sys.version, *sorted(names)]).encode()).hexdigest()[:8]
    folder = _cache() / f"{commit[:16]}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "env" / "bin" / "python", folder / "complete"
    lock = os.open(folder, os.O_RDONLY)
    try:
        # Another run may build the same just now.
        lock_file(lock, wait=True)
        if not complete.exists():
            say(f"building {system.revision} ({commit[:12]}) for {arm.name}; it is kept for the next time")
            shutil.rmtree(folder / "tree", ignore_errors=True)
            shutil.rmtree(folder / "env", ignore_errors=True)
            _check_out(repository, commit, folder / "tree")
            _install(folder / "tree", python, names, dict(elsewhere))
            complete.touch()
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"revision {system.revision} cannot be built: {error}") from error
    finally:
        os.close(lock)
    return Build(python, commit)


def _check_out(repository: Path, commit: str, tree: Path) -> None:
    archive = _run(["git", "-C", str(repository), "archive", "--format=tar", commit])
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(tree, filter="data")


def _install(tree: Path, python: Path, names: Collection[str], versions: Mapping[str, str]) -> None:
    projects = projects_in(tree)
    chosen = [projects[name] for name in needed(names, projects)]
    others = [f"{name}=={version}" for name, version in versions.items() if canonical(name) not in projects]
    if _EXPERIMENT not in projects or not chosen:
        raise ConfigError("this revision has no `anywire-experiment`, whose processes make up a cell")
    _run([sys.executable, "-m", "venv", str(python.parents[1])])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", "install"]
    experiment = projects[_EXPERIMENT]
    _run([*pip, *sorted({each for project in (*chosen, experiment) for each in project.to_build})])
    limits = tree / "constraints.txt"
    limited = ["--constraint", str(limits)] if limits.exists() else []
    here = [*pip, "--no-build-isolation"]
    _run([*here, *limited, *(str(each.folder) for each in chosen), *others])
    _run([*here, "--no-deps", str(experiment.folder)])


def _check(arm: Arm) -> None:
    """Have that revision read the configuration. Raises `ConfigError`."""
    assert arm.build is not None
    sample = {name: defaultdict(lambda: "20000", host="127.0.0.1") for name in arm.companions}
    config = for_revision(arm, config_of(arm), sample)
    _run([str(arm.build.python), "-P", "-c", _CHECK], config.encode(), _CHECK_TIMEOUT)


def _distributions(arm: Arm) -> list[tuple[str, str]]:
    """Name and version of each distribution that the arm loads a plugin of."""
    config = config_of(arm)
    plugins = assembly.load_plugins(config)
    told = {plugins.distribution(kind, name) for kind, name in plugins_named(config, plugins)}
    pairs = (each.rpartition(" ") for each in sorted(told))
    return [(name, version) for name, _, version in pairs if name]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "anywire" / "revisions"


def canonical(requirement: str) -> str:
    """The name that it begins with, as distributions are compared by it."""
    found = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _run(command: Sequence[str], given: bytes = b"", timeout: float = _BUILD_TIMEOUT) -> bytes:
    """Its output. Raises `ConfigError` with what it said last when it fails."""
    kept = {
        name: text for name, text in os.environ.items() if name not in VARIABLES and not name.startswith("ANYWIRE_")
    }
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, env=kept, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"the revision cannot be built: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ConfigError(f"the revision cannot be run here: {redacted(' | '.join(lines[-_LAST_LINES:]))}")
    return done.stdout
