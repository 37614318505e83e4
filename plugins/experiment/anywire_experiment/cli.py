"""``anywire experiment``: run a plan, report on its record, compare records, verify one, repeat one; try faults.

What a command needs beyond its options is imported when it runs, so that ``anywire --help`` stays quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anywire_experiment.plan import Plan

app = typer.Typer(
    name="experiment",
    help="Run controlled experiments. A plan makes a record, from which every figure is computed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PlanFile = Annotated[Path, typer.Argument(metavar="FILE", help="The plan, YAML.")]
RecordFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The record of an experiment.")]


@app.command()
def run(
    file: PlanFile,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The record. Default: records/NAME.")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=1, max=1000, help="Repetitions, instead of the plan's.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another value for a key of the plan, as YAML; may be repeated."
        ),
    ] = None,
) -> None:
    """Run a plan into a record. The same command goes on with one that was interrupted."""
    from anywire_experiment.plan import load_plan

    plan = load_plan(file, [*(changes or ()), *([f"blocks={blocks}"] if blocks is not None else ())])
    _run(plan, file, out or Path("records") / plan.name)


@app.command()
def report(record: RecordFolder) -> None:
    """Write the report of a record. Its results are computed anew from the raw data."""
    from anywire_experiment.outcome import conclude_again

    for path in conclude_again(record):
        typer.echo(path)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A record.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it too, as .html or .md.")
    ] = None,
) -> None:
    """Verify two records and put them side by side."""
    from anywire_experiment.outcome import compared

    typer.echo(compared(first, second, out))


@app.command()
def verify(record: RecordFolder) -> None:
    """Check a record. It must be as it was sealed, and its results follow from its raw data. Exit status 1 if not."""
    from anywire_experiment.outcome import faults as faults_of

    found = faults_of(record)
    for each in found:
        typer.echo(each)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{record}: every file is as it was sealed, and every figure follows from the raw data")


@app.command()
def reproduce(
    record: RecordFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The new record. Default: DIR-again.")
    ] = None,
) -> None:
    """Run the plan of a record again, here and now. Both records are put side by side."""
    from anywire_experiment.outcome import check
    from anywire_experiment.record.folder import GIVEN, runnable_plan_of

    check(record)
    plan = runnable_plan_of(record)
    target = out or record.with_name(f"{record.resolve().name}-again")
    _run(plan, record / GIVEN, target)
    compare(record, target)


@app.command()
def calibrate(
    record: RecordFolder,
    workload: Annotated[str, typer.Option("--workload", "-w", help="Which one, of streams.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Which one. Default: the first.")] = None,
) -> None:
    """Fit the synthetic engine to the streams of a record. Tells how well it fits."""
    import yaml

    from anywire_experiment.analysis.analyse import RawData
    from anywire_experiment.analysis.synthetic_fit import fit_engine
    from anywire_experiment.outcome import check

    check(record)
    raw = RawData(record)
    fit = fit_engine(raw, arm or raw.arms[0], workload)
    typer.echo(yaml.safe_dump({"engine": fit.options()}, sort_keys=False), nl=False)
    for name, each in (("ttft", fit.ttft), ("itl", fit.itl)):
        errors = ", ".join(f"{key} {error:+.1%}" for key, error in each.errors.items())
        typer.echo(f"# {name}: {each.samples} samples; {errors}; on average off by {each.distance:.1%} of the mean")


@app.command()
def faults(
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="NAME", help="Only this fault; may be repeated.")
    ] = None,
    transport: Annotated[
        list[str] | None,
        typer.Option("--transport", metavar="NAME", help="Only over this transport; may be repeated."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The record, a new folder. Default: records/faults.")
    ] = Path("records/faults"),
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="Engine of the agents. Default: synthetic, and openai where the engine's server fails.",
        ),
    ] = "",
    streams: Annotated[int, typer.Option("--streams", min=2, max=100, help="Streams that each fault meets.")] = 4,
    patience: Annotated[
        float, typer.Option("--patience", min=1.0, help="Seconds after which a client waits no longer for its stream.")
    ] = 60.0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another value for a key of the system, as YAML; may be repeated."
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the faults and what clients must see of them.")] = False,
) -> None:
    """Try each fault over each transport. Tells what clients see of it. Exit status 1 if a cell fails."""
    from anywire_experiment.fault_table import pages, table
    from anywire_experiment.fault_table.setting import Setting

    if listed:
        typer.echo(pages.catalogue())
        return
    try:
        made = table.run(
            fault or (),
            transport or (),
            out,
            setting=Setting(streams, engine, tuple(changes or ()), patience),
            invocation=sys.argv[1:],
            say=_say_at_once,
        )
    except table.Interrupted:
        typer.echo(f"interrupted: {out} has the cells that were carried out, and no table", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{out}: {pages.summary(made.rows)}")
    if any(each.result == "FAIL" for each in made.rows):
        raise typer.Exit(1)


@app.command()
def export(
    record: RecordFolder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new or empty folder.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="parquet, csv, latex, svg or pdf; several with commas, or by repeating it. Default: all.",
        ),
    ] = None,
) -> None:
    """Write the data of a record, and every table and figure of its report, as files."""
    from anywire_experiment.exports.export import chosen
    from anywire_experiment.exports.export import export as write

    written = write(record, out, chosen(formats or ()))
    typer.echo(f"{out}: {len(written)} files")


@app.command()
def schema() -> None:
    """Print the JSON schema of a plan."""
    import json

    from anywire_experiment.plan import Plan

    typer.echo(json.dumps(Plan.model_json_schema(), indent=2))


def _say_at_once(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _run(plan: Plan, file: Path, out: Path) -> None:
    from anywire_experiment import outcome
    from anywire_experiment.run import runner
    from anywire_experiment.run.progress import progress

    shown = progress()
    try:
        with shown.shown():
            runner.run(plan, file, out, sys.argv[1:], shown)
    except runner.Interrupted:
        typer.echo(f"interrupted: what is whole is in {out}, and the same command goes on", err=True)
        raise typer.Exit(130) from None
    failed = outcome.conclude(out)
    typer.echo(f"{out}: {failed} cells failed, see its report" if failed else str(out))
