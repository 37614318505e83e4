"""A program that takes its part of a machine's memory for models: `python sharing_program.py FOLDER BUDGET TOTAL USED`.

It writes a line with what it may take now and at most, whenever that changes. USED are the bytes that its models take
from its first look on. With the word ``lock`` for a budget it holds the lock of the folder instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

from anywire_engine_models.config import ModelsConfig, budget_bytes
from anywire_engine_models.host.settings import MemoryBudget
from anywire_engine_models.host.status import Listener, MemoryUse, ModelChanged, ModelStatus
from anywire_engine_models.machine_budget.share import LOCK, MemoryShare


class Host:
    """As much of a host as a share of the memory looks at. ``budgets`` are those that it was given; it may not be given
    less than its models ``used``, unless that is all that the machine has."""

    def __init__(self, budget: int, used: int = 0) -> None:
        self.used = used
        self.budgets: list[MemoryBudget] = [MemoryBudget(budget, budget)]
        self.changed = asyncio.Event()
        self._listeners: list[Listener] = []

    @property
    def budget(self) -> MemoryBudget:
        return self.budgets[-1]

    def memory(self) -> MemoryUse:
        return MemoryUse(self.budget.most, self.used)

    def set_budget(self, budget: MemoryBudget) -> None:
        if budget != self.budget:
            self.budgets.append(budget)
            self.changed.set()

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def stop_all(self) -> None:
        """Its models take nothing any more."""
        self.used = 0
        for listener in list(self._listeners):
            listener(ModelChanged(ModelStatus("m", "stopped"), "stopping"))

    async def until(self, now: int, most: int) -> None:
        while (self.budget.now, self.budget.most) != (now, most):
            self.changed.clear()
            await self.changed.wait()


def shared(folder: Path, budget: int | str, total: int, used: int = 0) -> tuple[Host, MemoryShare]:
    """A host on a machine with ``total`` bytes that takes part, and its share."""
    host = Host(budget_bytes(budget, total), used)
    return host, MemoryShare(ModelsConfig(memory_budget=budget), host, folder=folder, total=total)


async def run(folder: Path, budget: str, total: int, used: int) -> None:
    host, share = shared(folder, int(budget) if budget.isdigit() else budget, total, used)
    share.begin()
    while True:
        print(host.budget.now, host.budget.most, flush=True)
        host.changed.clear()
        await host.changed.wait()


def main() -> None:
    folder, budget, total, used = sys.argv[1:]
    if budget == "lock":
        descriptor = os.open(Path(folder) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    else:
        asyncio.run(run(Path(folder), budget, int(total), int(used)))


if __name__ == "__main__":
    main()
