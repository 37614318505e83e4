"""Folders that end with their process, be it with the next one's start."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from anywire.files.held_folders import HeldFolder
from anywire.this_system import IS_POSIX

pytestmark = pytest.mark.skipif(not IS_POSIX, reason="this system has no flock")

HOLDING = """\
import sys
from contextlib import ExitStack
from pathlib import Path
from anywire.files.held_folders import HeldFolder
held = HeldFolder(Path(sys.argv[1]))
held.make()
print(flush=True)
sys.stdin.readline()
"""


def holding(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_folder_is_this_users_alone_and_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path / "kind-1")
    held.remove()
    held.make()
    assert held.path.stat().st_mode & 0o777 == 0o700
    (held.path / "file").write_text("x")
    held.remove()
    held.remove()
    assert not held.path.exists()


def test_what_a_killed_process_has_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    with holding(tmp_path / "kind-killed") as killed, holding(tmp_path / "kind-alive") as alive:
        (tmp_path / "kind-killed" / "socket").touch()
        (tmp_path / "other-1").mkdir()
        killed.kill()
        killed.wait()
        held = HeldFolder(tmp_path / "kind-new")
        held.make()
        assert {each.name for each in tmp_path.iterdir()} == {"kind-alive", "kind-new", "other-1"}
        assert alive.poll() is None
        held.remove()
        alive.kill()


def test_processes_that_start_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"kind-{number}" for number in range(8)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for path in paths
        ]
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline()
        assert all(path.is_dir() for path in paths)
        for each in started:
            each.kill()
