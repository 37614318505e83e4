"""A turn at a model, and what its request waits for until it has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from anywire_engine_models.host.actor import ModelHost
from anywire_engine_models.host.server import Exit, Server
from anywire_engine_models.host.strangers import exit_of

END_KNOWN = 1.0
"""Seconds after which the end of a server is known that has broken a connection."""


class WaitingTurn:
    """``async with`` it: the turn is given back at the end, also by a request that waits no longer.

    The host's own context is entered and left in a task of its own, so that what is told can be read while it is
    waited for.
    """

    def __init__(self, host: ModelHost, model: str) -> None:
        self._host, self._model = host, model
        self._server: Server | None = None
        self._told = ""
        self._news, self._given_back = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self._holder = asyncio.create_task(self._hold(), name=f"turn at {self._model}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_back.set()
        if self._server is None:
            self._holder.cancel()
        await asyncio.wait({self._holder})
        if not self._holder.cancelled():
            self._holder.exception()  # whoever waited for it has got it

    async def waits_for(self) -> AsyncGenerator[str, None]:
        """What the request waits for, each time that changes; ends when it has its turn. Raises what
        `ModelHost.use` raises."""
        while self._server is None:
            if self._holder.done():
                self._holder.result()
            await self._news.wait()
            self._news.clear()
            told, self._told = self._told, ""
            if told and self._server is None:
                yield told

    @property
    def server(self) -> Server:
        """Whose turn it is, once `waits_for` has ended."""
        assert self._server is not None
        return self._server

    async def end_of_server(self) -> Exit | None:
        """How its server has ended, which has broken a connection; None while it lives. The turn is held until that is
        known: nobody else gets one there."""
        exited = self.server.exited
        await asyncio.wait({exited}, timeout=END_KNOWN)
        return exit_of(self.server, ()) if exited.done() else None

    async def _hold(self) -> None:
        try:
            async with self._host.use(self._model, self._tell) as server:
                self._server = server
                self._news.set()
                await self._given_back.wait()
        finally:
            self._news.set()

    def _tell(self, detail: str) -> None:
        self._told = detail
        self._news.set()
