"""``anywire desktop-bridge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="desktop-bridge",
    help="Serve a desktop app: JSON-RPC on stdin and stdout.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def serve(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Folder of the app's settings. Default: anywire/desktop in your configuration folder.",
        ),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            "--library", metavar="FILE", help="Model library of the app. Default: modelLibrary.json in that folder."
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            "--memory", metavar="SIZE", help="Memory for all models together: 12 GB, or 50% of the machine's."
        ),
    ] = "80%",
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="Log to standard error from this level on.")
    ] = "warning",
) -> None:
    """Serve a desktop app: JSON-RPC on stdin and stdout."""
    import logging

    import pydantic

    from anywire.files.private_files import config_folder
    from anywire.log_lines import RepeatLimit, TextLines
    from anywire_desktop.bridge import run
    from anywire_engine_models.config import ModelsConfig

    try:
        config = ModelsConfig(memory_budget=memory)
    except pydantic.ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(said, param_hint="--memory") from None
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter("expected debug, info, warning or error", param_hint="--log-level")
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines())
    handler.addFilter(RepeatLimit())
    logging.basicConfig(level=level, handlers=[handler], force=True)

    run((folder or config_folder() / "desktop").expanduser().absolute(), library, config)
