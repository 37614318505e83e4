"""Responses that are kept: retrieved, cancelled, deleted, and what they were asked with."""

from __future__ import annotations

from aiohttp import web

from anywire.context import Context
from anywire.conversations import MAX_PAGE, SERVICE, Conversations, KeptResponse, listed, not_kept, read_page
from anywire.errors import InvalidRequest
from anywire_gateway_openai.caller import CALLER, Callers
from anywire_gateway_openai.catalogue import json_response
from anywire_gateway_openai.openapi import answer_types
from anywire_gateway_openai.openapi.form import Form, Query, described
from anywire_gateway_openai.responses.background import BackgroundResponses
from anywire_gateway_openai.responses.creating import write_events
from anywire_gateway_openai.responses.replay import replayed

_GET = Form(
    gives=answer_types.Response,
    events=answer_types.ResponseEvent,
    query={
        "stream": Query("Tell one that has ended as events.", {"type": "boolean"}),
        "starting_after": Query("Tell the events with a greater number.", {"type": "integer"}),
    },
    errors=(409,),
)
PAGE = {
    "after": Query("The id of the item before the first."),
    "limit": Query("Items of a page; 20 without it.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
    "order": Query("The newest first, or the oldest.", {"enum": ["desc", "asc"]}),
}


class KeptResponseHandlers:
    def __init__(
        self, context: Context, callers: Callers, background: BackgroundResponses, *, write_timeout: float
    ) -> None:
        self._context, self._callers, self._background = context, callers, background
        self._write_timeout = write_timeout

    @described(_GET)
    async def get(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """A response that is kept. ``?stream=true`` tells one that has ended as events, ``&starting_after=N`` those
        with a greater number."""
        found = await self._found(request, name)
        if request.query.get("stream", "false") != "true":
            return json_response(self._background.as_it_is(found))
        if not found.ended:
            raise InvalidRequest(
                f"the response {name} has not ended: ask for it without stream until it has", param="stream", status=409
            )
        after = request.query.get("starting_after", "-1")
        if not (after.removeprefix("-").isascii() and after.removeprefix("-").isdigit() and len(after) < 10):
            raise InvalidRequest(f"starting_after must be a number, got {after[:64]!r}", param="starting_after")
        return await write_events(request, replayed(found.response, int(after)), self._write_timeout)

    @described(Form(gives=answer_types.Response, errors=(409,)))
    async def cancel(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Ends a response that runs in the background; one that has ended stays as it is."""
        found = await self._found(request, name)
        if found.response.get("background") is not True:
            raise InvalidRequest(
                "a response that does not run in the background is cancelled by closing its connection", param="id"
            )
        if not found.ended:
            await self._background.cancel(found, request[CALLER])
        return json_response(self._background.as_it_is(await self._found(request, name)))

    @described(Form(gives=answer_types.ResponseDeleted, errors=(409,)))
    async def delete(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Keeps nothing of a response any more; cancels it if it runs in the background."""
        found = await self._found(request, name)
        await self._conversations(name).remove(name, request[CALLER])
        if not found.ended:
            await self._background.forget(found, request[CALLER])
        return json_response({"id": name, "object": "response", "deleted": True})

    @described(Form(gives=answer_types.ItemPage, query=PAGE))
    async def input_items(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """What a response was asked with, without its history, the newest first."""
        page = read_page(request.query)
        items = await self._conversations(name).input_items(name, request[CALLER], page)
        self._callers.still(request)
        if items is None:
            raise not_kept("response", name)
        return json_response(listed(items))

    async def _found(self, request: web.BaseRequest, name: str) -> KeptResponse:
        found = await self._conversations(name).get(name, request[CALLER])
        self._callers.still(request)
        if found is None:
            raise not_kept("response", name)
        return found

    def _conversations(self, name: str) -> Conversations:
        conversations: Conversations | None = self._context.services.get(SERVICE)
        if conversations is None:
            raise not_kept("response", name)
        return conversations
