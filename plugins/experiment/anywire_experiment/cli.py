"""``anywire experiment``: run a plan, report on its record, compare records, verify, sign and publish one, repeat one;
try faults.

What a command needs beyond its options is imported when it runs, so that ``anywire --help`` stays quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anywire_experiment.plan.plan import Plan

app = typer.Typer(
    name="experiment",
    help="Run controlled experiments. A plan makes a record, from which every figure is computed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PlanFile = Annotated[Path, typer.Argument(metavar="FILE", help="The plan, YAML.")]
RecordFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The record of an experiment, a folder.")]
AnyRecord = Annotated[
    Path, typer.Argument(metavar="RECORD", help="The record of an experiment: its folder, or a published file.")
]
Blocks = Annotated[int | None, typer.Option("--blocks", min=1, max=1000, help="Repetitions, instead of the plan's.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the plan, as YAML; may be repeated."),
]
Sign = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Private key to sign with. Default: yours, where `key` has made one."),
]


@app.command()
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


@app.command()
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


@app.command()
def report(
    record: AnyRecord,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where it is written. Default: into the record.")
    ] = None,
    sign: Sign = None,
) -> None:
    """Write the report of a record. Its results are computed anew from the raw data."""
    from anywire_experiment.outcome import conclude_again
    from anywire_experiment.record.signature import author

    written = conclude_again(record, out, author(sign))
    for note in written.notes:
        typer.echo(note, err=True)
    for path in written.paths:
        typer.echo(path)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A record.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="B", help="Another one; with --fail-if it may be left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it too, as .html or .md.")
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="A|B", help="The record that the other is held against.")
    ] = "A",
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help='Exit with status 1 when it is shown, such as "slower > 5 %"; may be repeated. Of A alone: on the '
            "comparisons of its plan.",
        ),
    ] = None,
) -> None:
    """Verify two records and put them side by side. Exit status 1 for a condition of --fail-if, 2 for a wrong one."""
    from anywire_experiment.gate.told import check_compared

    text, breached = check_compared(first, second, out, baseline, fail_if or ())
    typer.echo(text)
    if breached:
        raise typer.Exit(1)


@app.command()
def verify(
    record: AnyRecord,
    author: Annotated[
        str | None,
        typer.Option(
            "--author", metavar="KEY", help="Who must have signed it: fingerprint, public key, or a file with either."
        ),
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option("--authority", metavar="FILE", help="Certificates (PEM) that must vouch for its timestamp."),
    ] = None,
) -> None:
    """Check a record. It must be as it was sealed and signed, and its results follow from its raw data. Exit status 1
    if not."""
    from anywire_experiment import outcome
    from anywire_experiment.record import signature

    told = outcome.verified(record, signature.fingerprint_of(author) if author is not None else "", authority)
    for each in told.faults:
        typer.echo(each)
    if told.faults:
        raise typer.Exit(1)
    typer.echo(f"{record}: every file is as it was sealed, and every figure follows from the raw data")
    for each in (told.signed, *told.notes):
        typer.echo(each)


@app.command()
def key(
    file: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Another file than the one in your config folder.")
    ] = None,
) -> None:
    """Show your public key. Readers know your records by it. It is made at the first call."""
    from anywire.identities.identity_proof import as_text
    from anywire_experiment.record.signature import made

    path, identity = made(file)
    typer.echo(f"private key:  {path}")
    typer.echo(f"public key:   {as_text(identity.public)}")
    typer.echo(f"fingerprint:  {identity.fingerprint}")


@app.command()
def sign(
    record: RecordFolder,
    file: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Private key. Default: the one that `key` has made.")
    ] = None,
    timestamp: Annotated[
        Path | None,
        typer.Option(
            "--timestamp", metavar="FILE", help="Answer of a time-stamping authority (RFC 3161) over manifest.json."
        ),
    ] = None,
) -> None:
    """Sign a sealed record, and add a timestamp to it."""
    from anywire_experiment import outcome
    from anywire_experiment.record import signature

    for each in outcome.sign(record, signature.needed(file), timestamp):
        typer.echo(each)


@app.command()
def publish(
    record: RecordFolder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the file. Default: this one.")
    ] = Path(),
) -> None:
    """Write a sealed record into one small file. `verify`, `report` and the others take it like the folder."""
    from anywire_experiment import outcome
    from anywire_experiment.record.compact import SUFFIX

    target = out / f"{record.resolve().name}{SUFFIX}"
    size, told = outcome.published(record, target)
    typer.echo(f"{target}: {size / 1000:.1f} kB; {told}")


@app.command()
def unpack(
    record: Annotated[Path, typer.Argument(metavar="FILE", help="A published record.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A new folder. Default: FILE without its ending.")
    ] = None,
) -> None:
    """Make the folder of a published record again, with its report."""
    from anywire_experiment import outcome
    from anywire_experiment.record.compact import SUFFIX

    target = out or Path(record.name.removesuffix(SUFFIX))
    for note in outcome.unpacked(record, target):
        typer.echo(note, err=True)
    typer.echo(target)


@app.command()
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


@app.command()
def calibrate(
    record: AnyRecord,
    workload: Annotated[str, typer.Option("--workload", "-w", help="Which one, of streams.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Which one. Default: the first.")] = None,
) -> None:
    """Fit the synthetic engine to the streams of a record. Tells how well it fits."""
    import yaml

    from anywire_experiment.analysis.analyse import RawData
    from anywire_experiment.analysis.synthetic_fit import fit_engine
    from anywire_experiment.outcome import check
    from anywire_experiment.record.compact import opened

    check(record)
    with opened(record) as (folder, _):
        raw = RawData(folder)
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
    from anywire_experiment.outcome import signed

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
    signed(out)
    typer.echo(f"{out}: {pages.summary(made.rows)}")
    if any(each.result == "FAIL" for each in made.rows):
        raise typer.Exit(1)


@app.command()
def export(
    record: AnyRecord,
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
    """Write the data and figures of a record as files. Every table of its report is among them."""
    from anywire_experiment.exports.export import chosen
    from anywire_experiment.exports.export import export as write

    written = write(record, out, chosen(formats or ()))
    typer.echo(f"{out}: {len(written)} files")


@app.command()
def schema() -> None:
    """Print the JSON schema of a plan."""
    import json

    from anywire_experiment.plan.plan import Plan

    typer.echo(json.dumps(Plan.model_json_schema(), indent=2))


def _plan(file: Path, changes: list[str] | None, blocks: int | None) -> Plan:
    """The plan of a file with what the command line changes in it."""
    from anywire_experiment.plan.plan import load_plan

    return load_plan(file, [*(changes or ()), *([f"blocks={blocks}"] if blocks is not None else ())])


def _say_at_once(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


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
