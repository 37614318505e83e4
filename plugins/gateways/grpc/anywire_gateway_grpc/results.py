"""From what is kept of a deliberation to the messages of its clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Answer, Check, Deliberation, Status, WorkId

STATUSES: dict[Status, wire.DeliberationStatus] = {
    "completed": wire.DELIBERATION_STATUS_COMPLETED,
    "degraded": wire.DELIBERATION_STATUS_COMPLETED,
    "failed": wire.DELIBERATION_STATUS_FAILED,
    "cancelled": wire.DELIBERATION_STATUS_FAILED,
    "timed_out": wire.DELIBERATION_STATUS_TIMEOUT,
}
"""Of those that have ended."""


def _version() -> str:
    try:
        return version("anywire")
    except PackageNotFoundError:
        return "0"


VERSION = f"anywire {_version()}"


def status_of(state: Deliberation) -> wire.DeliberationStatus:
    if state.is_final:
        return STATUSES[state.status]
    return wire.DELIBERATION_STATUS_IN_PROGRESS if state.answers else wire.DELIBERATION_STATUS_PENDING


def results(state: Deliberation) -> list[wire.DeliberationResult]:
    """A result for each proposal, by rank; those that have none come last, in the order of the question."""
    ranked = [each.member for each in state.ranking]
    others = [each.name for each in state.question.members if each.name not in ranked]
    return [found for name in (*ranked, *others) if (found := result(state, name)) is not None]


def result(state: Deliberation, member: str) -> wire.DeliberationResult | None:
    """The member's proposal as it is now; None while there is none."""
    versions = list(_versions(state, member))
    if not versions:
        return None
    last = newest(state, member)
    role = next(each.role for each in state.question.members if each.name == member)
    rank = next((each for each in state.ranking if each.member == member), None)
    return wire.DeliberationResult(
        proposal=wire.Proposal(
            author_id=member,
            author_role=role,
            content=last.text,
            created_at_ms=ms(last.ended),
            revisions=[each.text for each in versions[:-1]],
        ),
        checks=checks(last.checks),
        score=rank.value if rank else 0.0,
        rank=rank.rank if rank else 0,
    )


def winner(state: Deliberation) -> wire.DeliberationResult | None:
    return result(state, state.winner) if state.winner else None


def checks(found: Iterable[Check]) -> wire.CheckSuite:
    """What the checks of a proposal say; several of one kind as one."""
    suite = wire.CheckSuite(all_passed=True)
    for check in found:
        suite.all_passed = suite.all_passed and check.passed
        match check.kind:
            case "policy":
                policy = suite.policy
                policy.passed = check.passed and (policy.passed or not suite.HasField("policy"))
                policy.violations.extend(check.findings)
                policy.message = _joined(policy.message, check.message)
            case "lint":
                lint = suite.lint
                lint.passed = check.passed and (lint.passed or not suite.HasField("lint"))
                lint.error_count += len(check.findings)
                lint.warning_count += check.warnings
                lint.errors.extend(check.findings)
            case "dry_run":
                run = suite.dryrun
                run.passed = check.passed and (run.passed or not suite.HasField("dryrun"))
                run.output = _joined(run.output, check.message)
                run.exit_code = run.exit_code or check.exit_code
                run.message = _joined(run.message, "; ".join(check.findings))
            case _:
                score = float(check.passed) if check.score is None else check.score
                findings = {"findings": "; ".join(check.findings)} if check.findings else {}
                suite.additional_checks.add(
                    check_type=check.kind,
                    passed=check.passed,
                    score=score,
                    message=check.message,
                    details=check.details | findings,
                )
    return suite


def metadata(state: Deliberation) -> wire.OrchestratorMetadata:
    question = state.question
    tags = {
        "status": state.status,
        "reason": state.reason,
        "rubric": question.rubric.name,
        "aggregation": question.aggregation,
        "council": question.council,
    }
    return wire.OrchestratorMetadata(
        orchestrator_version=VERSION,
        timestamp_ms=ms(state.ended or state.submitted),
        execution_id=question.id,
        tags={name: value for name, value in tags.items() if value},
    )


def duration_ms(state: Deliberation) -> int:
    """From the submission to the end; 0 before it."""
    return ms(max(0.0, state.ended - state.submitted)) if state.ended else 0


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def mean_score(state: Deliberation, member: str) -> float:
    """The mean of the scores that a member was given, from 0 to 1 on the scale of the rubric; 0 without any."""
    ranked = next((each for each in state.ranking if each.member == member), None)
    if ranked is None or not ranked.scores:
        return 0.0
    rubric = state.question.rubric
    mean = sum(ranked.scores.values()) / len(ranked.scores)
    return min(1.0, max(0.0, (mean - rubric.lowest) / (rubric.highest - rubric.lowest)))


def _versions(state: Deliberation, member: str) -> Iterator[Answer]:
    """The first proposal and its revisions."""
    works = [WorkId("proposal", 0, member)]
    works += [WorkId("revision", number, member) for number in range(1, state.question.rounds + 1)]
    for work in works:
        if (answer := state.answers.get(str(work))) is not None:
            yield answer


def _joined(before: str, after: str) -> str:
    return f"{before}; {after}" if before and after else before or after
