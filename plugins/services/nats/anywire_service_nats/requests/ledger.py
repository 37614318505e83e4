"""The requests that are remembered, used from the event loop: a thread of its own waits for the disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anywire.files.database_thread import DatabaseThread, DiskFaults
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.requests.ledger_file import FORM, Answered, Known, LedgerFile, Open, Place


class Ledger:
    """Each call is that of `anywire_service_nats.requests.ledger_file.LedgerFile`, in the order in which they are made.
    All raise `PluginFailed` when the disk does not do what it should, which is logged when it begins and when it is
    over."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        self._thread = DatabaseThread("nats-requests", DiskFaults(FORM.kept))
        self._closed = False

    async def open(self) -> bool:
        return await self._thread.do(self._file.open)

    async def begin(self, key: str, digest: bytes, now: float, most_open: int = 0) -> Known:
        return await self._thread.do(partial(self._file.begin, key, digest, now, most_open))

    async def forgive(self, key: str) -> None:
        await self._thread.do(partial(self._file.forgive, key))

    async def elsewhere(self, key: str, place: Place) -> None:
        await self._thread.do(partial(self._file.elsewhere, key, place))

    async def answered(self, key: str, answer: Outgoing, reply: str) -> None:
        await self._thread.do(partial(self._file.answered, key, answer, reply))

    async def told(self, key: str, now: float) -> None:
        await self._thread.do(partial(self._file.told, key, now))

    async def answer(self, key: str) -> Answered | None:
        return await self._thread.do(partial(self._file.answer, key))

    async def untold(self) -> Sequence[Answered]:
        return await self._thread.do(self._file.untold)

    async def open_requests(self) -> Sequence[Open]:
        return await self._thread.do(self._file.open_requests)

    async def forget(self, before: float) -> None:
        await self._thread.do(partial(self._file.forget, before))

    async def close(self) -> None:
        """Safe to call twice, and without `open`."""
        if not self._closed:
            self._closed = True
            await self._thread.do(self._file.close)
            self._thread.end()
