"""What all cells of a fault table have in common."""

from __future__ import annotations

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """What all cells of a table have. ``streams``: how many each of them asks at once. ``engine``: that of the agents;
    empty: ``synthetic``, and ``openai`` where its server fails. ``changes``: each ``key.with.dots=VALUE`` of the
    configuration. ``patience``: seconds after which a client waits no longer for its stream."""

    streams: int = 4
    engine: str = ""
    changes: tuple[str, ...] = ()
    patience: float = 60.0


USUAL = Setting()
