"""Two gateways as gateway processes run them, on one port before one orchestrator, all in the process of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from tests.integration.gateway_serving import Served, serving

from anywire.access import OpenAccess
from anywire.builtin.tcp import TcpConfig, TcpTransport
from anywire.config import Config
from anywire.engine import Engine
from anywire.keys.key_access import KeyAccess
from anywire.plugins import Plugins
from anywire.roles.gateway_link import gateway_link
from anywire.roles.gateway_role import GatewayContext, make_hub
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig


class Before(NamedTuple):
    """``served`` is the orchestrator with its own gateway, ``fronts`` the addresses of the others."""

    served: Served
    fronts: list[str]
    own: Path

    def http(self, number: int = 0, **options: Any) -> aiohttp.ClientSession:
        """A client of one of them."""
        return aiohttp.ClientSession(self.fronts[number % len(self.fronts)], **options)

    def at_orchestrator(self) -> aiohttp.ClientSession:
        """A client of the orchestrator's own gateway."""
        return aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(self.own)))


@asynccontextmanager
async def gateways_before(
    engine: Engine, folder: Path, *, keys: Path | None = None, count: int = 2, **options: Any
) -> AsyncIterator[Before]:
    """``options`` are the gateways'. Each has keys of its own reading, as a process of its own has."""
    own, link = folder / "http", {"client_addresses": [f"unix://{folder}/link"]}
    access = KeyAccess(keys) if keys is not None else OpenAccess()
    trusted = [*options.pop("trusted_proxies", ()), "unix"]
    async with (
        AsyncExitStack() as stack,
        serving(engine, host="", unix=own, access=access, trusted_proxies=trusted, **options) as served,
    ):
        await access.start()
        stack.push_async_callback(access.close)
        agent = gateway_link(served.orchestrator, [TcpTransport(TcpConfig(**link))], lease=1.0, heartbeat_interval=0.25)
        await agent.start()
        fronts = []
        async with AsyncExitStack() as ending:
            ending.push_async_callback(agent.close)
            for _ in range(count):
                # Each at a port of its own, so that a test says which one it asks.
                hub = make_hub(Config.model_validate({"transports": {"tcp": link}}), Plugins())
                one = KeyAccess(keys) if keys is not None else OpenAccess()
                await one.start()
                ending.push_async_callback(one.close)
                stop_listening = one.listen(hub.end_caller)
                ending.callback(stop_listening)
                await hub.start()
                ending.push_async_callback(hub.close)
                await hub.agents_until(bool)
                known = {**options, "trusted_proxies": trusted[:-1], "port": 0, "reuse_port": True}
                front = OpenAIGateway(OpenAIGatewayConfig(**known))
                await front.start(GatewayContext(hub, "openai", one, own))
                ending.push_async_callback(front.close)
                fronts.append(front.address)
            yield Before(served, fronts, own)
