"""What an agent remembers of each hub, so that none can make it forget what another one said."""

from __future__ import annotations

from collections import OrderedDict

MAX_HUBS = 256


class Remembered:
    """The last ``each`` names of each of the last `MAX_HUBS` hubs."""

    def __init__(self, each: int = 1024) -> None:
        self._each = each
        self._hubs: OrderedDict[str, OrderedDict[object, None]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._hubs.values()))

    def add(self, hub_id: str, name: object) -> None:
        names = self._hubs.get(hub_id)
        if names is None:
            self._hubs[hub_id] = names = OrderedDict()
            if len(self._hubs) > MAX_HUBS:
                self._hubs.popitem(last=False)
        self._hubs.move_to_end(hub_id)
        names[name] = None
        if len(names) > self._each:
            names.popitem(last=False)

    def has(self, hub_id: str, name: object) -> bool:
        return bool(self._hubs) and name in self._hubs.get(hub_id, ())
