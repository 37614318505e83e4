"""The gateway and Anthropic's own client asking it, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import anthropic
from tests.integration.gateway_serving import TIMEOUT, Served, serving

from anywire.engine import Engine

ASK: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
LOOK: Any = {
    "name": "look",
    "description": "looks",
    "input_schema": {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]},
}


class House(NamedTuple):
    served: Served
    client: anthropic.AsyncAnthropic
    http: aiohttp.ClientSession
    engine: Engine


def client_of(served: Served, key: str = "none") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=served.url, api_key=key, max_retries=0, timeout=TIMEOUT)


@asynccontextmanager
async def asking(engine: Engine, **settings: Any) -> AsyncIterator[House]:
    """``settings`` are those of `serving`."""
    async with (
        serving(engine, **settings) as served,
        aiohttp.ClientSession(served.url) as http,
        client_of(served) as client,
    ):
        yield House(served, client, http, engine)
