"""Where client commands learn what goes on in an orchestrator: over HTTP, or over a transport's client plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from anywire.cli.asked_server import Server
from anywire.errors import AgentLost, AgentUnavailable, AnywireError, Forbidden

if TYPE_CHECKING:
    import httpx

    from anywire.cli.options import Given
    from anywire.roles.client import Client

Item = dict[str, Any]
"""Plain JSON types; see `anywire.views`."""


class Interrupted(AnywireError):
    """The orchestrator ended, or cannot be reached any more."""

    code = "interrupted"


class Source(Protocol):
    """One running orchestrator. What it raises when it is gone is `Interrupted`."""

    async def list(self, what: str) -> list[Item]:
        """All ``agents`` or ``tasks`` now."""
        ...

    async def stats(self) -> Item: ...

    async def explain(self, task_id: str) -> Item:
        """A task, be it ended, and how its agents were chosen (`anywire.views.record_json`)."""
        ...

    async def order_agent(self, agent_id: str, order: str, reason: str) -> Item:
        """Order something of an agent, a word of `anywire.agent_health.ORDERS` (`anywire.views.ordered_json`)."""
        ...

    def events(self, types: str, after: str) -> AsyncGenerator[Item, None]:
        """Events by ``type``, beside them ``missed`` and ``reset``. The first item is empty: it says that everything
        is told from then on."""
        ...

    def follow(self, task_id: str) -> AsyncGenerator[Item, None]:
        """The chunks of a task from now on."""
        ...

    def command(
        self, agent_id: str, name: str, arguments: Mapping[str, Any], *, deadline: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        """See `anywire.asked_fleet.AskedFleet.command`."""
        ...


class HttpSource:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def list(self, what: str) -> list[Item]:
        from anywire.cli import stream

        found = await stream.get(self._client, f"/v1/{what}")
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list) or not all(isinstance(each, dict) and "id" in each for each in data):
            raise stream.no_answer(self._client.base_url)
        return data

    async def stats(self) -> Item:
        from anywire.cli import stream

        found: Item = await stream.get(self._client, "/v1/stats")
        return found

    async def explain(self, task_id: str) -> Item:
        from urllib.parse import quote

        from anywire.cli import stream

        found: Item = await stream.get(self._client, f"/v1/tasks/{quote(task_id, safe='')}")
        return found

    async def order_agent(self, agent_id: str, order: str, reason: str) -> Item:
        from urllib.parse import quote

        from anywire.cli import stream

        path = f"/v1/agents/{quote(agent_id, safe='')}/{order}"
        found: Item = await stream.post(self._client, path, {"reason": reason})
        return found

    async def events(self, types: str, after: str) -> AsyncGenerator[Item, None]:
        parameters = {name: value for name, value in (("types", types), ("after", after)) if value}
        async with aclosing(self._read("/v1/events", parameters)) as events:
            async for kind, data in events:
                yield ({"type": kind} | data) if kind else {}

    async def follow(self, task_id: str) -> AsyncGenerator[Item, None]:
        from urllib.parse import quote

        from anywire.cli import stream

        async with aclosing(self._read(f"/v1/tasks/{quote(task_id, safe='')}/follow", {})) as chunks:
            async for kind, data in chunks:
                if kind == "error":
                    raise stream.server_error(0, json.dumps(data))
                if kind:
                    yield data

    async def command(
        self, agent_id: str, name: str, arguments: Mapping[str, Any], *, deadline: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        from urllib.parse import quote

        import httpx

        from anywire.cli import stream

        asked = self._client.stream(
            "POST",
            f"/v1/agents/{quote(agent_id, safe='')}/commands/{quote(name, safe='')}",
            params={"deadline": f"{deadline:g}"},
            json=dict(arguments),
            headers={"accept": "text/event-stream"},
            timeout=httpx.Timeout(stream.TIMEOUT, read=None),
        )
        try:
            async with asked as answer:
                if answer.is_error:
                    raise stream.server_error(answer.status_code, (await answer.aread()).decode(errors="replace"))
                async with aclosing(stream.command_results(answer)) as results:
                    async for result in results:
                        yield result
        except httpx.ConnectError:
            raise  # `stream.client` says what to do
        except httpx.TransportError as error:
            raise Interrupted(f"the server does not answer any more: {error or type(error).__name__}") from error

    async def _read(self, path: str, parameters: Mapping[str, str]) -> AsyncGenerator[tuple[str, Item], None]:
        """Type and data of server-sent events; an empty type where the answer begins. Comments are left out."""
        import httpx

        from anywire.cli import stream

        patient = httpx.Timeout(stream.TIMEOUT, read=None)
        try:
            async with self._client.stream("GET", path, params=parameters, timeout=patient) as answer:
                if answer.is_error:
                    raise stream.server_error(answer.status_code, (await answer.aread()).decode(errors="replace"))
                yield "", {}
                kind = ""
                async for line in answer.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind:
                        yield kind, json.loads(value)
                    elif not line:
                        kind = ""
        except httpx.ConnectError:
            raise  # `stream.client` says what to do
        except httpx.TransportError as error:
            raise Interrupted(f"the server does not answer any more: {error or type(error).__name__}") from error


class PlaneSource:
    """``orchestrator`` is the id of one that ``client`` sees."""

    def __init__(self, client: Client, orchestrator: str) -> None:
        self._client, self._orchestrator = client, orchestrator

    async def list(self, what: str) -> list[Item]:
        return [item async for item in self._command(what, 10.0)]

    async def stats(self) -> Item:
        (found,) = await self.list("stats")
        return found

    async def explain(self, task_id: str) -> Item:
        (found,) = [item async for item in self._command("explain", 10.0, task_id=_task_id(task_id))]
        return found

    async def order_agent(self, agent_id: str, order: str, reason: str) -> Item:
        arguments = {"agent_id": agent_id, "order": order, "reason": reason}
        (found,) = [item async for item in self._command("order_agent", 10.0, **arguments)]
        return found

    async def events(self, types: str, after: str) -> AsyncGenerator[Item, None]:
        async with aclosing(self._command("events", 0.0, types=types, after=after)) as events:
            # The command goes out before those that are sent once the empty item is read, and is begun before them.
            newest = asyncio.ensure_future(anext(events))
            try:
                await asyncio.sleep(0)
                yield {}
                while True:
                    yield await newest
                    newest = asyncio.ensure_future(anext(events))
            except StopAsyncIteration:
                return
            finally:
                newest.cancel()
                await asyncio.gather(newest, return_exceptions=True)

    async def follow(self, task_id: str) -> AsyncGenerator[Item, None]:
        async with aclosing(self._command("follow", 0.0, task_id=_task_id(task_id))) as chunks:
            async for item in chunks:
                yield item

    def command(
        self, agent_id: str, name: str, arguments: Mapping[str, Any], *, deadline: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        return self._results([self._orchestrator, agent_id], name, arguments, deadline)

    def _command(self, name: str, deadline: float, **arguments: str) -> AsyncGenerator[Item, None]:
        return self._results([self._orchestrator], name, arguments, deadline)

    async def _results(
        self, target: Sequence[str], name: str, arguments: Mapping[str, Any], deadline: float
    ) -> AsyncGenerator[Any, None]:
        results = self._client.hub.command(target, name, arguments, deadline=deadline)
        try:
            async with aclosing(results):
                async for item in results:
                    yield item
        except Forbidden as error:
            if self._client.has_key:
                raise
            raise Forbidden(
                f"{error}. Ask over HTTP instead: leave --transport out. Over a transport that can be reached from the "
                "network, a client sees its own tasks alone"
            ) from error
        except (AgentLost, AgentUnavailable) as error:
            if len(target) > 1:  # it may be the agent behind it, which the error names
                raise
            raise Interrupted(f"the orchestrator {self._orchestrator} is gone: {error}") from error


def _task_id(name: str) -> str:
    """The id of a task, which an answer's id over HTTP ends with (``chatcmpl-…``)."""
    return name.rpartition("-")[2]


class Place:
    """Where the orchestrator of a command is: see `fleet_place`."""

    def __init__(self, opened: Callable[[AsyncExitStack], Any], name: str) -> None:
        self._opened, self.name = opened, name

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        """Raises `AnywireError` when no orchestrator is there."""
        async with AsyncExitStack() as stack:
            yield await self._opened(stack)


def fleet_place(given: Given) -> Place:
    """The orchestrator that the options of `anywire.cli.options.asks` name: over HTTP, or over the client plane of
    transports. Raises `ConfigError` and `typer.BadParameter`."""
    from anywire.cli import stream

    found = given.target()
    if isinstance(found, Server):
        server = found

        async def over_http(stack: AsyncExitStack) -> Source:
            return HttpSource(await stack.enter_async_context(stream.client(server, stream.OVER_TRANSPORT)))

        return Place(over_http, server.url)
    config, plugins, key, admitted = found
    from anywire.roles import assembly
    from anywire.roles.client import Client

    async def over_plane(stack: AsyncExitStack) -> Source:
        made = assembly.make_transports(config, plugins)
        client = Client(*made, lease=config.lease.timeout, key=key, admitted=admitted)
        await stack.enter_async_context(client)
        await client.models()  # waits for an orchestrator, and says what to do when there is none
        return PlaneSource(client, client.hub.agents()[0].agent_id)

    return Place(over_plane, config.transport_names)
