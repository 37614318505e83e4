"""A record tells where the code comes from that it measured, a third party's too."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from anywire.errors import ConfigError
from anywire_experiment.plan.arms import arms_of
from anywire_experiment.plan.plan import Plan
from anywire_experiment.record.checkout import _state
from anywire_experiment.record.environment import differences, environment
from anywire_experiment.record.sources import Source, _module, sources_of

PLUGIN = """
from anywire.hookspecs import hookimpl
from anywire.builtin.round_robin import RoundRobin


class Mine(RoundRobin):
    name = "mine"


@hookimpl
def anywire_register(kind):
    return {"mine": Mine} if kind == "selectors" else {}
"""


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    """What was seen of a checkout is kept for a run; a test changes it."""
    for each in (_state, _module):
        each.cache_clear()


def sources(**members: Any) -> dict[str, Source]:
    tree = {"name": "t", "system": {"engine": "synthetic"}, "workloads": {"one": {"requests": 5}}}
    return sources_of(arms_of(Plan.model_validate(tree | members)))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_every_plugin_of_every_arm_is_named_with_its_package() -> None:
    found = sources(factors={"transport": ["zeromq", "http"], "selector": ["round_robin", "least_loaded"]})
    assert {
        "transports zeromq",
        "transports http",
        "selectors round_robin",
        "selectors least_loaded",
        "engines synthetic",
        "schedulers fifo",
        "gateways openai",
    } <= set(found)
    zeromq = found["transports zeromq"]
    assert (zeromq.distribution, zeromq.module.split(".")[0]) == ("anywire-zeromq", "anywire_zeromq")
    assert zeromq.version
    assert zeromq.files > 1
    assert len(zeromq.sha256) == 64


def test_a_file_is_told_by_its_hash_and_its_checkout(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    given = {"system": {"engine": "synthetic", "plugins": [str(file)]}, "factors": {"selector": ["mine"]}}
    alone = sources(**given)["selectors mine"]
    content = hashlib.sha256(PLUGIN.encode()).hexdigest()
    assert (alone.distribution, alone.files, alone.commit) == ("", 1, "")
    assert alone.sha256 == hashlib.sha256(f"mine.py {content}\n".encode()).hexdigest()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "-qm", "one")
    _state.cache_clear()
    _module.cache_clear()
    committed = sources(**given)["selectors mine"]
    assert (committed.commit, committed.changes) == (git(tmp_path, "rev-parse", "HEAD"), "clean")
    file.write_text(PLUGIN + "\n# changed\n")
    _state.cache_clear()
    _module.cache_clear()
    changed = sources(**given)["selectors mine"]
    assert changed.commit == committed.commit
    assert changed.changes not in ("", "clean")
    assert changed.sha256 != committed.sha256


def test_a_companion_is_told_by_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "broker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = sources(companions={"broker": {"command": ["broker"]}})["companion broker"]
    assert (found.module, found.files, len(found.sha256)) == ("broker", 1, 64)
    with pytest.raises(ConfigError, match=r"companions\.broker\.command: there is no program 'no-such-broker' here"):
        sources(companions={"broker": {"command": ["no-such-broker"]}})


def test_another_source_in_a_later_session_is_told() -> None:
    before = environment([], {"selectors mine": Source("mine", "1.0", "mine", 1, "a" * 64)})
    after = environment([], {"selectors mine": Source("mine", "1.1", "mine", 1, "b" * 64)})
    (said,) = differences(before, after)
    assert said.startswith("sources selectors mine: mine 1.0, 1 file, SHA-256 aaaaaaaaaaaaaaaa → mine 1.1")


def test_a_source_names_no_path(tmp_path: Path) -> None:
    for name, each in sources(factors={"transport": ["dds", "memory"]}).items():
        assert "/" not in f"{name} {each}"
