"""Conversations with the running model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from anywire.engine import Delta
from anywire.errors import AnywireError, DeadlineExceeded, InvalidRequest
from anywire_desktop.active_server import ActiveServer
from anywire_desktop.answer import Answer, Tools
from anywire_desktop.call import Call, Command, commands_of
from anywire_desktop.chats import Chats
from anywire_engine_models.local_models import LocalModels
from anywire_engine_models.local_models.chat import OWN_MEMBERS
from anywire_engine_models.local_models.models import CHAT_TIMEOUT

SessionId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=10)]
Tokens = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]

TITLE_CHARACTERS = 60
TITLE_TOKENS = 32
TITLE_QUOTED = 2000
"""Characters of each message that the model is shown for a title."""
_TITLE = (
    "Write a title of at most six words for the conversation below, in its language. Answer with the title alone.\n\n"
    "User: {user}\n\nAssistant: {assistant}"
)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)


class ChatCommands:
    def __init__(self, models: LocalModels, active: ActiveServer, chats: Chats, tools: Tools) -> None:
        self._models, self._active, self._chats, self._tools = models, active, chats, tools

    def all(self) -> Iterable[Command]:
        return commands_of(
            self.send_message,
            self.clear_chat,
            self.load_history_context,
            self.generate_chat_title,
            self.complete_chat,
        )

    async def send_message(
        self,
        session_id: SessionId,
        message: str,
        call: Call,
        temperature: Temperature | None = None,
        max_tokens: Tokens | None = None,
        model: str = "",
        options: dict[str, Any] | None = None,
        use_tools: bool = True,
        timeout: Seconds = CHAT_TIMEOUT,
    ) -> None:
        """Say something in a conversation; the answer comes on the call's channel: ``chunk``, ``thinking_chunk``,
        ``thinking`` (what it waits for), ``tool_call`` and ``tool_result``, and last ``status`` ``done``, or ``error``.

        ``model`` is the running one where it is not said. ``options`` are further members of the request to the server
        (``top_k``, ``reasoning_format``, ``chat_template_kwargs`` …). With ``use_tools`` the model may call those of
        the MCP servers that are connected. ``timeout`` is in seconds, for all of it. What was said is kept when the
        answer is complete, and what the user has seen of it when it was cancelled.
        """
        name = model or self._active.running_model()
        own = {"session_id": session_id, **_members(options or {}, "options")}
        own |= {"temperature": temperature, "max_tokens": max_tokens}
        notes: asyncio.Queue[str] = asyncio.Queue(16)

        def answering(messages: Sequence[Mapping[str, Any]], members: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
            given = {**own, **members}
            return self._models.deltas(name, messages, timeout=timeout, told=lambda note: _put(notes, note), **given)

        asked = {"role": "user", "content": message}
        answer = Answer(answering, self._tools if use_tools else None, call, timeout)
        self._chats.begin(session_id)
        kept: list[dict[str, Any]] = []
        telling = asyncio.create_task(_tell_notes(call, notes), name="notes of an answer")
        try:
            await _within(timeout, answer.run([*self._chats.messages(session_id), asked]))
            kept = [asked, *answer.said]
        except asyncio.CancelledError:
            kept = [asked, *answer.said] if answer.said else []
            raise
        except AnywireError as error:
            await call.tell({"error": str(error)})
            raise
        finally:
            telling.cancel()
            self._chats.end(session_id, kept)
        await call.tell({"status": "done"})

    async def clear_chat(self, session_id: SessionId) -> None:
        """Forget a conversation."""
        self._chats.clear(session_id)

    async def load_history_context(self, session_id: SessionId, messages: list[dict[str, Any]]) -> None:
        """Let a conversation go on from ``messages``, which were said before."""
        self._chats.load(session_id, messages)

    async def generate_chat_title(self, first_user_message: str, first_assistant_message: str, model: str = "") -> str:
        """A short title for a conversation, by the model; its first words where the model gives none."""
        prompt = _TITLE.format(user=first_user_message[:TITLE_QUOTED], assistant=first_assistant_message[:TITLE_QUOTED])
        told = await self._models.complete(
            model or self._active.running_model(),
            [{"role": "user", "content": prompt}],
            max_tokens=TITLE_TOKENS,
            temperature=0.2,
        )
        message = told["choices"][0].get("message") or {}
        return _title(str(message.get("content") or "")) or _title(first_user_message) or "New chat"

    async def complete_chat(self, request: dict[str, Any], model: str = "", timeout: Seconds = CHAT_TIMEOUT) -> Any:
        """The whole answer to an OpenAI request, as its JSON object; no conversation is kept."""
        messages = request.get("messages")
        if not isinstance(messages, list):
            raise InvalidRequest("request.messages must be a list", param="request")
        name = model or self._active.running_model()
        return await self._models.complete(name, messages, timeout=timeout, **_members(request, "request"))


def _members(given: Mapping[str, Any], param: str) -> dict[str, Any]:
    """The members of a request that are passed on to the server. Raises `InvalidRequest`."""
    for name in ("timeout", "told"):
        if name in given:
            raise InvalidRequest(f"{param}.{name} is no member of a chat request", param=param)
    return {name: value for name, value in given.items() if name not in OWN_MEMBERS}


async def _within(seconds: float, answering: Awaitable[None]) -> None:
    """All of an answer, its tools included."""
    try:
        async with asyncio.timeout(seconds):
            await answering
    except TimeoutError as error:
        raise DeadlineExceeded(f"there was no whole answer within {seconds:g} s") from error


def _put(notes: asyncio.Queue[str], note: str) -> None:
    if not notes.full():
        notes.put_nowait(note)


async def _tell_notes(call: Call, notes: asyncio.Queue[str]) -> None:
    while True:
        await call.tell({"thinking": await notes.get()})


def _title(text: str) -> str:
    lines = [line.strip().strip("\"'`*#“”„ ").rstrip(".") for line in _THOUGHT.sub("", text).splitlines()]
    title = next((line for line in lines if line), "")
    if len(title) <= TITLE_CHARACTERS:
        return title
    return title[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + " …"
