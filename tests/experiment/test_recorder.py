"""The subscriber in the orchestrator: what it writes is read again, and a part that is missing is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.events import AgentJoined, AgentLost, AgentOrdered, HealthChanged, TaskEnded, TaskPreempted
from anywire.messages import AgentInfo
from anywire.stages import Stages
from anywire_experiment.run.recorder import VARIABLE, Change, Recorder, read


def record(number: int) -> TaskEnded:
    return TaskEnded(
        id=f"life-{number}",
        at_ns=number,
        time=1.5,
        task_id=f"task-{number}",
        kind="chat",
        model="m",
        agent_id="agent-1",
        transport="dds",
        attempts=1,
        error="",
        chunks=2,
        prompt_chars=300,
        stages=Stages(*range(number, number + 9)),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(20))
@given(numbers=st.lists(st.integers(1, 2**60), max_size=50), changes=st.lists(st.integers(0, 2**60), max_size=5))
def test_what_is_written_is_read_again(tmp_path: Path, numbers: list[int], changes: list[int]) -> None:
    path = tmp_path / "tasks.jsonl"
    path.unlink(missing_ok=True)
    recorder = Recorder(str(path))
    told = []
    for number in numbers:
        recorder.add(record(number))
    for at in changes:
        head: Any = {"id": "life-1", "at_ns": at, "time": 1.5, "agent_id": "agent-1"}
        recorder.add_agent(AgentJoined(**head, info=AgentInfo("agent-1", 7), transport="dds"))
        recorder.add_agent(AgentLost(**head, incarnation=7, reason='a "reason"\n'))
        told += [Change("agent_joined", at, "agent-1"), Change("agent_lost", at, "agent-1", 'a "reason"\n')]
    recorder.close()
    assert read(path) == ([record(number) for number in numbers], told, True)


def test_what_becomes_of_agents_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    recorder = Recorder(str(path))
    head: Any = {"id": "life-1", "time": 1.5}
    evidence = {"agent_lost": 1, "engine_failed": 4}
    recorder.add_agent(HealthChanged(**head, at_ns=1, agent_id="a", state="quarantined", evidence=evidence))
    recorder.add_agent(HealthChanged(**head, at_ns=2, agent_id="a", state="open", transport="dds"))
    recorder.add_agent(AgentOrdered(**head, at_ns=3, agent_id="a", order="drained", reason="new disk"))
    recorder.add_agent(AgentOrdered(**head, at_ns=4, agent_id="a", order=""))
    recorder.add(TaskPreempted(**head, at_ns=5, task_id="t", attempt=1, times=1))
    recorder.close()
    assert read(path) == (
        [],
        [
            Change("health_changed", 1, "a", "quarantined: 4 × engine_failed, 1 × agent_lost"),
            Change("health_changed", 2, "a", "dds open"),
            Change("agent_ordered", 3, "a", "drained: new disk"),
            Change("agent_ordered", 4, "a", "restored"),
            Change("task_preempted", 5, "", "t"),
        ],
        True,
    )


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
from anywire.boundary import Boundary
from anywire.event_bus import EventBus
from anywire.events import TaskEnded
from anywire.stages import Stages
from anywire_experiment.run import recorder
events = EventBus(Boundary())
recorder.anywire_subscribe(events)
for number in range(2000):
    events.publish(TaskEnded, task_id=f"t{number}", kind="chat", model="m", agent_id="a", transport="dds", attempts=1,
                   error="", chunks=2, prompt_chars=300, stages=Stages(1, 2, 3))
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
