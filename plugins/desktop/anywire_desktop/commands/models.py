"""All models of the library: for apps that know more than one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from anywire_desktop.call import Call, Command, commands_of, complete
from anywire_engine_models.host.status import MemoryUse
from anywire_engine_models.local_models import LocalModels, ServerUsage
from anywire_engine_models.log_results import MAX_ID_CHARS, log_result

Lines = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
LineId = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]


class ModelList(msgspec.Struct, frozen=True):
    """``models`` are `anywire_engine_models.host.status.ModelStatus`. ``fault`` says why the newest
    content of the library does not count."""

    models: list[dict[str, Any]]
    memory: MemoryUse
    fault: str = ""


class ModelCommands:
    def __init__(self, models: LocalModels) -> None:
        self._models = models

    def all(self) -> Iterable[Command]:
        return commands_of(
            self.list_models,
            self.start_model,
            self.stop_model,
            self.pin_model,
            self.model_status,
            self.model_metrics,
            self.model_logs,
        )

    async def list_models(self) -> ModelList:
        return ModelList([complete(each) for each in self._models.list()], self._models.memory(), self._models.fault)

    async def start_model(self, model: str) -> dict[str, Any]:
        """Start a model of the library and return once it answers."""
        return complete(await self._models.start(model))

    async def stop_model(self, model: str) -> dict[str, Any]:
        return complete(await self._models.stop(model))

    async def pin_model(self, model: str, pinned: bool = True) -> dict[str, Any]:
        """A pinned model makes room for no other one."""
        return complete(await self._models.pin(model, pinned))

    async def model_status(self, model: str) -> dict[str, Any]:
        return complete(self._models.status(model))

    async def model_metrics(self, model: str) -> ServerUsage | None:
        return self._models.usage(model)

    async def model_logs(
        self, model: str, call: Call, lines: Lines = 100, follow: bool = False, after: LineId = ""
    ) -> None:
        """The newest lines of a model's log on the call's channel, as ``line`` and ``id`` each, or those ``after`` the
        line of that id; with ``follow`` those to come too, until the call is cancelled. ``missed`` is how many are
        left out at a place, ``reset`` says that the line asked for is of an earlier life."""
        async with aclosing(self._models.logs(model, lines=lines, follow=follow, after=after)) as log:
            async for each in log:
                await call.tell(log_result(each))
