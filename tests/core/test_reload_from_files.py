"""A configuration that is read again from its file: the process that runs is changed by nothing that is not told."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anywire import errors
from anywire.cli.options import Given
from anywire.config_layers import MAX_CHARS, load
from anywire.log_lines import TextLines
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.logs import CHATTY
from anywire.roles.orchestrator_role import Served
from anywire.roles.reload import MAX_FAULT_CHARS, Reload, Reloaded
from anywire.route import Routes
from anywire.testing.puppet import PuppetTransport

Make = Callable[..., Any]
PLUGIN = """
import builtins
builtins.anywire_plugin_runs = getattr(builtins, "anywire_plugin_runs", 0) + 1
"""


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, which is left as it was."""
    found = logging.getLogger()
    level, handlers = found.level, [*found.handlers]
    chatty = {name: logging.getLogger(name).level for name in CHATTY}
    yield found
    for name, each in chatty.items():
        logging.getLogger(name).setLevel(each)
    found.handlers[:] = handlers
    found.setLevel(level)


def given(path: Path, **more: Any) -> Given:
    return Given({"file": path, "settings": None, "plugin_files": None, "log_level": None, **more})


def started(path: Path, pipeline: Orchestrator, text: str) -> Reload:
    path.write_text(text)
    options = given(path)
    settled, _ = options.serving()
    reload = Reload(settled.told, options.told)
    reload.serves(Served(pipeline, [], routes=Routes()))
    return reload


async def test_handlers_of_the_log_and_its_form_stay(
    pipeline_of: Make, wire: PuppetTransport, tmp_path: Path, root: logging.Logger
) -> None:
    """A service that sends lines elsewhere has a handler of its own."""
    path = tmp_path / "anywire.yaml"
    reload = started(path, await pipeline_of(wire), "transports: memory")
    of_service = logging.NullHandler()
    root.addHandler(of_service)
    [own] = [each for each in root.handlers if isinstance(each.formatter, TextLines)]
    path.write_text("{transports: memory, log_level: debug, log_format: json}")
    assert await reload.again() == Reloaded(("log_level",), ("log_format",))
    assert root.level == logging.DEBUG
    assert own in root.handlers
    assert of_service in root.handlers
    assert isinstance(own.formatter, TextLines)
    assert own.formatter.with_names


@pytest.mark.parametrize(
    "wrong",
    ["plugins: [gone.py]", "selector: {name: least_loaded, nonsense: 1}", "services: {nobody_has_it: {}}"],
)
async def test_what_no_orchestrator_starts_with_changes_nothing(
    pipeline_of: Make, wire: PuppetTransport, tmp_path: Path, root: logging.Logger, wrong: str
) -> None:
    path = tmp_path / "anywire.yaml"
    pipeline: Orchestrator = await pipeline_of(wire)
    reload = started(path, pipeline, "transports: memory")
    path.write_text(f"transports: memory\nlog_level: error\npipeline: {{max_tokens: 5}}\n{wrong}")
    with pytest.raises(errors.AnywireError, match=r"gone\.py|nonsense|nobody_has_it"):
        await reload.again()
    assert root.level == logging.INFO
    assert pipeline.config.max_tokens == 0


async def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(
    pipeline_of: Make, wire: PuppetTransport, tmp_path: Path
) -> None:
    path = tmp_path / "anywire.yaml"
    reload = started(path, await pipeline_of(wire), "transports: memory")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(errors.ConfigError, match="is no file"):
        await reload.again()


async def test_files_of_plugins_are_not_run_again(pipeline_of: Make, wire: PuppetTransport, tmp_path: Path) -> None:
    import builtins

    plugin, path = tmp_path / "own.py", tmp_path / "anywire.yaml"
    plugin.write_text(PLUGIN)
    try:
        reload = started(path, await pipeline_of(wire), f"transports: memory\nplugins: [{plugin}]")
        plugin.write_text(f"{PLUGIN}\nraise SystemExit(3)")
        path.write_text(f"transports: memory\nplugins: [{plugin}]\npipeline: {{max_tokens: 5}}")
        assert await reload.again() == Reloaded(("pipeline.max_tokens",))
        assert builtins.anywire_plugin_runs == 1  # type: ignore[attr-defined]
    finally:
        del builtins.anywire_plugin_runs  # type: ignore[attr-defined]


async def test_a_new_plugin_that_would_end_the_process_does_not(
    pipeline_of: Make, wire: PuppetTransport, tmp_path: Path
) -> None:
    plugin, path = tmp_path / "own.py", tmp_path / "anywire.yaml"
    plugin.write_text("import sys\nsys.exit('enough')")
    reload = started(path, await pipeline_of(wire), "transports: memory")
    path.write_text(f"transports: memory\nplugins: [{plugin}]")
    with pytest.raises(errors.ConfigError, match="SystemExit: enough"):
        await reload.again()


async def test_another_order_of_transports_is_told(pipeline_of: Make, wire: PuppetTransport, tmp_path: Path) -> None:
    path = tmp_path / "anywire.yaml"
    reload = started(path, await pipeline_of(wire), "transports: [memory, http]")
    path.write_text("transports: [http, memory]")
    assert await reload.again() == Reloaded((), ("transports",))
    path.write_text("transports: [http]")
    assert await reload.again() == Reloaded((), ("transports.memory",))


async def test_what_is_wrong_is_told_in_an_event_of_bounded_length(
    pipeline_of: Make, wire: PuppetTransport, tmp_path: Path
) -> None:
    from anywire.events import ConfigReloaded

    path, told = tmp_path / "anywire.yaml", list[ConfigReloaded]()
    pipeline: Orchestrator = await pipeline_of(wire)
    reload = started(path, pipeline, "transports: memory")
    pipeline.events.subscribe("test", told.append, ConfigReloaded)
    path.write_text("\n".join(f"unknown_{number}: 1" for number in range(500)))
    with pytest.raises(errors.ConfigError, match="unknown_7"):
        await reload.again()
    assert len(told[0].error) == MAX_FAULT_CHARS


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anywire.yaml"
    path.write_text("#" * (MAX_CHARS + 1))
    with pytest.raises(errors.ConfigError, match="more than 1048576 characters"):
        load(path, environment={})
    path.write_text("#" * MAX_CHARS)
    load(path, environment={})
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path.write_text("\n".join(bomb))
    with pytest.raises(errors.ConfigError, match="more than 100000 keys and values"):
        load(path, environment={})
