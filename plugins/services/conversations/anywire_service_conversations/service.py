"""The service ``conversations``: what conversations and responses consist of, kept over a restart."""

from __future__ import annotations

from typing import Any

from anywire.context import Context
from anywire.conversations import SERVICE
from anywire.service import Service
from anywire_service_conversations.config import ConversationsConfig
from anywire_service_conversations.database import Database
from anywire_service_conversations.kept import KeptConversations
from anywire_service_conversations.routes import conversation_routes
from anywire_service_conversations.store import Store


class ConversationsService(Service):
    """Keeps conversations and responses (`anywire.conversations.Conversations`), and serves conversations over HTTP.

    A turn is on the disk before its client is told that it is whole. A folder has one process at a time; another one
    begins once that has ended.
    """

    name = SERVICE
    Config = ConversationsConfig

    config: ConversationsConfig

    def __init__(self, config: ConversationsConfig) -> None:
        super().__init__(config)
        self._store: Store | None = None
        self._kept: KeptConversations | None = None

    @property
    def offered(self) -> Any:
        return self._kept

    async def start(self, context: Context) -> None:
        config = self.config
        folder = config.folder.expanduser() if config.folder is not None else context.state_folder
        database = Database(folder.absolute(), config.max_kept, config.max_bytes, config.max_history_bytes)
        self._store = Store(database)
        self._kept = KeptConversations(context, self._store, config)
        await self._kept.start()
        context.routes.add(*conversation_routes(self._kept))

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()
        if self._store is not None:
            await self._store.close()
