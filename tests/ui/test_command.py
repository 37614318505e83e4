"""The command ``anywire ui`` before servers that do not let it in."""

from __future__ import annotations

import httpx
import pytest

from anywire.errors import AnywireError, ConfigError, InvalidRequest, Unauthenticated
from anywire_service_ui.command import page_address

NO_KEY = {"error": {"message": "this is no key of this server"}}


@pytest.mark.parametrize(
    ("page", "codes", "kind", "told"),
    [
        (404, httpx.Response(201), ConfigError, "there is no page at http://there/ui"),
        (502, httpx.Response(201), InvalidRequest, "http://there/ui answered 502"),
        (200, httpx.Response(401, json=NO_KEY), Unauthenticated, "no key of this server; set ANYWIRE_API_KEY"),
        (200, httpx.Response(403, json=["nothing"]), InvalidRequest, "http://there/v1/ui/codes answered 403"),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_the_server(
    page: int, codes: httpx.Response, kind: type[AnywireError], told: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(page) if request.url.path == "/ui" else codes

    headers = {"authorization": "Bearer aw-wrong"}
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://there", headers=headers, transport=transport) as client:
        with pytest.raises(kind) as raised:
            await page_address(client)
    assert told in raised.value.message
