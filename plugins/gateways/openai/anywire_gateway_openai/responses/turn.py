"""One request for a response on its way: what it asks, after what, and how its answer is kept."""

from __future__ import annotations

from typing import NamedTuple

from anywire.caller import Caller
from anywire.conversations import Conversations, History, KeptResponse
from anywire.submission import Submission
from anywire_gateway_openai.body import BodyShare
from anywire_gateway_openai.request_headers import TaskHeaders
from anywire_gateway_openai.responses.answer import response_head
from anywire_gateway_openai.responses.request import Asked, Object, chat_body, hints_of
from anywire_gateway_openai.translated_body import translated

NOTHING_BEFORE = History([], "")


class Turn(NamedTuple):
    """``conversations`` is None where none are kept, ``stores`` whether the response is to be kept. ``key`` is empty
    for a request that is not sent again; ``digest`` tells what it asks for. ``model`` and ``history`` are known once it
    is its turn."""

    asked: Asked
    caller: Caller
    headers: TaskHeaders
    conversations: Conversations | None
    stores: bool
    key: str = ""
    digest: bytes = b""
    model: str = ""
    history: History = NOTHING_BEFORE

    def head(self, task_id: str) -> Object:
        return response_head(self.asked, task_id, self.model, self.stores)

    def kept(self, response: Object, *, ended: bool = True) -> KeptResponse:
        fields = self.asked.fields
        previous = fields.previous_response_id or ""
        items = tuple(self.asked.items)
        return KeptResponse(
            response["id"], self.caller, response, items, previous, fields.conversation_id, ended=ended
        )  # fmt: skip

    async def keep(self, response: Object) -> None:
        """Keep how it has ended, as far as that is wanted."""
        if self.conversations is not None and (self.stores or self.asked.fields.conversation_id):
            await self.conversations.end(
                self.kept(response), store=self.stores, key=self.key if self.stores else "", digest=self.digest
            )

    async def submission(self, max_body_bytes: int, share: BodyShare) -> Submission:
        """The task: a chat with all that was said. Its bytes are counted in ``share``. Raises `InvalidRequest`, and
        `PayloadTooLarge` for more than ``max_body_bytes``."""
        chat = chat_body(self.asked, self.history.items, self.model)
        text, outline = await translated(chat, max_body_bytes, share, "with its history", ": begin a new conversation")
        fields, headers = self.asked.fields, self.headers
        if not headers.session and not fields.prompt_cache_key and self.history.root:
            headers = headers._replace(session=self.history.root)
        if not headers.hints and fields.metadata:
            headers = headers._replace(hints=hints_of(fields.metadata))
        return headers.submission("chat", self.model, text, bool(fields.stream), self.caller, outline)
