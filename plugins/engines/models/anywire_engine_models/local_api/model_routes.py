"""The routes of models. Each is a command of the engine, so that what they do and say is the same as over any
transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from anywire.errors import EngineFailed
from anywire.messages import MAX_COMMAND_BYTES
from anywire_engine_models.local_api.request_body import flag, number, position, read_object
from anywire_engine_models.local_api.telling import Tellings
from anywire_engine_models.local_api.writing import COMMENT, HEARTBEAT, Results, json_response, wants_events
from anywire_engine_models.log_results import event_head
from anywire_engine_models.status_json import IMPORTED, merged, whole_status

MAX_LINES = 10_000
DEFAULT_LINES = 100


class HasCommands(Protocol):
    """See `anywire.engine.Engine.command`, and the commands `models.*`."""

    def command(self, name: str, arguments: Mapping[str, Any], /) -> AsyncIterator[Any]: ...


class ModelRoutes:
    """``followed`` are those commands that go on until their client leaves: they take no place of others."""

    def __init__(self, engine: HasCommands, tellings: Tellings, followed: Tellings) -> None:
        self._engine, self._tellings, self._followed = engine, tellings, followed

    async def models(self, request: web.BaseRequest) -> web.StreamResponse:
        told = merged(await self._results("models.list", {}), "models")
        data = [whole_status(each) for each in told.pop("models")]
        return json_response({"object": "list", "data": data, **told})

    async def model(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        return await self._status("models.status", model)

    async def start(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        if wants_events(request):
            return await self._stream(request, "models.start", {"model": model}, whole_status)
        return await self._status("models.start", model)

    async def stop(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        return await self._status("models.stop", model)

    async def unload(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        return await self._status("models.unload", model)

    async def pin(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        asked = await read_object(request, MAX_COMMAND_BYTES)
        return await self._status("models.pin", model, pinned=asked.get("pinned", True))

    async def logs(self, request: web.BaseRequest, model: str) -> web.StreamResponse:
        lines = number(request, "lines", DEFAULT_LINES, MAX_LINES)
        arguments = {"model": model, "lines": lines, "after": position(request)}
        if flag(request, "follow"):
            await self._results("models.status", {"model": model})  # an unknown one has a status of its own
            arguments |= {"follow": True}
            return await self._stream(request, "models.logs", arguments, followed=True, head=event_head)
        told = await self._results("models.logs", arguments | {"follow": False})
        found: dict[str, Any] = {"model": model, "lines": [each["line"] for each in told if "line" in each]}
        if newest := next((each["id"] for each in reversed(told) if "id" in each), ""):
            found["after"] = newest
        gaps = {name: each[name] for each in told for name in ("missed", "reset") if name in each}
        return json_response(found | gaps)

    async def add(self, request: web.BaseRequest) -> web.StreamResponse:
        told = await self._results("models.add", await read_object(request, MAX_COMMAND_BYTES))
        return json_response(whole_status(told[-1]) if told else {})

    async def import_models(self, request: web.BaseRequest) -> web.StreamResponse:
        told = await self._results("models.import", await read_object(request, MAX_COMMAND_BYTES))
        return json_response(merged(told, *IMPORTED))

    async def command(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        return await self._stream(request, name, await read_object(request, MAX_COMMAND_BYTES))

    async def _status(self, command: str, model: str, **arguments: Any) -> web.StreamResponse:
        told = await self._results(command, {"model": model, **arguments})
        if not told:
            raise EngineFailed(f"the command {command} told nothing")
        return json_response(whole_status(told[-1]))

    async def _results(self, command: str, arguments: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        async with self._tellings.open(self._engine.command(command, arguments)) as telling:
            try:
                while True:
                    found.append(await telling.next())
            except StopAsyncIteration:
                return found

    async def _stream(
        self,
        request: web.BaseRequest,
        command: str,
        arguments: Mapping[str, Any],
        shape: Callable[[Any], Any] = lambda result: result,
        *,
        followed: bool = False,
        head: Callable[[Any], tuple[str, str]] = lambda result: ("", ""),
    ) -> web.StreamResponse:
        """The results as they come. What is ``followed`` comes as events, whose head goes out before the first.
        ``head`` gives the name and the id of a result's event."""
        answer = Results(request, as_events=followed)
        patience = HEARTBEAT if answer.as_events else None
        tellings = self._followed if arguments.get("follow") is True else self._tellings
        async with tellings.open(self._engine.command(command, arguments)) as telling:
            try:
                if followed:
                    await answer.write(COMMENT)
                while True:
                    try:
                        result = await telling.next(patience)
                    except TimeoutError:
                        await answer.write(COMMENT)
                    else:
                        await answer.result(shape(result), *head(result))
            except StopAsyncIteration:
                return await answer.finish()
            except ConnectionError:
                raise
            except Exception as error:
                return await answer.finish(error)
