"""A start of a server, with the name of the weights that it has read."""

from __future__ import annotations

import asyncio
import logging

from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Launcher, Server, Watcher
from anywire_engine_models.model_files.named_weights import NamedWeights, Weights

log = logging.getLogger(__name__)


async def start_named(
    launcher: Launcher, names: NamedWeights, model: HostedModel, device: str, watcher: Watcher
) -> tuple[Server, Weights | None]:
    """The server of ``model``, whose ``launch`` is a `ServerCommand`, and its weights; None where they cannot be named:
    there is no file, or it has changed while it was loaded. Otherwise as `Launcher.launch`."""
    weights = await _before(names, model)
    server = await launcher.launch(model, device, watcher)
    if weights is None:
        return server, None
    try:
        are_there = await asyncio.to_thread(weights.are_there)
    except asyncio.CancelledError:
        await server.stop()
        raise
    if are_there:
        return server, weights
    log.warning("%s: %s has changed while it was loaded: the weights have no name", model.name, weights.file)
    return server, None


async def _before(names: NamedWeights, model: HostedModel) -> Weights | None:
    """What its server is about to read."""
    file: str = model.launch.model_file
    try:
        return await names.read(file) if file else None
    except OSError as error:
        log.warning("the weights of %s cannot be named: %s", model.name, error)
        return None
