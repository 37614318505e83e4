"""The orchestrator's hooks: what they write is read again, and a part that is missing is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.stages import Stages, TaskRecord
from anywire_experiment.run.recorder import VARIABLE, AgentChange, Recorder, read


def record(number: int) -> TaskRecord:
    stages = Stages(*range(number, number + 9))
    return TaskRecord(f"task-{number}", "chat", "m", "agent-1", "dds", 1, "", 2, 300, stages)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(20))
@given(numbers=st.lists(st.integers(1, 2**60), max_size=50), changes=st.lists(st.integers(0, 2**60), max_size=5))
def test_what_is_written_is_read_again(tmp_path: Path, numbers: list[int], changes: list[int]) -> None:
    path = tmp_path / "tasks.jsonl"
    path.unlink(missing_ok=True)
    recorder = Recorder(str(path))
    told = [AgentChange("agent_lost", at, "agent-1", 'a "reason"\n') for at in changes]
    for number in numbers:
        recorder.add(record(number))
    for change in told:
        recorder.add(change)
    recorder.close()
    assert read(path) == ([record(number) for number in numbers], told, True)


def test_what_is_not_there_is_not_whole(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == ([], [], False)


def test_a_cut_file_is_not_whole_and_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    recorder = Recorder(str(path))
    for number in range(1, 4):
        recorder.add(record(number))
    recorder.close()
    path.write_bytes(path.read_bytes()[:-10])
    assert read(path) == ([record(1), record(2)], [], False)


PROCESS = """
import sys
from anywire.stages import Stages, TaskRecord
from anywire_experiment.run import recorder
for number in range(2000):
    recorder.anywire_task_finished(TaskRecord(f"t{number}", "chat", "m", "a", "dds", 1, "", 2, 300, Stages(1, 2, 3)))
print("done", flush=True)
sys.stdin.readline()
"""


async def test_a_process_that_ends_has_written_all_and_one_that_is_killed_not(tmp_path: Path) -> None:
    for name, killed in (("ended", False), ("killed", True)):
        path = tmp_path / name
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS),
            env={**os.environ, VARIABLE: str(path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"done\n"
        if killed:
            process.send_signal(signal.SIGKILL)
        await process.communicate(b"\n")
        tasks, changes, whole = read(path)
        assert changes == []
        assert whole is not killed
        assert [each.task_id for each in tasks] == [f"t{number}" for number in range(len(tasks))]
        assert (len(tasks) == 2000) is not killed
