"""Checks of a proposal: facts that no model's opinion replaces. Policy, lint, dry run, or your own.

What a check says is kept with the proposal, told to those who judge it and to its author, and shown in the result. It
gives no points and excludes nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from anywire.secrecy import without_secrets
from anywire_service_deliberation.question import Member, Question
from anywire_service_deliberation.record import Check

TIMEOUT = 30.0
"""Seconds that the checks of one proposal may take, all at once."""
GRACE = 1.0
"""Seconds that a check has to end once it was cancelled."""
ERROR = "error"
"""Detail of a check that could not be made: what it raised. It says nothing about the proposal."""

MAX_MESSAGE_CHARS = 4_000
MAX_FINDINGS = 100
MAX_FINDING_CHARS = 500
MAX_DETAILS = 32

log = logging.getLogger(__name__)


class ProposalCheck(Protocol):
    """One check, made before the first question and used for all, several at once."""

    kind: str
    """``policy``, ``lint``, ``dry_run``, or a name of your own. Unique among the checks of a service."""

    async def check(self, question: Question, member: Member, text: str) -> Check:
        """Whether ``text``, the proposal of ``member`` to ``question``, passes. Called for each proposal and each
        revision, on the event loop: what blocks belongs into a process or a thread. It is cancelled after `TIMEOUT`
        seconds. It may raise anything: see `checked`."""
        ...


async def checked(
    checks: Sequence[ProposalCheck], question: Question, member: Member, text: str, *, timeout: float = TIMEOUT
) -> tuple[Check, ...]:
    """What each of ``checks`` says of a proposal, in their order; made at once, within ``timeout`` seconds.

    A check that raises, takes too long, or returns anything but a `Check` harms no other. It counts as not passed,
    because nobody knows that the proposal would have; its detail `ERROR` says why. Raises nothing but its own
    cancellation, which ends all checks.
    """
    tasks = [asyncio.create_task(_made(check, question, member, text)) for check in checks]
    if not tasks:
        return ()
    try:
        await asyncio.wait(tasks, timeout=timeout)
    finally:
        unfinished = [task for task in tasks if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=GRACE)
    late = f"it took more than {timeout:g} s"
    return tuple(
        _failed(check.kind, late if task in unfinished else "it was cancelled")
        if task in unfinished or task.cancelled()
        else _bounded(check.kind, task.result())
        for check, task in zip(checks, tasks, strict=True)
    )


async def _made(check: ProposalCheck, question: Question, member: Member, text: str) -> Check:
    try:
        said = await check.check(question, member, text)
    except Exception as error:
        log.warning("check %s of a proposal failed: %s: %s", check.kind, type(error).__name__, error)
        return _failed(check.kind, f"{type(error).__name__}: {error}")
    return said if isinstance(said, Check) else _failed(check.kind, f"it returned {type(said).__name__}, not a Check")


def _failed(kind: str, why: str) -> Check:
    why = without_secrets(why)
    return Check(kind, passed=False, message=f"The check could not be made: {why}", details={ERROR: why})


def _bounded(kind: str, said: Check) -> Check:
    """The same within bounds, under the check's own name."""
    try:
        return Check(
            kind,
            passed=bool(said.passed),
            message=str(said.message)[:MAX_MESSAGE_CHARS],
            findings=tuple(str(each)[:MAX_FINDING_CHARS] for each in tuple(said.findings)[:MAX_FINDINGS]),
            warnings=int(said.warnings),
            exit_code=int(said.exit_code),
            score=None if said.score is None else float(said.score),
            details={
                str(key)[:MAX_FINDING_CHARS]: str(value)[:MAX_FINDING_CHARS]
                for key, value in list(said.details.items())[:MAX_DETAILS]
            },
        )
    except Exception as error:
        return _failed(kind, f"its result cannot be kept: {type(error).__name__}: {error}")
