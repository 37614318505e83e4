"""Which model a request is for that names none."""

from __future__ import annotations

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import InvalidRequest
from anywire.messages import COMMON_KINDS, Kind

MAX_SHOWN = 8
"""Models that an error names."""


class DefaultModel:
    """``name`` is the one to use; without it a request means the only model that answers its kind, of those that its
    caller may use."""

    def __init__(self, context: Context, name: str) -> None:
        self._context, self._name = context, name

    def of(self, kind: Kind, caller: Caller) -> str:
        """The model of a request of ``kind`` by ``caller``. Raises `InvalidRequest` where the request must name one."""
        if self._name:
            return self._name
        capable = {view.agent_id: view.info.capabilities for view in self._context.agents()}
        models = [
            model
            for model, found in self._context.offers(caller).items()
            if model and any(kind in (offer.kinds or capable.get(who, COMMON_KINDS)) for who, offer in found)
        ]
        if len(models) == 1:
            return models[0]
        if not models:
            raise InvalidRequest("model is required: no model is served now that could be meant", param="model")
        shown = ", ".join(sorted(models)[:MAX_SHOWN]) + (", …" if len(models) > MAX_SHOWN else "")
        raise InvalidRequest(f"model is required: {len(models)} are served ({shown})", param="model")
