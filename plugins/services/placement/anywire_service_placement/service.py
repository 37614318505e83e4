"""The service ``placement``: keeps so many replicas of each model loaded in the fleet as are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pydantic

from anywire import errors
from anywire.context import Context
from anywire.metric import Metric
from anywire.route import Request, Response, Route
from anywire.service import Service
from anywire_service_placement.config import PlacementConfig, WantedModel, WantedModels
from anywire_service_placement.keeper import Keeper
from anywire_service_placement.wanted_file import WantedFile

MAX_BODY_BYTES = 512 * 1024


class Placement(Service):
    """Loads and unloads models at agents by the commands ``models.start`` and ``models.unload``, so that the wanted
    replicas are there. How it decides: `anywire_service_placement.planner`.

    It never unloads what serves: the agent refuses that, whatever was known of it here. Events of the source
    ``placement`` tell what it does: ``load.begun``, ``load.done``, ``load.failed``, ``unload.begun`` …,
    ``model.unmet``, ``model.met``, ``wanted.changed``.
    """

    name = "placement"
    Config = PlacementConfig

    config: PlacementConfig

    def __init__(self, config: PlacementConfig) -> None:
        super().__init__(config)
        self._context: Context | None = None
        self._keeper: Keeper | None = None
        self._file: WantedFile | None = None
        self._setting: asyncio.Task[None] | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    async def start(self, context: Context) -> None:
        self._context = context
        self._file = WantedFile(context.state_folder, self.config.models)
        self._keeper = Keeper(context, self.config, self._file.read(), self._publish)
        self._stop_listening = context.listen(self._keeper.changed)
        context.routes.add(
            Route(
                "GET",
                "/placement",
                self._show,
                role="observe",
                summary="Tell which models are wanted, where they are loaded, what is moved, and what loading costs.",
            ),
            Route(
                "PUT",
                "/placement",
                self._put,
                role="operate",
                body_limit=MAX_BODY_BYTES,
                summary="Say which replicas of models are wanted from now on, in place of all before.",
                takes=WantedModels,
            ),
        )
        self._keeper.changed()

    def gate_closed(self) -> None:
        self._stop_listening()
        self._stop_listening = lambda: None
        if self._keeper is not None:
            self._keeper.stop()

    async def close(self) -> None:
        self.gate_closed()
        if self._keeper is not None:
            await self._keeper.close()
        if self._setting is not None:
            await asyncio.wait((self._setting,))

    def metrics(self) -> Iterable[Metric]:
        keeper = self._keeper
        if keeper is None:
            return
        times = keeper.moves.load_times
        total = times.total
        yield Metric("loads", "Models that placement has loaded.", total.loads, counter=True)
        yield Metric("loads_failed", "Loads that failed.", total.failed, counter=True)
        yield Metric("unloads", "Models that placement has unloaded.", times.unloads, counter=True)
        yield Metric("load_seconds", "Seconds that its loads have taken together.", total.seconds, counter=True)
        yield Metric("moves_under_way", "Loads and unloads under way.", len(keeper.moves.moving))
        yield Metric("models_unmet", "Wanted models of which replicas are missing without a place.", len(keeper.unmet))

    async def _show(self, request: Request) -> Response:
        return Response(msgspec.json.encode(self._running().report()))

    async def _put(self, request: Request) -> Response:
        wanted = _read(request.body)
        # Once it has begun it is done, also when the client goes away: file and service say the same.
        setting = self._setting = asyncio.get_running_loop().create_task(self._set(self._setting, wanted, request))
        await asyncio.shield(setting)
        return await self._show(request)

    async def _set(
        self, before: asyncio.Task[None] | None, wanted: Mapping[str, WantedModel], request: Request
    ) -> None:
        if before is not None:
            await asyncio.wait((before,))
        keeper = self._running()
        assert self._file is not None
        try:
            await self._file.write(wanted)
        except errors.ConfigError as error:
            raise errors.PluginFailed(f"what is wanted cannot be kept, and is as before: {error}") from error
        keeper.want(wanted)
        replicas = sum(each.replicas for each in wanted.values())
        self._publish("wanted.changed", {"models": len(wanted), "replicas": replicas}, caller=request.caller.id)

    def _running(self) -> Keeper:
        if self._keeper is None:
            raise errors.ShuttingDown("placement does not run")
        return self._keeper

    def _publish(self, name: str, data: dict[str, Any], caller: str = "") -> None:
        if self._context is not None:
            self._context.events.publish_plugin(self.name, name, data, caller=caller)


def _read(body: bytes) -> dict[str, WantedModel]:
    """Raises `InvalidRequest` that names what is wrong."""
    try:
        return WantedModels.model_validate_json(body).models
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise errors.InvalidRequest(
            f"{where or 'the body'}: {first['msg']}; expected is "
            '{"models": {"ID": {"replicas": 2, "agents": ["a1"]}}}, where agents may be left out',
            param=where,
        ) from error
