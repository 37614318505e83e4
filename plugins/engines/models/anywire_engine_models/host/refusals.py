"""The errors that callers of a host meet: what is with the model, and what to do."""

from __future__ import annotations

from anywire.errors import EngineFailed, ModelStopped, QueueFull, ShuttingDown
from anywire_engine_models.host.resident import Resident


def is_stopped(resident: Resident) -> ModelStopped:
    """No request starts it."""
    name, why = resident.name, f" ({resident.reason})" if resident.reason else ""
    return ModelStopped(
        f"model {name} is {resident.state}{why}, and no request starts it: run `anywire models start {name}`, "
        "or let requests start it (on_demand)"
    )


def was_stopped(resident: Resident, reason: str) -> ModelStopped:
    """It was stopped while somebody waited for it."""
    return ModelStopped(f"model {resident.name} was stopped: {reason}")


def did_not_start(resident: Resident, now: float) -> EngineFailed:
    """For who has asked for the start: to start it once more is no advice."""
    wait = max(0.0, resident.not_before - now)
    again = f"; it is started again in {wait:.1f} s" if resident.keep == "restart" else ""
    return EngineFailed(f"model {resident.name} did not start: {_reason(resident)}{again}{_where_lines_are(resident)}")


def has_failed(resident: Resident, now: float) -> EngineFailed:
    """It did not start, or has ended, and a request meets that."""
    name = resident.name
    wait = max(0.0, resident.not_before - now)
    if resident.keep == "restart":
        what = f"it is started again in {wait:.1f} s"
    elif resident.failures > resident.model.max_restarts:
        what = f"given up after {resident.failures} failures in a row: run `anywire models start {name}`"
    elif resident.model.on_demand:
        what = f"a request may start it again in {wait:.1f} s"
    else:
        what = f"run `anywire models start {name}`"
    text = f"model {name} is not running: {_reason(resident)}; {what}{_where_lines_are(resident)}"
    # One without restarts waits for a person, not for the time to pass.
    waits_for_time = resident.keep == "restart" or resident.model.on_demand
    return EngineFailed(text, retry_after=wait if waits_for_time else 0.0)


def _reason(resident: Resident) -> str:
    return resident.exit.reason if resident.exit else resident.reason


def _where_lines_are(resident: Resident) -> str:
    """Lines of its log are not for clients."""
    has_lines = resident.exit is not None and resident.exit.lines
    return f" (`anywire models logs {resident.name}` has its last lines)" if has_lines else ""


def hangs(resident: Resident) -> EngineFailed:
    return EngineFailed(f"model {resident.name}: {resident.reason}")


def queue_is_full(waiting: int) -> QueueFull:
    return QueueFull(f"{waiting} requests wait for models here already: come back later", retry_after=1.0)


def is_closing() -> ShuttingDown:
    return ShuttingDown("the host of the models is closing")
