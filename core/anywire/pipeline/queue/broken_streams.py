"""Streams that broke off and are not resumed: what their clients read.

The error is the one that broke the stream. Why nobody goes on with it stands behind it.
"""

from __future__ import annotations

from anywire.demand import beyond_text
from anywire.errors import AnywireError
from anywire.pipeline.tasks.task import Attempt, Task

_NOT_RESUMED = "; the answer is not resumed: "


def broken_off(
    task: Task, attempt: Attempt, error: AnywireError, resume_bytes: int, repeats: bool = True
) -> AnywireError:
    """The error with which a task ends whose last ``attempt`` ended with ``error``. ``resume_bytes`` is how much text
    is kept for resuming, 0 where nothing is resumed; ``repeats``: whether tasks of its kind are sent again."""
    first = task.failure
    if first is not None and not attempt.chunks:
        first.add(f"{_NOT_RESUMED}{error}")
        return first
    if task.chunks and resume_bytes and error.again:
        error.add(_NOT_RESUMED + _why_not(task, resume_bytes, repeats))
    return error


def nobody_resumes(task: Task, wait: float, why: str) -> AnywireError | None:
    """The error with which a task ends that has waited for ``wait`` seconds for an agent to resume it; None for one
    whose stream has not broken off. ``why`` agents that are there do not serve it, empty where nobody knows."""
    error = task.failure
    if error is not None:
        what = f"model {task.model!r} with the same weights"
        more = f": {why}" if why else ""
        error.add(f"{_NOT_RESUMED}no agent that can go on from a text offered {what} within {wait:g} s{more}")
    return error


def _why_not(task: Task, resume_bytes: int, repeats: bool) -> str:
    if not task.can_resume:
        submission = task.submission
        member = beyond_text(submission.outline or submission.body)
        if member:
            return f"it has {member}"
        if not task.plain:
            return "it is more than plain text"
        if task.kept_bytes > resume_bytes:
            return f"it is longer than {resume_bytes} bytes (pipeline.resume_bytes)"
        return "its engine cannot go on from a text"
    if task.attempts_left < 1:
        return "no attempt is left (pipeline.max_attempts)"
    if not repeats:
        return f"tasks of the kind {task.submission.kind} are not sent again (pipeline.retries.repeat)"
    return "no other agent could take it"
