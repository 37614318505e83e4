"""Commands for a record that is there: they report on it, hold it against another one, check, sign, publish and export
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anywire_experiment.cli.options import AnyRecord, RecordFolder, Sign


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
