"""Anywire as a system: ``anywire up`` of a tree with two agents over one transport, which answer by themselves
(`peers.agents`) or pass on to the engines with the engine ``openai``."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anywire.plugins import Plugins
from cost import ROOT, python_path
from peers import agents
from peers.systems import BENCHMARKS, Command, Place, System
from transport_stack import options_of

PREFIX = "anywire-"
TRANSPORTS = ("memory", "dds", "http", "zeromq", "grpc", "tcp")
"""Those that are measured where nothing is named. Any other one that is installed can be: ``anywire-NAME``."""
PASSES_ON = "-openai"
"""After the transport's name: the agents pass on."""
BUSY, BUSY_OPTIONS = "-busy", {"busy_poll": 200}
"""After the transport's name: the event loops look for the next message so many microseconds instead of sleeping."""
SLOTS = 64


class Anywire(System):
    """``tree`` is the checkout that is run, and ``more`` are further options of the transport."""

    def __init__(
        self,
        name: str,
        transport: str,
        *,
        tree: Path = ROOT,
        passes_on: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name)
        self._transport, self._tree, self._passes_on, self.more = transport, tree, passes_on, more or {}

    def of(self, tree: Path, suffix: str) -> Anywire:
        """The same of another checkout, with this behind its name."""
        return Anywire(self.name + suffix, self._transport, tree=tree, passes_on=self._passes_on, more=self.more)

    def missing(self) -> str:
        if self._transport not in Plugins().names("transports"):
            return f"there is no transport {self._transport} here"
        lacking = set(self.more) - set(Plugins().load("transports", self._transport).Config.model_fields)
        return f"the transport {self._transport} has no {', '.join(sorted(lacking))}" if lacking else ""

    def said(self, place: Place) -> str:
        return f":{place.port} ("  # it is said when all agents have joined

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        # What it is measured with comes first, from this tree; everything else is that tree's.
        path = f"{BENCHMARKS}:{python_path(self._tree, place.folder / 'metadata')}"
        with options_of(self._transport) as options:
            config = place.folder / "anywire.yaml"
            config.write_text(json.dumps(self._settings(place, {**options, **self.more})))
            arguments = [sys.executable, "-P", "-m", "anywire.cli", "up", "--no-page", "--config", str(config)]
            yield [Command(arguments, {"PYTHONPATH": path})]

    def _settings(self, place: Place, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._passes_on:
            engines = [{"name": "openai", "base_url": f"{each}/v1"} for each in place.engines]
        else:
            engines = [{"name": agents.NAME}] * len(place.engines)
        return {
            "server": {"port": place.port},
            "transports": {self._transport: options},
            "agents": [
                {"id": f"agent-{number}", "slots": SLOTS, "engine": engine} for number, engine in enumerate(engines)
            ],
            "plugins": [agents.__name__],
            "log_level": "warning",
        }


def anywire(transports: Sequence[str] = TRANSPORTS) -> list[System]:
    """Anywire of this tree over each transport, and over DDS with agents that pass on, and with busy polling."""
    found: list[System] = []
    for each in transports:
        found.append(Anywire(f"{PREFIX}{each}", each))
        if each == "dds":
            found.append(Anywire(f"{PREFIX}{each}{PASSES_ON}", each, passes_on=True))
            found.append(Anywire(f"{PREFIX}{each}{BUSY}", each, more=BUSY_OPTIONS))
    return found


def earlier(system: System, tree: Path, suffix: str) -> System | None:
    """The same of an earlier tree; None for what is none of Anywire's, and for options that it may not have."""
    return system.of(tree, suffix) if isinstance(system, Anywire) and not system.more else None
