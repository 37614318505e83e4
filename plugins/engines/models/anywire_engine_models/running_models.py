"""What each server was started with: what is said of a running model is what runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.status import ModelStatus
from anywire_engine_models.hosted_models import KnownModel, described
from anywire_engine_models.model_files.named_weights import NamedWeights, Weights

log = logging.getLogger(__name__)


class RunningModels:
    """``names`` are those of all weights that were read. Used on one event loop."""

    def __init__(self) -> None:
        self.names = NamedWeights()
        self._running: dict[str, tuple[KnownModel, Weights | None]] = {}

    def started(self, model: HostedModel, file: str, weights: Weights | None) -> None:
        """The server of ``model`` is ready. ``file`` is that of its weights, empty where it has none that can be read.
        ``weights`` are what it has read; None where that is not known."""
        known = msgspec.structs.replace(described(model), file=file, digest=weights.digest if weights else "")
        self._running[model.name] = known, weights

    def ended(self, name: str) -> None:
        """Nothing of its server is left."""
        self._running.pop(name, None)

    def get(self, name: str) -> KnownModel | None:
        """The model as its newest server has it."""
        found = self._running.get(name)
        return found[0] if found is not None else None

    def as_it_is(self, known: KnownModel, status: ModelStatus) -> KnownModel:
        """A model that is to be run as ``known``: while it runs, as it was started, but for what counts at once."""
        running = self.get(status.model) if status.state in ("running", "stopping") else None
        if running is None:
            digest = self.names.digest(known.file)
            return known if digest == known.digest else msgspec.structs.replace(known, digest=digest)
        if running.hosted.on_demand == known.hosted.on_demand:
            return running
        hosted = msgspec.structs.replace(running.hosted, on_demand=known.hosted.on_demand)
        return msgspec.structs.replace(running, hosted=hosted)

    def all_as_they_are(
        self, models: Mapping[str, KnownModel], statuses: tuple[ModelStatus, ...]
    ) -> dict[str, KnownModel]:
        """Those of ``models`` that have a status."""
        return {
            status.model: self.as_it_is(known, status)
            for status in statuses
            if (known := models.get(status.model)) is not None
        }

    async def look(self) -> None:
        """Take the names from those whose files were written to since their start."""
        for name, (known, weights) in list(self._running.items()):
            if weights is None or not await asyncio.to_thread(weights.are_overwritten):
                continue
            if self._running.get(name) == (known, weights):
                log.warning("the weights of %s were written to while it runs: they count from its next start", name)
                self._running[name] = msgspec.structs.replace(known, digest=""), None
