"""Revisions of Anywire as arms: which commit, what of it is installed, what it is told; in the long form, a run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.real_runs import QUICK, done, written
from tests.long_form import SOAK

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import Build, arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.systems import AnywireSystem
from anywire_experiment.record import folder as records
from anywire_experiment.record.sources import sources_of
from anywire_experiment.run import revision
from anywire_experiment.run.availability import available
from anywire_experiment.run.revision import canonical, commit_of, for_revision, needed, projects_in
from anywire_experiment.run.system import System

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with three distributions in it, tagged."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    for name, requires in {"anywire": "pluggy", "anywire-a": "anywire_b==1", "anywire-b": "anywire"}.items():
        (folder / name).mkdir()
        text = f'[project]\nname = "{name}"\ndependencies = ["{requires}; python_version > \'3\'"]\n'
        (folder / name / "pyproject.toml").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v1")
    return folder


def plan(**system: Any) -> Plan:
    tree = {
        "name": "t",
        "blocks": 2,
        "system": {
            "engine": "synthetic",
            "transports": {"zeromq": {"max_message_bytes": 99999}},
            "agent": {"slots": 3},
        },
        "factors": {"system": [{"now": {"config": {}}}, {"before": system}]},
        "workloads": {"one": {"requests": 10, "warm_up": QUICK}},
    }
    return Plan.model_validate(tree)


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.say, self.warned = self.lines.append, self.warnings.append


def test_a_revision_is_a_commit_of_its_repository(repository: Path) -> None:
    found = commit_of(AnywireSystem(revision="v1", repository=str(repository / "anywire-a")))
    assert found == (repository, git(repository, "rev-parse", "HEAD"))
    for name in ("v2", "--output=x", "v1:anywire"):
        with pytest.raises(ConfigError, match="is no commit, tag or branch of"):
            commit_of(AnywireSystem(revision=name, repository=str(repository)))
    with pytest.raises(ConfigError, match=r"no git checkout at .*: give the folder of one"):
        commit_of(AnywireSystem(revision="v1", repository=str(repository.parent)))


def test_what_an_arm_loads_is_installed_with_what_it_requires_of_the_checkout(repository: Path) -> None:
    projects = projects_in(repository)
    assert needed(["Anywire_A"], projects) == ["anywire", "anywire-a", "anywire-b"]
    assert needed(["anywire", "elsewhere"], projects) == ["anywire"]
    assert canonical("Anywire.B[all]>=1; x") == "anywire-b"
    here = projects_in(ROOT)
    assert {"anywire", "anywire-zeromq", "anywire-experiment"} <= here.keys()
    assert "anywire" in needed(["anywire-zeromq"], here)
    assert "anywire-dds" not in needed(["anywire-zeromq"], here)


def test_a_revision_is_told_what_the_plan_says_and_none_of_this_versions_defaults(tmp_path: Path) -> None:
    _, arm = arms_of(plan(config={"lease": {"timeout": 2}}, revision="v1"))
    system = System(arm, tmp_path, tmp_path, (), 0, None, lambda process: None)
    config = system.configs["agent-1"]
    told = json.loads(for_revision(arm, config, {}))
    assert told["agent"] == {"slots": 3, "id": "agent-1"}
    assert told["lease"] == {"timeout": 2}
    assert told["server"] == {"port": 0}
    assert set(told["transports"]["zeromq"]) == {"max_message_bytes", "agent_addresses", "client_addresses"}
    assert set(told) == {"engine", "transports", "agent", "lease", "server", "plugins"}


def test_a_revision_that_cannot_be_built_is_refused_or_left_out(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = {"config": {}, "revision": "v1", "repository": str(repository)}
    told = Told()
    with pytest.raises(ConfigError, match="before: this revision has no `anywire-experiment`"):
        available(plan(**given), told)
    assert told.lines[0].startswith("building v1 (")
    left, arms, left_out = available(plan(**given, optional=True), told)
    assert [each.name for each in arms] == ["now"]
    assert [each.label for each in left.factors["system"]] == ["now"]
    assert list(left_out) == ["before"]
    assert told.warnings == [f"the system before is left out: {left_out['before']}"]


def test_what_was_built_is_used_again_and_the_record_has_its_commit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    installed: list[Path] = []
    monkeypatch.setattr(revision, "_install", lambda tree, python, names, versions: installed.append(tree))
    monkeypatch.setattr(revision, "_check", lambda arm: None)
    given = plan(config={}, revision="v1", repository=str(repository))
    made, arms, _ = available(given, Told())
    again, _, _ = available(given, Told())
    assert again == made
    assert len(installed) == 1
    assert (installed[0] / "anywire-a/pyproject.toml").exists()
    commit = git(repository, "rev-parse", "HEAD")
    assert made.factors["system"][1].value["revision"] == commit
    assert arms[1].build == Build(installed[0].parent / "env/bin/python", commit)
    sources = sources_of(arms)
    assert sources["revision before"].commit == commit
    assert "transports zeromq" in sources, "of the arm that is of this installation"


@pytest.mark.skipif(not SOAK, reason="builds an environment from the registry")
@pytest.mark.timeout(900)
async def test_a_revision_runs_paired_with_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = plan(config={}, revision="HEAD", repository=str(ROOT)).model_dump(mode="json")
    status, said = await done("run", written(tmp_path, tree), "--out", tmp_path / "record")
    assert status == 0, said
    cells = records.cells_of(tmp_path / "record")
    assert [(each.arm, each.state, each.reason) for each in cells] == [
        (name, "completed", "") for name in ("before", "now")
    ] * 2
    status, said = await done("verify", tmp_path / "record")
    assert status == 0, said
