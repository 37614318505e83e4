"""The contract of a store: where deliberations and councils are kept.

SQLite is the default (`anywire_service_deliberation.database.Database`). A package brings another one as a class, with
the entry point group ``anywire.deliberation_stores``::

    [project.entry-points."anywire.deliberation_stores"]
    mine = "my_package:MyStore"

Users choose it with ``services.deliberation.store: mine``, or with its settings ``{name: mine, size: 3}``, which its
``Config`` checks. `anywire_service_deliberation.testing.store_kit.StoreConformance` has this contract as tests.

Life
    ``__init__`` does no I/O. `open` is awaited until it returns True. Then one process owns the store: everything else
    is called only from then until `close`, or until the store has called ``on_lost``. After ``on_lost`` `open` may be
    called again. All calls come from one event loop, many of them at once.

One owner
    At most one process at a time owns what is kept. A process that has lost it must not change anything any more, also
    if it stood still meanwhile and does not know it. Where the operating system ends an ownership with its process (a
    lock on a file), nothing more is needed. Elsewhere each write must be refused unless its writer still is the owner.

Writes
    A write is whole or not at all. When it returns, what it has written outlives the process, however that ends; what
    a loss of power takes is for each store to say. Writes of one deliberation are done in the order of their calls. A
    write whose caller is cancelled may be done all the same.

Failures
    A call raises `anywire.errors.PluginFailed` when the store cannot be used now, within a bound that the store states.
    Whether a write that raised is done may be open: what is read later is the state before it or after it, never
    something in between. `add` is the exception: what it has refused is not read until it is added again. The caller
    tries again. The text of an error goes to clients: addresses, names of files and secrets belong in the log alone.

Bounds
    `Place.max_kept` bounds the deliberations that have ended. Those under way are bounded by the caller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pydantic

from anywire.caller import Caller
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation


def tenant_of(caller: Caller) -> str:
    """Who has what a caller asks for: its tenant; without one, the caller itself, which no tenant can be named like."""
    return caller.tenant or (f"\n{caller.id}" if caller.id else "")


class Place(NamedTuple):
    """What every store is given: ``folder`` on this machine, for this user alone, which need not exist yet, and how
    many deliberations are kept after their end (``max_kept``)."""

    folder: Path
    max_kept: int = 10_000


class StoreConfig(pydantic.BaseModel):
    """A store without settings of its own; a plugin's ``Config`` is another one or extends it."""

    model_config = pydantic.ConfigDict(extra="forbid", hide_input_in_errors=True)


class Store(ABC):
    """Keeps deliberations by tenant (`tenant_of` the question's caller) and id, and councils by tenant and name."""

    Config: ClassVar[type[pydantic.BaseModel]] = StoreConfig
    waits_for: str = "another process has them"
    """Why the last `open` returned False, as part of a sentence for the log."""

    @classmethod
    @abstractmethod
    def make(cls, config: Any, place: Place) -> Store:
        """A new one. ``config`` is an instance of ``Config``. Called once, at the start of the service."""

    @abstractmethod
    async def open(self, on_lost: Callable[[str], None] | None = None) -> bool:
        """Become the owner. False while that is not possible: another process owns it, or it cannot be reached yet; see
        `waits_for`. It is called again after a moment then. ``on_lost`` is called once, with a reason, when this
        process owns it no more although it has not closed it. Raises `anywire.errors.ConfigError` when it can never be
        used as configured."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes that were called for, as far as that is possible within a few seconds, and let another
        process have it at once. Safe to call twice, and without `open`. Every later call raises `PluginFailed`."""

    @abstractmethod
    async def add(self, state: Deliberation) -> Deliberation:
        """Keep a new deliberation. Returns ``state``; or the one that is there, when its tenant has that id already
        and that one has not expired by ``state.submitted``. Somebody waits for it: it may overtake other writes."""

    @abstractmethod
    async def keep(self, state: Deliberation) -> None:
        """Keep this newer state of one that was added. ``answers``, ``failures`` and ``late`` only grow: what they had
        in an earlier state never changes. Nothing happens when it is not kept any more."""

    @abstractmethod
    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        """The newest state; of any tenant's newest with that id when ``tenant`` is None. Entries of ``answers``,
        ``failures`` and ``late`` are in the order in which they came."""

    @abstractmethod
    async def list(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        """``limit`` at most, those submitted last first, of all tenants when ``tenant`` is None. The texts of their
        answers are empty, and need not be read. An empty ``status`` or ``role`` filters nothing; ``role`` is that of
        any member."""

    @abstractmethod
    async def unfinished(self) -> Sequence[Deliberation]:
        """Those that have not ended (``ended`` is 0), of all tenants, in the order in which they were added. One that
        cannot be read is left out and logged."""

    @abstractmethod
    async def purge(self, now: float) -> int:
        """Remove those that have expired by ``now`` (seconds since 1970), and of more ended ones than
        ``Place.max_kept`` the oldest of the tenants that have the most. Returns how many."""

    @abstractmethod
    async def councils(self) -> Sequence[tuple[str, Council]]:
        """All of them, each with its tenant."""

    @abstractmethod
    async def put_council(self, tenant: str, council: Council) -> None:
        """Keep it, in place of the tenant's council of that name."""

    @abstractmethod
    async def delete_council(self, tenant: str, name: str) -> bool:
        """False when there is none."""
