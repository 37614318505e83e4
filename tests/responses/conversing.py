"""The OpenAI gateway beside the services ``conversations`` and ``background``, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp
import openai
import pydantic
from openai.types.responses import Response, ResponseStreamEvent
from tests.integration.gateway_serving import Served, serving

from anywire.access import Access
from anywire.engine import Engine
from anywire.roles.context import OrchestratorContext
from anywire.service import Service
from anywire.testing.patience import expect
from anywire_service_background.config import BackgroundConfig
from anywire_service_background.service import Background
from anywire_service_conversations.config import ConversationsConfig
from anywire_service_conversations.service import ConversationsService

_events: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


class Beside(NamedTuple):
    services: dict[str, Service]

    def get(self, name: str) -> Any:
        service = self.services.get(name)
        return service.offered if service is not None else None

    def metrics(self) -> tuple[()]:
        return ()


class House(NamedTuple):
    served: Served
    client: openai.AsyncOpenAI
    http: aiohttp.ClientSession


@asynccontextmanager
async def conversing(
    folder: Path | None,
    engine: Engine,
    access: Access | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    **gateway: Any,
) -> AsyncIterator[House]:
    """Without ``folder`` neither service runs. ``settings`` are those of ``conversations``."""
    services: dict[str, Service] = {}
    if folder is not None:
        services["conversations"] = ConversationsService(ConversationsConfig(folder=folder / "kept", **settings))
        services["background"] = Background(BackgroundConfig(folder=folder / "tasks"))
    async with (
        serving(engine, access=access, services=Beside(services), **gateway) as served,
        AsyncExitStack() as ends,
    ):
        for name, service in services.items():
            routes = served.context.routes
            context = OrchestratorContext(served.orchestrator, name, routes=routes, access=access, is_service=True)
            await service.start(context)
            ends.push_async_callback(service.close)
            ends.callback(service.gate_closed)
        # As if the services had started first, as they do in an orchestrator's process.
        assert served.gateway._responses is not None
        served.gateway._responses.start()
        async with aiohttp.ClientSession(served.url) as http, served.client() as client:
            yield House(served, client, http)


def checked(response: Response) -> Response:
    """``response``, once OpenAI's own types have found it without fault: the client itself does not look."""
    return Response.model_validate(response.model_dump(mode="json", exclude_unset=True, by_alias=True))


def checked_event(event: Any) -> Any:
    """The same for an event."""
    return _events.validate_python(event.model_dump(mode="json", exclude_unset=True, by_alias=True))


async def status(at: House, name: str) -> str:
    return str((await at.client.responses.retrieve(name)).status)


async def until(at: House, name: str, wanted: str) -> None:
    """Return once the response ``name`` has the status ``wanted``."""

    async def asking() -> None:
        while await status(at, name) != wanted:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    await expect(asking(), f"{name} is {wanted}")
