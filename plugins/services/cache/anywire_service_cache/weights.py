"""Which weights agents offer for a model now: an answer of others is stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from anywire.context import Context

NONE: Mapping[str, str] = {}


class Weights:
    """The digests of each model by the agents that offer it. They are read again after agents have changed. Close
    it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._models: dict[str, dict[str, str]] | None = None
        self._stop: Callable[[], None] = context.listen(self._changed)

    def of(self, model: str) -> Mapping[str, str]:
        """By agent the digest of its weights of ``model``, empty where it tells none."""
        if self._models is None:
            self._models = {
                name: {agent_id: offer.digest for agent_id, offer in offered if offer.takes_tasks}
                for name, offered in self._context.offers().items()
            }
        return self._models.get(model, NONE)

    def close(self) -> None:
        """Safe to call twice."""
        self._stop()
        self._stop = lambda: None

    def _changed(self) -> None:
        self._models = None
