"""A record: the folder that holds all of one experiment, sealed by a manifest of hashes.

Cells are written aside, forced to the disk and renamed, so that a run which is killed leaves whole cells only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Self

import msgspec

from anywire.this_system import O_CLOEXEC, lock_file
from anywire_experiment.plan.files import plugin_files
from anywire_experiment.plan.plan import Plan
from anywire_experiment.plan.reading import load_plan
from anywire_experiment.plan.workload import Trace
from anywire_experiment.record import manifest
from anywire_experiment.record.cells import Cell, read_cell
from anywire_experiment.record.environment import Environment
from anywire_experiment.record.manifest import MANIFEST
from anywire_experiment.record.masking import hidden, masked, without_secrets
from anywire_experiment.record.storage import RecordError, pretty, sync, write_whole

PLAN, GIVEN, ENVIRONMENT = "plan.json", "plan.yaml", "environment.json"
_PARTIAL = ".partial"


class Session(msgspec.Struct):
    """One life of the runner. ``ended`` is empty when it was killed; then ``last_cell`` is when its last cell ended.
    ``differs``: what was not as in the first session. ``left_out``: why, by level, of optional systems that are not
    here. ``outside``: a sentence for what arms used that was no process of their cells."""

    started: str
    environment: Environment
    ended: str = ""
    ending: str = "killed"
    cells: int = 0
    last_cell: str = ""
    differs: list[str] = []
    left_out: dict[str, str] = {}
    outside: list[str] = []


class Sessions(msgspec.Struct):
    """``environment.json``. More than one session: the run was interrupted in between."""

    seed: int
    sessions: list[Session]


class Record:
    """A record that this process alone writes. Use `create_or_resume`; `close` gives it free."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self._lock = folder, lock

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A record that is there. Raises `RecordError` when it cannot be written, or another process writes it."""
        try:
            lock = os.open(folder, os.O_RDONLY | O_CLOEXEC)
        except OSError as error:
            raise RecordError(f"the record {folder} cannot be written: {error.strerror}") from error
        try:
            lock_file(lock)
        except BlockingIOError as error:
            os.close(lock)
            raise RecordError(f"another run writes {folder} just now") from error
        return cls(folder, lock)

    @classmethod
    def create_or_resume(cls, folder: Path, plan: Plan, given: Path) -> Self:
        """Raises `RecordError` also when the folder holds something else, or the record of another plan."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            record = cls.open(folder)
            try:
                record._adopt(plan, given)
            except BaseException:
                record.close()
                raise
        except OSError as error:
            raise RecordError(
                f"the record {folder} cannot be written: {error.strerror}; choose another with --out"
            ) from error
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _adopt(self, plan: Plan, given: Path) -> None:
        wanted = _dumped(plan)
        present = self.folder / PLAN
        if not present.exists():
            partial = self.folder / _PARTIAL
            if any(self.folder.iterdir()) and not partial.exists():
                raise RecordError(f"{self.folder} is not empty and no record: choose another folder with --out")
            # From here on the folder is ours, also if the plan cannot be written into it yet.
            partial.mkdir(exist_ok=True)
            for name, workload in plan.workloads.items():
                if isinstance(workload.arrivals, Trace):
                    for number, file in enumerate((workload.arrivals.file, *workload.arrivals.further), start=1):
                        self._copy(file, _trace_name(name, file, number))
                if workload.sizes is not None and workload.sizes.file is not None:
                    self._copy(workload.sizes.file, _sizes_name(name, workload.sizes.file))
                if workload.exercises is not None and workload.exercises.file is not None:
                    self._copy(workload.exercises.file, _exercises_name(name))
            for each in plugin_files(plan.system):
                self._copy(Path(each), _plugin_name(each))
            write_whole(self.folder / GIVEN, without_secrets(given.read_text(encoding="utf-8")).encode())
            write_whole(present, pretty(wanted))
        elif (found := _object(present)) != wanted:
            keys = [key for key in wanted if found.get(key) != wanted[key]]
            raise RecordError(
                f"{self.folder} is the record of another plan (it differs in {', '.join(keys)}); choose another folder "
                "with --out"
            )
        shutil.rmtree(self.folder / _PARTIAL, ignore_errors=True)

    def _copy(self, source: Path, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)

    @property
    def sealed(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def has(self, block: int, arm: str) -> bool:
        return cell_folder(self.folder, block, arm).exists()

    def partial(self, block: int, arm: str) -> Path:
        """Where a cell is written; empty."""
        folder = self.folder / _PARTIAL / f"b{block:03}-{arm}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def keep(self, partial: Path, cell: Cell) -> None:
        """The cell is whole: make it part of the record. Raises OSError."""
        target = cell_folder(self.folder, cell.block, cell.arm)
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in (*partial.rglob("*"), partial):
            sync(path)
        partial.rename(target)
        for path in (target.parent, target.parent.parent, self.folder):
            sync(path)

    def sessions(self) -> Sessions | None:
        """None before the first. Raises `RecordError`."""
        path = self.folder / ENVIRONMENT
        try:
            return msgspec.json.decode(path.read_bytes(), type=Sessions) if path.exists() else None
        except msgspec.DecodeError as error:
            raise RecordError(f"{path} cannot be read: {error}") from error

    def write_sessions(self, sessions: Sessions) -> None:
        write_whole(self.folder / ENVIRONMENT, pretty(msgspec.to_builtins(sessions)))

    def seal(self) -> None:
        """Hash every file; from now on any change is noticed (`anywire_experiment.record.manifest`)."""
        shutil.rmtree(self.folder / _PARTIAL, ignore_errors=True)
        manifest.seal(self.folder)

    def close(self) -> None:
        os.close(self._lock)


def cell_folder(record: Path, block: int, arm: str) -> Path:
    return record / "cells" / f"b{block:03}" / arm


def cells_of(record: Path) -> list[Cell]:
    """Every cell of a record, by block and arm. Raises `RecordError`."""
    try:
        return [read_cell(path.parent) for path in sorted(record.glob("cells/b*/*/cell.json"))]
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"a cell of {record} cannot be read: {error}") from error


def plan_of(record: Path) -> Plan:
    """The plan of a record. Raises `RecordError` or `ConfigError`."""
    if not (record / PLAN).is_file():
        raise RecordError(f"{record} is no record of an experiment: there is no {PLAN} in it")
    return load_plan(record / PLAN)


def runnable_plan_of(record: Path) -> Plan:
    """The plan of a record, to be run again. Raises `RecordError`, also when it needs a secret, which no record has."""
    plan = plan_of(record)
    if needed := list(hidden("", plan.model_dump(mode="json"))):
        raise RecordError(
            f"the plan of {record} needs what a record does not keep: {', '.join(needed)}; put it into a copy of "
            f"{record / GIVEN}, run that, and compare the two records"
        )
    return plan


def _dumped(plan: Plan) -> dict[str, Any]:
    """The plan as the record keeps it: secrets masked, files that it names where the record has them."""
    tree: dict[str, Any] = masked(plan.model_dump(mode="json"))
    if files := plugin_files(plan.system):
        named = tree["system"]["plugins"]
        tree["system"]["plugins"] = [_plugin_name(each) if each in files else each for each in named]
    for name, workload in plan.workloads.items():
        if isinstance(workload.arrivals, Trace):
            trace = tree["workloads"][name]["arrivals"]
            trace["file"] = _trace_name(name, workload.arrivals.file, 1)
            trace["further"] = [
                _trace_name(name, each, at) for at, each in enumerate(workload.arrivals.further, start=2)
            ]
        if workload.sizes is not None and workload.sizes.file is not None:
            tree["workloads"][name]["sizes"]["file"] = _sizes_name(name, workload.sizes.file)
        if workload.exercises is not None and workload.exercises.file is not None:
            tree["workloads"][name]["exercises"]["file"] = _exercises_name(name)
    return tree


def _object(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def _plugin_name(file: str) -> str:
    return f"plugins/{Path(file).name}"


def _trace_name(workload: str, file: Path, number: int) -> str:
    return f"traces/{workload}{f'-{number}' if number > 1 else ''}{file.suffix}"


def _sizes_name(workload: str, file: Path) -> str:
    return f"traces/{workload}-sizes{file.suffix}"


def _exercises_name(workload: str) -> str:
    return f"exercises/{workload}.jsonl"
