"""Commands that run a plan, or tell what is in it: ``run``, ``plan``, ``reproduce``, ``schema``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anywire_experiment.cli.options import AnyRecord, Blocks, Changes, PlanFile, Sign

if TYPE_CHECKING:
    from anywire_experiment.plan.plan import Plan


def run(
    file: PlanFile,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The record. Default: records/NAME.")
    ] = None,
    blocks: Blocks = None,
    changes: Changes = None,
    sign: Sign = None,
) -> None:
    """Run a plan into a record. The same command goes on with one that was interrupted."""
    plan = _plan(file, changes, blocks)
    _run(plan, file, out or Path("records") / plan.name, sign)


def plan(
    file: PlanFile,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Tell the cells, their order, the minutes and what can be shown. Starts nothing."
        ),
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="A record of this plan or a pilot, which tells times and spreads."),
    ] = None,
    blocks: Blocks = None,
    changes: Changes = None,
) -> None:
    """Print a whole plan, or what it will take. Exit status 1 if it cannot run here."""
    import yaml

    from anywire_experiment.record.masking import masked

    loaded = _plan(file, changes, blocks)
    if not dry_run:
        typer.echo(
            yaml.safe_dump(masked(loaded.model_dump(mode="json")), sort_keys=False, allow_unicode=True), nl=False
        )
        return
    from anywire_experiment.dry_run.forecast import forecast, told

    found = forecast(loaded, earlier)
    typer.echo(told(found))
    if found.obstacles:
        raise typer.Exit(1)


def reproduce(
    record: AnyRecord,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The new record. Default: RECORD-again.")
    ] = None,
    sign: Sign = None,
) -> None:
    """Run the plan of a record again, here and now. Both records are put side by side."""
    from anywire_experiment.outcome import check, compared
    from anywire_experiment.record.compact import SUFFIX, opened
    from anywire_experiment.record.folder import GIVEN, runnable_plan_of

    check(record)
    target = out or record.with_name(f"{record.resolve().name.removesuffix(SUFFIX)}-again")
    with opened(record) as (folder, _):
        _run(runnable_plan_of(folder), folder / GIVEN, target, sign)
    typer.echo(compared(record, target))


def schema() -> None:
    """Print the JSON schema of a plan."""
    import json

    from anywire_experiment.plan.plan import Plan

    typer.echo(json.dumps(Plan.model_json_schema(), indent=2))


def _plan(file: Path, changes: list[str] | None, blocks: int | None) -> Plan:
    """The plan of a file with what the command line changes in it."""
    from anywire_experiment.plan.reading import load_plan

    return load_plan(file, [*(changes or ()), *([f"blocks={blocks}"] if blocks is not None else ())])


def _run(plan: Plan, file: Path, out: Path, key: Path | None) -> None:
    from anywire_experiment import outcome
    from anywire_experiment.record.signature import author
    from anywire_experiment.run import runner
    from anywire_experiment.run.progress import progress

    identity = author(key)
    shown = progress()
    try:
        with shown.shown():
            runner.run(plan, file, out, sys.argv[1:], shown)
    except runner.Interrupted:
        typer.echo(f"interrupted: what is whole is in {out}, and the same command goes on", err=True)
        raise typer.Exit(130) from None
    failed = outcome.conclude(out, identity)
    typer.echo(f"{out}: {failed} cells failed, see its report" if failed else str(out))
