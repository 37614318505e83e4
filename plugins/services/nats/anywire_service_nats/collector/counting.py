"""When a task is complete: the answers to it are counted. Pure.

A task begins with the first answer to it. It ends when as many agents have answered or failed as it was for, or when
its time is over. Where all have failed, it has failed; where some have, it is completed with what there is. An agent
counts once: its answer takes the place of its failure, and everything else that it says is passed over. So are agents
after the first 1000. What comes after the end changes nothing.
"""

from __future__ import annotations

import msgspec

from anywire.collected_answers import CollectedAnswer, CollectedStatus, CollectedTask
from anywire_service_nats.collector.heard import MAX_AGENTS, Heard

MAX_REASON_CHARS = 2000


def counted(task: CollectedTask | None, heard: Heard, seconds: float) -> CollectedTask:
    """The task once this was heard, the same object where that changes nothing. A new one has ``seconds`` to end."""
    at = heard.answer.at
    if task is None:
        task = CollectedTask(heard.task_id, began=at, deadline=at + seconds)
    task = timed(task, at)
    if task.is_final:
        return task
    answers = _with(task.answers, heard.answer)
    wanted = max(task.wanted, heard.wanted)
    story_id = task.story_id or heard.story_id
    if answers == task.answers and (wanted, story_id) == (task.wanted, task.story_id):
        return task
    task = msgspec.structs.replace(task, answers=answers, wanted=wanted, story_id=story_id)
    if 0 < wanted <= len(answers):
        return _ended(task, "completed" if task.completed else "failed", max(at, task.began))
    return task


def timed(task: CollectedTask, now: float) -> CollectedTask:
    """The task at this time, the same object where that changes nothing."""
    if task.is_final or now < task.deadline:
        return task
    if task.wanted:
        return _ended(task, "timed_out", task.deadline)
    # Nobody has said how many there are to be: nobody is known to be missing.
    return _ended(task, "completed" if task.completed else "failed", task.deadline)


def _with(answers: tuple[CollectedAnswer, ...], new: CollectedAnswer) -> tuple[CollectedAnswer, ...]:
    for place, old in enumerate(answers):
        if old.agent_id == new.agent_id:
            if old.failed and not new.failed:
                return (*answers[:place], new, *answers[place + 1 :])
            return answers
    return (*answers, new) if len(answers) < MAX_AGENTS else answers


def _ended(task: CollectedTask, status: CollectedStatus, at: float) -> CollectedTask:
    return msgspec.structs.replace(task, status=status, ended=at, reason=_reason(task, status)[:MAX_REASON_CHARS])


def _reason(task: CollectedTask, status: CollectedStatus) -> str:
    """Empty where all have answered."""
    failures = "; ".join(f"{each.agent_id}: {each.error}" for each in task.answers if each.failed)
    if status != "timed_out":
        return failures
    seconds = task.deadline - task.began
    late = f"{len(task.answers)} of {task.wanted} agents had answered or failed after {seconds:g} s"
    return f"{late}; {failures}" if failures else late
