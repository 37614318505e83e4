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


def has_failed(resident: Resident, now: float) -> EngineFailed:
    """It did not start, or has ended. Lines of its log are not for clients."""
    name, reason = resident.name, resident.exit.reason if resident.exit else resident.reason
    wait = max(0.0, resident.not_before - now)
    if resident.keep == "restart":
        what = f"it is started again in {wait:.1f} s"
    elif resident.failures > resident.model.max_restarts:
        what = f"given up after {resident.failures} failures in a row: run `anywire models start {name}`"
    elif resident.model.on_demand:
        what = f"a request may start it again in {wait:.1f} s"
    else:
        what = f"run `anywire models start {name}`"
    text = f"model {name} is not running: {reason}; {what} (`anywire models logs {name}` has its last lines)"
    # One without restarts waits for a person, not for the time to pass.
    waits_for_time = resident.keep == "restart" or resident.model.on_demand
    return EngineFailed(text, retry_after=wait if waits_for_time else 0.0)


def hangs(resident: Resident) -> EngineFailed:
    return EngineFailed(f"model {resident.name}: {resident.reason}")


def queue_is_full(waiting: int) -> QueueFull:
    return QueueFull(f"{waiting} requests wait for models here already: come back later", retry_after=1.0)


def is_closing() -> ShuttingDown:
    return ShuttingDown("the host of the models is closing")
