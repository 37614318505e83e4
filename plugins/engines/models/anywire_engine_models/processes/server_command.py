"""How a server of one model is started as a process."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class ServerCommand(msgspec.Struct, frozen=True):
    """A command template: in ``arguments`` and ``environment`` stand ``{port}``, ``{device}``, ``{gpu_layers}`` and
    ``{key}`` for what the launcher fills in; ``{{`` and ``}}`` are braces. ``port`` 0 takes any that is free, and
    another one when it is taken between its choice and the server's bind. ``health_path`` answers 200 when the model is
    loaded. ``on_device`` is what is put behind the arguments for ``gpu`` or ``cpu``. ``secret``: the server gets
    a bearer token, new at each start, in the environment variable ``LLAMA_API_KEY`` and as ``{key}``, which may
    stand in ``environment`` alone."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = {}
    port: int = 0
    health_path: str = "/health"
    on_device: Mapping[str, tuple[str, ...]] = {}
    secret: bool = True
    model_file: str = ""
    """For the error that is said when it cannot be read, and to see how much is loaded; empty when nothing local is
    known."""
