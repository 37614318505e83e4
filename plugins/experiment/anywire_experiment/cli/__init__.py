"""``anywire experiment``: run a plan, report on its record, compare records, verify, sign and publish one, repeat one;
try faults.

What a command needs beyond its options is imported when it runs, so that ``anywire --help`` stays quick.
"""

from collections.abc import Callable

import typer

from anywire_experiment.cli import faults, plans, records

app = typer.Typer(
    name="experiment",
    help="Run controlled experiments. A plan makes a record, from which every figure is computed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_COMMANDS: tuple[Callable[..., None], ...] = (
    *(plans.run, plans.plan, records.report, records.compare, records.verify, records.key, records.sign),
    *(records.publish, records.unpack, plans.reproduce, records.calibrate, faults.faults, records.export, plans.schema),
)
"""In the order in which they are listed."""

for _command in _COMMANDS:
    app.command()(_command)
