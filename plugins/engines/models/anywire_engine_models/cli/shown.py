"""How models look on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anywire.printable import escaped
from anywire.sizes import shown_size

COLOURS = {"running": "green", "starting": "yellow", "stopping": "yellow", "crashed": "red"}

Status = Mapping[str, Any]


def print_models(told: Mapping[str, Any]) -> None:
    """All models, and below them the memory, the devices and what is wrong with the registry."""
    columns = ("model", "state", "device", "memory", "serving", "waiting", "settings", "reason")
    _print_table(columns, [_row(each) for each in told["models"]])
    if not told["models"]:
        typer.echo("No model is known: add one with `anywire models add`.", err=True)
    for line in (memory_line(told.get("memory")), *map(device_line, told.get("devices") or ())):
        if line:
            typer.echo(escaped(line))
    registry = told.get("registry")
    fault = registry.get("fault") if isinstance(registry, dict) else ""
    if fault:
        typer.echo(f"registry: {escaped(str(fault))}", err=True)


def status_line(status: Status) -> str:
    """What has become of a model, in a sentence."""
    state = status["state"]
    said = f"{status['model']} {'is ' if state != 'crashed' else 'has '}{state}"
    if state == "running":
        said += f" on {status['device']} (pid {status['pid']})" if status["pid"] else f" on {status['device']}"
        said += f", loaded in {status['load_seconds']:.1f} s" if status["load_seconds"] else ""
    said += ", pinned" if status["pinned"] else ""
    if status.get("kept") is False:
        said += f"; the registry does not keep that: {status.get('why', '')}"
    return escaped(said)


def print_whole_status(status: Status) -> None:
    """Everything of one model that says something, a line each."""
    exit_ = status.get("exit") or {}
    rows: list[tuple[str, str | Text]] = [("model", str(status["model"])), ("state", _state(status))]
    since = status["since"]
    rows += [
        ("since", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)) if since else ""),
        ("reason", str(status["reason"])),
        ("process", f"pid {status['pid']}, start {status['starts']}" if status["pid"] else ""),
        ("address", str(status["address"])),
        ("device", ", ".join(filter(None, (status["device"], status["device_reason"])))),
        ("loaded", f"{status['progress']:.0%}" if status["state"] == "starting" and status["progress"] else ""),
        ("load time", f"{status['load_seconds']:.2f} s" if status["load_seconds"] else ""),
        ("memory", _memory(status)),
        ("requests", f"{status['serving']} served, {status['waiting']} wait"),
        ("context", str(status.get("context") or "")),
        ("settings", settings_of(status)),
        ("made room", f"{status['evictions']} times" if status["evictions"] else ""),
        ("digest", str(status.get("digest") or "")),
        ("last end", _ending(exit_)),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        if value:
            table.add_row(Text(name, "bold"), Text(escaped(value)) if isinstance(value, str) else value)
    _console().print(table)
    lines = exit_.get("lines") or ()
    if lines:
        typer.echo("it wrote last:")
        for line in lines:
            typer.echo(f"  {escaped(str(line), keep=chr(9))}")


def print_import(told: Mapping[str, Any]) -> None:
    """What an import has added and what it has left out."""
    for name in told["added"]:
        typer.echo(f"added {escaped(str(name))}")
    for name in told["present"]:
        typer.echo(f"there already: {escaped(str(name))}")
    for each in told["skipped"]:
        typer.echo(f"left out {escaped(_said(each))}")
    for each in told["notes"]:
        typer.echo(f"note: {escaped(_said(each))}")
    if not told["added"] and not told["present"]:
        typer.echo("No model was found there.", err=True)


def memory_line(memory: object) -> str:
    if not isinstance(memory, dict):
        return ""
    used, budget = shown_size(memory.get("used_bytes", 0)), memory.get("budget_bytes", 0)
    said = f"memory: {used} of {shown_size(budget)} used" if budget else f"memory: {used} used"
    loads, swaps = memory.get("loads", 0), memory.get("swaps", 0)
    if loads:
        said += f"; {loads} starts, for {swaps} of which another model was stopped"
    if swaps and memory.get("swap_seconds"):
        said += f" ({memory['swap_seconds'] / swaps:.1f} s each)"
    return said


def device_line(device: object) -> str:
    """A graphics card; it says where it is simulated."""
    if not isinstance(device, dict):
        return ""
    name = " ".join(str(device[key]) for key in ("device", "name") if device.get(key))
    total, free = device.get("vram_total_bytes", 0), device.get("vram_free_bytes", 0)
    said = f"{name or 'device'}: {shown_size(free)} of {shown_size(total)} free" if total else name
    return f"{said} (simulated)" if device.get("simulated") else said


def settings_of(status: Status) -> str:
    words = ("pinned" if status["pinned"] else "", "on demand" if status["on_demand"] else "")
    return ", ".join(filter(None, (*words, f"group {status['group']}" if status["group"] else "")))


def _row(status: Status) -> tuple[str | Text, ...]:
    why = status["reason"] if status["state"] != "crashed" else _ending(status.get("exit") or {}) or status["reason"]
    return (
        str(status["model"]),
        _state(status),
        str(status["device"]),
        _memory(status),
        str(status["serving"] or ""),
        str(status["waiting"] or ""),
        settings_of(status),
        str(why),
    )


def _state(status: Status) -> Text:
    state = str(status["state"])
    loaded = f" {status['progress']:.0%}" if state == "starting" and status["progress"] else ""
    return Text(escaped(state) + loaded, COLOURS.get(state, ""))


def _memory(status: Status) -> str:
    """Empty where nobody knows it."""
    return shown_size(status["memory_bytes"]) if status["memory_bytes"] else ""


def _ending(exit_: Mapping[str, Any]) -> str:
    return str(exit_.get("reason", ""))


def _said(each: object) -> str:
    """What an importer says of something: a sentence, or an object of texts such as ``what`` and ``why``."""
    if isinstance(each, dict):
        return ": ".join(str(value) for value in each.values() if value not in (None, ""))
    return str(each)


def _print_table(columns: Sequence[str], rows: Sequence[tuple[str | Text, ...]]) -> None:
    used = [at for at in range(len(columns)) if at < 2 or any(str(row[at]) for row in rows)]
    table = Table(*(columns[at] for at in used), box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        cells = [row[at] for at in used]
        table.add_row(*(Text(escaped(cell)) if isinstance(cell, str) else cell for cell in cells))
    _console().print(table)


def _console() -> Console:
    # In a pipe nothing is cut to the width of a screen.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 400)
