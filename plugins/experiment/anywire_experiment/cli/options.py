"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
