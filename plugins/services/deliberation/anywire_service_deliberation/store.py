"""Where deliberations are kept. SQLite is one (`database`); a key-value store can be another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.record import Deliberation


class Store(Protocol):
    """Each call is whole or not at all. When it returns, what it has written outlives this process, however that ends;
    what a loss of power takes is for each store to say. Raises `anywire.errors.PluginFailed` when the disk fails."""

    async def open(self) -> bool:
        """False while another process has it: nothing else may be called then. Raises `anywire.errors.ConfigError` when
        it can never be used as configured."""
        ...

    async def close(self) -> None: ...
    async def add(self, state: Deliberation) -> Deliberation:
        """Keep a new one; the one that is there when its tenant has that id already, and it has not expired by then
        (``state.submitted``). It overtakes what waits to be written."""
        ...

    async def keep(self, state: Deliberation) -> None:
        """Keep this newer state."""
        ...

    async def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        """The newest of any tenant when ``tenant`` is None."""
        ...

    async def list(self, tenant: str | None, status: str, role: str, limit: int) -> Sequence[Deliberation]:
        """The newest first, of all tenants when ``tenant`` is None; without the texts of their answers. An empty
        ``status`` or ``role`` filters nothing."""
        ...

    async def unfinished(self) -> Sequence[Deliberation]:
        """Those that have not ended, of all tenants, the oldest first."""
        ...

    async def purge(self, now: float) -> int:
        """Remove those that have expired."""
        ...

    async def councils(self) -> Sequence[tuple[str, Council]]:
        """All of them, each with its tenant."""
        ...

    async def put_council(self, tenant: str, council: Council) -> None: ...
    async def delete_council(self, tenant: str, name: str) -> bool: ...
