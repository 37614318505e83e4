"""Conversations, kept while the bridge runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from anywire.errors import InvalidRequest, QueueFull

MAX_SESSIONS = 500
"""Conversations kept. The one that was used longest ago is forgotten first, unless it is being answered."""
MAX_MESSAGES = 10_000
MAX_BYTES = 32 * 1024 * 1024
"""Messages of a conversation, and bytes of them as JSON."""
ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))


class Chats:
    """The messages of each conversation, by the id that the app gives it."""

    def __init__(self) -> None:
        self._messages: dict[str, list[dict[str, Any]]] = {}
        self._answering: set[str] = set()

    def messages(self, session_id: str) -> list[dict[str, Any]]:
        """A copy of what was said; empty for a conversation that is not known."""
        return list(self._messages.get(session_id, ()))

    def clear(self, session_id: str) -> None:
        """Forget a conversation. An answer under way goes on, and is not kept."""
        self._messages.pop(session_id, None)

    def load(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Let a conversation begin with ``messages``, in the place of what it had. Raises `InvalidRequest`."""
        self._keep(session_id, checked(messages))

    def begin(self, session_id: str) -> None:
        """An answer begins. Raises `InvalidRequest` while another one of the same conversation is under way."""
        if session_id in self._answering:
            raise InvalidRequest(
                "an answer of this conversation is under way: wait for it, or cancel it", param="session_id"
            )
        self._answering.add(session_id)
        self._messages.setdefault(session_id, [])
        self._touch(session_id)

    def end(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """An answer has ended; ``messages`` were said since `begin` and are kept, unless the conversation was cleared
        meanwhile."""
        self._answering.discard(session_id)
        before = self._messages.get(session_id)
        if before is not None:
            self._keep(session_id, [*before, *map(dict, messages)])

    def _keep(self, session_id: str, messages: list[dict[str, Any]]) -> None:
        if len(messages) > MAX_MESSAGES or len(msgspec.json.encode(messages)) > MAX_BYTES:
            raise InvalidRequest(
                f"a conversation may have {MAX_MESSAGES} messages and {MAX_BYTES // 2**20} MiB: begin a new one",
                param="session_id",
            )
        self._messages[session_id] = messages
        self._touch(session_id)

    def _touch(self, session_id: str) -> None:
        self._messages[session_id] = self._messages.pop(session_id)
        while len(self._messages) > MAX_SESSIONS:
            idle = next((each for each in self._messages if each not in self._answering and each != session_id), None)
            if idle is None:
                del self._messages[session_id]
                self._answering.discard(session_id)
                raise QueueFull(f"{MAX_SESSIONS} conversations are answered at once: wait for one of them")
            del self._messages[idle]


def checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages of an app, each with a role and content. Further members are kept. Raises `InvalidRequest`."""
    kept = []
    for number, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise InvalidRequest(f"message {number}: role must be one of {', '.join(sorted(ROLES))}", param="messages")
        if not isinstance(message.get("content"), str | list | None):
            raise InvalidRequest(f"message {number}: content must be a text or a list of parts", param="messages")
        kept.append(dict(message))
    return kept
