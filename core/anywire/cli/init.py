"""``anywire init`` and ``schema``: a configuration to begin with, and its form for editors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anywire.cli import options
from anywire.cli.tables import print_json
from anywire.errors import ConfigError
from anywire.printable import escaped

if TYPE_CHECKING:
    from anywire.plugins import Plugins

FILE, SCHEMA = "anywire.yaml", "anywire.schema.json"
HEAD = (
    "# A configuration of Anywire: anywire up --config {name}",
    "#",
    "# Lines that begin with # and a blank explain. The others behind # are settings with their defaults: take the #",
    "# away to change one. `anywire config --config {name}` checks the file and prints what is in force.",
)


def init(
    file: Annotated[Path, typer.Argument(help="File to write, - for standard output.")] = Path(FILE),
    transports: options.Transports = None,
    engine: options.Engine = None,
    model: options.EngineModel = None,
    scheduler: options.Scheduler = None,
    selector: options.Selector = None,
    launcher: options.Launcher = None,
    services: Annotated[
        list[str] | None, typer.Option("--service", metavar="NAME", help="Service to run. Repeatable.")
    ] = None,
    gateways: Annotated[
        list[str] | None,
        typer.Option("--gateway", metavar="NAME", help="Gateway to run. Repeatable. Default: openai, where installed."),
    ] = None,
    host: options.Host = None,
    port: options.Port = None,
    slots: options.Slots = None,
    settings: options.Set = None,
    plugin_files: options.PluginFiles = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Begin with what the configuration of a LiteLLM proxy says."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    no_schema: Annotated[
        bool, typer.Option("--no-schema", help=f"Leave out {SCHEMA}, by which editors complete and check the file.")
    ] = False,
) -> None:
    """Write a configuration that explains every setting. Choose by options what it sets; the rest has its default."""
    from anywire.cli.config_file import Writer, fits
    from anywire.cli.settle import settle

    to_stdout = str(file) == "-"
    targets = () if to_stdout else (file,) if no_schema else (file, file.with_name(SCHEMA))
    if not force and not to_stdout and file.exists():
        raise ConfigError(f"{file} is there already: name another file, or replace it with --force")
    names = {"services": services, "gateways": gateways}
    named = [f"{key}=[{', '.join(given)}]" for key, given in names.items() if given]
    began, left = _begun(source) if source is not None else ({}, [])
    for key, chosen in (("engine.name", engine), ("selector.name", selector)):
        if chosen is not None:
            began.pop(key, None)
    config, plugins = settle(
        settings=[*named, *(settings or ())],
        transports=transports,
        engine=engine,
        model=model,
        scheduler=scheduler,
        selector=selector,
        launcher=launcher,
        host=host,
        port=port,
        slots=slots,
        plugin_files=plugin_files,
        quiet=True,
        environment={},
        began=began,
    )
    head = [line.format(name=FILE if to_stdout else file.name) for line in HEAD]
    if len(targets) > 1:
        head.insert(0, f"# yaml-language-server: $schema=./{SCHEMA}")
    text = Writer(config, plugins).text(head)
    private = fits(text, plugins)
    for each in left:
        typer.echo(f"not carried over: {escaped(each)}", err=True)
    if to_stdout:
        sys.stdout.write(text)
        return
    _write(file, text, force=force, private=private)
    if len(targets) > 1:
        _write(targets[1], _schema_text(plugins), force=True)
    typer.echo(f"wrote {' and '.join(map(str, targets))}", err=True)


@options.takes()
def schema(given: options.Given) -> None:
    """Print the JSON schema of the configuration. It has the options of the installed plugins."""
    from anywire.roles.config_schema import config_schema

    _, plugins = given.settle(quiet=True)
    print_json(config_schema(plugins))


def _begun(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings that another program's file becomes, and what of it is left. Raises `ConfigError`."""
    import yaml

    from anywire.cli.from_litellm import converted, is_litellm
    from anywire.config_layers import problem_in

    try:
        tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is no YAML: {problem_in(error)}") from None
    if not is_litellm(tree):
        raise ConfigError(
            f"{source} is no configuration of LiteLLM, which has a model_list; models of llama-swap are taken over by "
            f"`anywire models import llama-swap {source}`"
        )
    return converted(tree)


def _schema_text(plugins: Plugins) -> str:
    from anywire.roles.config_schema import config_schema

    return json.dumps(config_schema(plugins), indent=1, ensure_ascii=False) + "\n"


def _write(path: Path, text: str, *, force: bool, private: bool = False) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            if private:
                path.chmod(0o600)
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: name another file, or replace it with --force") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
