"""Who is told of every change of a model: the log, and listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable

from anywire_engine_models.host.status import Listener, ModelChanged

log = logging.getLogger(__name__)


class Listeners:
    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._logged: dict[str, tuple[str, str]] = {}
        """State and reason of each model as the log has them."""

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call it at every change; returns what ends that."""
        key = object()
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def tell(self, change: ModelChanged) -> None:
        status = change.status
        if self._logged.get(status.model) != (status.state, status.reason):
            self._logged[status.model] = status.state, status.reason
            level = logging.WARNING if status.state == "crashed" else logging.INFO
            log.log(level, "%s is %s: %s", status.model, status.state, status.reason)
        for key, listener in list(self._listeners.items()):
            if key not in self._listeners:
                continue  # one before it has ended it
            try:
                listener(change)
            except Exception:
                log.exception("a listener of models has failed")

    def forget(self, name: str) -> None:
        """This model is no longer there."""
        self._logged.pop(name, None)
