"""A command template, filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from anywire_engine_models.processes.server_command import ServerCommand

GPU_LAYERS = 999
"""More than any model has."""
_PLACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_OWN_SETTINGS = "ANYWIRE_"
"""Environment variables with our own settings: they may have secrets, and are nothing to a server."""


def arguments(command: ServerCommand, *, port: int, device: str) -> list[str]:
    """The command line. Raises `ValueError` that says what is wrong with the template."""
    values = _values(port, device)
    kind = device.partition(":")[0]
    return [_filled(each, values) for each in (*command.arguments, *command.on_device.get(kind, ()))]


def environment(command: ServerCommand, *, port: int, device: str, key: str) -> dict[str, str]:
    """The server's environment: this process's, without settings of Anywire, and what the template adds, which does not
    change the token that the server is asked with. Raises as `arguments`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_SETTINGS)}
    values = _values(port, device) | {"key": key}
    added = {name: _filled(value, values) for name, value in command.environment.items()}
    secret = {"LLAMA_API_KEY": key} if command.secret else {}
    return own | _visible(device) | added | secret


def _values(port: int, device: str) -> dict[str, str]:
    return {"port": str(port), "device": device, "gpu_layers": str(GPU_LAYERS if device.startswith("gpu") else 0)}


def _visible(device: str) -> dict[str, str]:
    """What shows a server the GPU that it is to use and no other. A device that is not known here changes nothing."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}
    if kind == "gpu" and number.isdecimal():
        # In the order in which the driver's own tools count.
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": number,
            "HIP_VISIBLE_DEVICES": number,
        }
    return {}


def _filled(text: str, values: Mapping[str, str]) -> str:
    def put(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        name = found[1]
        if name in values:
            return values[name]
        if name == "key":
            raise ValueError(
                f"{text!r}: a command line can be read by everybody on this machine; "
                "put {key} into the environment, and let the server read it there"
            )
        known = ", ".join(f"{{{each}}}" for each in values)
        raise ValueError(
            f"{text!r}: {found[0]} is no place to fill in; there are {known}; a brace is written {{{{ or }}}}"
        )

    return _PLACES.sub(put, text)
