"""The conversations and responses of one orchestrator, for gateways and for the service's own routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from anywire import errors
from anywire.caller import Caller
from anywire.clock import Timer
from anywire.context import Context
from anywire.conversation_items import Item, new_id
from anywire.conversations import History, Items, KeptResponse, Page, locked, not_kept
from anywire.files.database_thread import taken_over
from anywire_service_conversations.config import ConversationsConfig
from anywire_service_conversations.items import GIVEN
from anywire_service_conversations.records import Conversation, encoded, encoded_items, written
from anywire_service_conversations.store import Store

log = logging.getLogger(__name__)

PURGE_S = 3600.0
"""Seconds after which what has expired is looked for, if nothing new comes before."""


class KeptConversations:
    """Implements `anywire.conversations.Conversations` over ``store``, which it opens."""

    def __init__(self, context: Context, store: Store, config: ConversationsConfig) -> None:
        self._context, self._store, self._config = context, store, config
        self._occupied: set[str] = set()
        self._work: set[asyncio.Task[Any]] = set()
        self._opened: asyncio.Future[None] | None = None
        self._purging: Timer | None = None
        self._closing = False

    async def start(self) -> None:
        """Take the folder; where another process has it, once that has ended. Raises `ConfigError`."""
        self._opened = asyncio.get_running_loop().create_future()
        if await self._store.open():
            await self._open()
        else:
            log.warning(
                "another orchestrator has the conversations in %s: they are taken over once it has ended. Where both "
                "are to run, set services.conversations.folder for one of them",
                self._config.folder or "the fleet's state folder",
            )
            self._begin(self._take_over())

    async def close(self) -> None:
        """Safe to call twice."""
        self._closing = True
        if self._purging is not None:
            self._purging.cancel()
        if self._opened is not None and not self._opened.done():
            self._opened.cancel()
        for each in self._work:
            each.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    # What gateways call

    async def history(self, caller: Caller, *, previous: str = "", conversation: str = "") -> History:
        if conversation:
            await self.conversation(conversation, caller)
        else:
            found = await self.get(previous, caller)
            if found is None:
                raise not_kept("response", previous, "previous_response_id")
            if not found.ended:
                raise _wrong(f"the response {previous} has not ended: wait for it, or cancel it", 409)
            if found.response.get("status") in ("failed", "cancelled"):
                raise _wrong(f"the response {previous} has no answer: go on from the one before it", 400)
            if found.conversation:
                raise _wrong(f"the response {previous} belongs to a conversation: name that as `conversation`", 400)
        items, root = await self._store.do(lambda database: database.history(previous, conversation))
        return History(items, root)

    async def items(self, ids: Sequence[str], caller: Caller) -> Mapping[str, Item]:
        self._check_open()
        return await self._store.do(lambda database: database.items(ids, caller))

    async def check_conversation(self, conversation: str, caller: Caller) -> None:
        await self.conversation(conversation, caller)

    def occupy(self, conversation: str) -> Callable[[], None]:
        if conversation in self._occupied:
            raise locked(conversation)
        self._occupied.add(conversation)
        return lambda: self._occupied.discard(conversation)

    async def begin(self, response: KeptResponse, *, key: str = "", digest: bytes = b"") -> None:
        self._check_open()
        row, expired = written(response), self._expired()
        await self._store.do(lambda database: database.begin(row, key, digest, expired))

    async def end(self, response: KeptResponse, *, store: bool = True, key: str = "", digest: bytes = b"") -> bool:
        if self._opened is None or not self._opened.done():
            self._check_open()
        row, expired = written(response), self._expired()
        adds = response.response.get("status") in ("completed", "incomplete")
        return await self._store.do(lambda database: database.end(row, store, key, digest, adds, expired))

    async def by_key(self, key: str) -> tuple[KeptResponse, bytes] | None:
        self._check_open()
        expired = self._expired()
        return await self._store.do(lambda database: database.by_key(key, expired))

    async def get(self, response_id: str, caller: Caller) -> KeptResponse | None:
        self._check_open()
        found = await self._store.do(lambda database: database.response(response_id))
        return found if found is not None and caller.may_end(found.caller) else None

    async def input_items(self, response_id: str, caller: Caller, page: Page) -> Items | None:
        if await self.get(response_id, caller) is None:
            return None
        return await self._store.do(lambda database: database.page(response_id, page, GIVEN))

    async def remove(self, response_id: str, caller: Caller) -> bool:
        if await self.get(response_id, caller) is None:
            return False
        await self._store.do(lambda database: database.remove(response_id))
        return True

    async def running(self) -> list[KeptResponse]:
        if self._opened is None:
            return []
        await asyncio.shield(self._opened)
        return await self._store.do(lambda database: database.running())

    # What the service's own routes call

    async def create(self, caller: Caller, items: Sequence[Item], metadata: dict[str, str]) -> Conversation:
        self._check_open()
        conversation = Conversation(new_id("conv_"), caller, time.time(), metadata)
        rows, expired = encoded_items(items), self._expired()
        await self._store.do(lambda database: database.add_conversation(conversation, rows, expired))
        return conversation

    async def conversation(self, conversation_id: str, caller: Caller) -> Conversation:
        """Raises `InvalidRequest` (404) when there is none that ``caller`` may see."""
        self._check_open()
        found = await self._store.do(lambda database: database.conversation(conversation_id))
        if found is None or not caller.may_end(found.caller):
            raise not_kept("conversation", conversation_id, "conversation")
        return found

    async def set_metadata(self, conversation_id: str, caller: Caller, metadata: dict[str, str]) -> Conversation:
        found = await self.conversation(conversation_id, caller)
        data = encoded(metadata)
        await self._store.do(lambda database: database.set_metadata(conversation_id, data))
        return found._replace(metadata=metadata)

    async def delete(self, conversation_id: str, caller: Caller) -> None:
        await self.conversation(conversation_id, caller)
        self._check_free(conversation_id)
        await self._store.do(lambda database: database.remove(conversation_id))

    async def append(self, conversation_id: str, caller: Caller, items: Sequence[Item]) -> None:
        await self.conversation(conversation_id, caller)
        self._check_free(conversation_id)
        rows, expired = encoded_items(items), self._expired()
        await self._store.do(lambda database: database.append(conversation_id, rows, expired))

    async def page(self, conversation_id: str, caller: Caller, page: Page) -> Items:
        await self.conversation(conversation_id, caller)
        return await self._store.do(lambda database: database.page(conversation_id, page))

    async def item(self, conversation_id: str, caller: Caller, item_id: str) -> Item:
        await self.conversation(conversation_id, caller)
        found = await self._store.do(lambda database: database.item(conversation_id, item_id))
        if found is None:
            raise not_kept("item", item_id)
        return found

    async def remove_item(self, conversation_id: str, caller: Caller, item_id: str) -> Conversation:
        found = await self.conversation(conversation_id, caller)
        self._check_free(conversation_id)
        if not await self._store.do(lambda database: database.remove_item(conversation_id, item_id)):
            raise not_kept("item", item_id)
        return found

    # Inside

    async def _open(self) -> None:
        await self._purge()
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    async def _take_over(self) -> None:
        try:
            await taken_over(self._store.open, self._context.clock)
            await self._open()
            log.info("the conversations are taken over")
        except errors.ConfigError as error:
            log.error("no conversations are kept: %s", error)

    async def _purge(self) -> None:
        """Remove what has expired, now and from time to time."""
        expired = self._expired()
        with suppress(errors.PluginFailed):  # it is logged
            await self._store.do(lambda database: database.remove_expired(expired))
        if not self._closing:
            pause = min(PURGE_S, self._config.keep_days * 86_400)
            self._purging = self._context.clock.call_later(pause, lambda: self._begin(self._purge()))

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)

    def _work_ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a work of the service conversations failed: %s", error, exc_info=error)

    def _check_open(self) -> None:
        if self._closing or self._opened is None or not self._opened.done() or self._opened.cancelled():
            raise errors.ShuttingDown(
                "the conversations are with an orchestrator that is shutting down: try again", retry_after=1
            )

    def _check_free(self, conversation: str) -> None:
        if conversation in self._occupied:
            raise locked(conversation)

    def _expired(self) -> float:
        """What was used before this Unix time is not kept."""
        return time.time() - self._config.keep_days * 86_400


def _wrong(message: str, status: int) -> errors.InvalidRequest:
    return errors.InvalidRequest(message, param="previous_response_id", status=status)
