"""Where and with what settings a record was made, as tables; and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from anywire_experiment.analysis.cautions import sessions_of
from anywire_experiment.analysis.raw import RawData
from anywire_experiment.analysis.wording import percent
from anywire_experiment.plan.saturation import Search
from anywire_experiment.plan.workload import Bursts, Closed, Exercises, Poisson, Trace, Workload
from anywire_experiment.record.environment import Environment
from anywire_experiment.record.storage import RecordError
from anywire_experiment.report import traffic
from anywire_experiment.report.numbers import size
from anywire_experiment.report.tables import Table

TWO = frozenset({1})


def environment(record: RawData) -> list[Table]:
    """Raises `RecordError` when what the record says of it cannot be read."""
    sessions = sessions_of(record.folder)
    if sessions is None or not sessions.sessions:
        return []
    first = sessions.sessions[0].environment
    tables = [
        Table("Machine and software", ["What", "Value"], list(_machine(first)), words=TWO),
        Table(
            "Sessions of the run",
            ["Started", "Ended", "Ending", "Not as in the first"],
            [[each.started, each.ended, each.ending, "; ".join(each.differs)] for each in sessions.sessions],
            words=frozenset({1, 2, 3}),
        ),
    ]
    if first.sources or first.installed:
        rows = [[name, str(each)] for name, each in (first.sources | first.installed).items()]
        note = (
            "SHA-256 of the names and contents of a package's Python files, of a file, or of a program; of a program "
            "that a package brought, of that package's list of files with their hashes. "
            "Code of others, and what differs from Anywire's commit, is in the record's folder `sources`."
        )
        tables.append(Table("Plugins, companions and systems", ["What", "Source"], rows, note, TWO))
    links = [
        [cell.arm, str(cell.block), *_link(record, cell.block, cell.arm)]
        for cell in record.cells
        if (_folder(record, cell.block, cell.arm) / "link.json").exists()
    ]
    if links:
        head = ["Arm", "Block", "Kind", "Delay, ms", "Jitter, ms", "Lost", "Mbit/s", "Faults"]
        note = "The emulated link, measured before each cell, one way."
        tables.append(Table("Link", head, links, note, frozenset({2, 7})))
    return tables


def _machine(of: Environment) -> Iterator[list[str]]:
    yield ["Anywire", ", ".join(f"{name} {version}" for name, version in of.anywire.items())]
    yield ["Commit", f"{of.commit}, changes: {of.dirty}" if of.commit else "installed from packages"]
    yield ["Python", of.python]
    yield ["CPU", f"{of.cpu_model}, {of.cores} cores, {len(of.usable_cores)} usable, {of.machine}"]
    yield ["Governor, turbo", f"{of.governor or 'unknown'}, {of.turbo}"]
    yield ["Frequency", ", ".join(f"{each:g} MHz" for each in of.frequency_mhz) or "unknown"]
    yield ["Clock", of.clock_source]
    yield ["Kernel", of.kernel]
    yield ["Container", of.container or "none seen"]
    yield ["Memory", f"{size(of.memory_bytes)}, swap {size(of.swap_bytes)}"]
    yield ["Load average before", ", ".join(f"{each:.2f}" for each in of.load_average)]
    for name, value in {**of.cgroup, **of.network}.items():
        yield [name, value or "none"]
    yield ["Packages", ", ".join(f"{name} {version}" for name, version in of.packages.items())]


def settings(record: RawData) -> list[tuple[str, Table]]:
    """What each arm's transports were asked for and what they granted, by process, from its first whole cell."""
    made = []
    for arm in record.arms:
        cell = next((each for each in record.cells if each.arm == arm and each.state == "completed"), None)
        if cell is None:
            continue
        rows: list[list[str]] = []
        for path in sorted(_folder(record, cell.block, arm).glob("settings-*.json")):
            process = path.stem.removeprefix("settings-")
            for transport in _read(path):
                for which in ("asked", "granted"):
                    given: Mapping[str, Any] = transport.get(which, {})
                    rows += [
                        [key, process, f"{transport.get('transport', '')}, {which}", _told(value)]
                        for key, value in given.items()
                    ]
        if rows:
            table = Table("Transport settings", ["Setting", "Process", "", "Value"], rows, words=frozenset({1, 2, 3}))
            made.append((f"Settings of {arm}, asked for and granted", table))
    return made


def about(workload: Workload) -> str:
    """What is asked of the system, in a sentence."""
    ends = [
        f"{workload.requests} requests" if workload.requests else "",
        f"{workload.seconds:g} s" if workload.seconds else "",
    ]
    until = " or ".join(each for each in ends if each)
    load = _arrivals(workload)
    if workload.search is None:
        load += f", until {until or 'the end of the trace'}"
    through = "the gateway" if workload.through == "gateway" else "the client plane"
    fault = (
        f" Fault: {workload.fault.kind} at {workload.fault.at:g} s for {workload.fault.lasts:g} s."
        if workload.fault
        else ""
    )
    return (
        f"Load: {load}; {_answers(workload)} (temperature {workload.temperature:g}), through {through}."
        f"{_mixed(workload)}{fault}"
    )


def _arrivals(workload: Workload) -> str:
    is_talk = workload.conversation is not None
    match workload.arrivals:
        case Closed(clients=clients):
            then = "beginning its next session when the last one is over" if is_talk else "sending its next request"
            return f"{clients} client{'s' if clients > 1 else ''}, each {then}{'' if is_talk else ' when answered'}"
        case Poisson(rate=rate):
            return f"independent arrivals{' of sessions' if is_talk else ''}, {rate:g} per second"
        case Bursts(size=count, every=every):
            return f"bursts of {count}{' sessions' if is_talk else ''} every {every:g} s"
        case Search(low=low, high=high, seconds=seconds, precision=precision):
            return (
                f"independent arrivals in steps of {seconds:g} s, from {low:g} to at most {high:g} per second, until "
                f"the rate that is borne is known within {percent(precision)}"
            )
        case Trace(file=file, speed=speed):
            return f"replay of {file.name} at {speed:g} times its speed"


def _answers(workload: Workload) -> str:
    answers = "streamed answers" if workload.stream else "whole answers"
    if isinstance(workload.arrivals, Trace):
        return f"{answers} as long as the trace says"
    sizes = workload.sizes
    if sizes is not None and (sizes.answer is not None or sizes.file is not None):
        return f"{answers} of drawn lengths"
    tokens = "token" if workload.max_tokens == 1 else "tokens"
    return f"{answers} of {workload.max_tokens} {tokens} at most"


def _mixed(workload: Workload) -> str:
    """What differs between the requests, with the share of each."""
    told = [
        *_shares("Priorities", {f"{each}": share for each, share in workload.priorities.items()}),
        *_shares("Tenants", workload.tenants),
        *_shares("Deadlines", {f"{each:g} s": share for each, share in workload.deadlines.items()}),
    ]
    if workload.exercises is not None:
        told.append(f"Exercises: {_exercises(workload.exercises)}")
    prompts = workload.prompts
    if prompts.shared_prefix_chars:
        told.append(f"Beginnings that prompts share: {prompts.prefixes} of {prompts.shared_prefix_chars} characters")
    told += traffic.about(workload)
    return "".join(f" {each}." for each in told)


def _exercises(of: Exercises) -> str:
    return f"those of {of.file.name}" if of.file is not None else f"made by seed ({', '.join(of.kinds)})"


def _shares(title: str, shares: Mapping[str, float]) -> Iterator[str]:
    if shares:
        whole = sum(shares.values())
        yield f"{title}: {', '.join(f'{name} ({percent(share / whole)})' for name, share in shares.items())}"


def commands(record: RawData) -> str:
    return (
        "anywire experiment verify RECORD        # all files as sealed, all figures from the raw data; who signed it\n"
        "anywire experiment report RECORD        # this page once more, from the raw data\n"
        "anywire experiment reproduce RECORD     # the same plan here and now, both side by side\n"
        f"anywire experiment run plan.yaml        # the plan below; {record.expected} cells, seed {record.plan.seed}"
    )


def _folder(record: RawData, block: int, arm: str) -> Path:
    return record.folder / "cells" / f"b{block:03}" / arm


def _link(record: RawData, block: int, arm: str) -> list[str]:
    told = _read(_folder(record, block, arm) / "link.json")
    found = told["measured"]
    rate = found["bandwidth_mbit"]
    return [
        told["kind"],
        f"{found['delay_ms']:.2f}",
        f"{found['jitter_ms']:.2f}",
        f"{100 * found['loss']:.2f} %",
        "no limit" if rate is None else f"{rate:.2f}",
        "; ".join(found["faults"]) or "none",
    ]


def _read(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def _told(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
