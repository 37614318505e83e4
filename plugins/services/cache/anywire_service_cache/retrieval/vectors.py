"""The embeddings of all passages: made once an agent serves the model, and again when its weights have changed."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable, Sequence

from anywire.caller import OPERATOR
from anywire.context import Context
from anywire_service_cache.meaning import embeddings
from anywire_service_cache.weights import Weights

log = logging.getLogger(__name__)

BATCH = 16
"""Passages of one request."""
BATCH_TIMEOUT = 60.0
PAUSE = 10.0
"""Seconds after which a request that has failed is sent again."""


class PassageVectors:
    """`vectors` of ``texts`` by ``model``. Close it."""

    def __init__(self, context: Context, model: str, texts: Sequence[str]) -> None:
        self._context, self._model, self._texts = context, model, texts
        self._weights = Weights(context)
        self._changed = asyncio.Event()
        self._stop: Callable[[], None] = context.listen(self._changed.set)
        self._made: list[array[float]] = []
        self._of: frozenset[str] | None = None
        """The digests of the weights that have made them."""
        self._told = -1
        """Of which batch it was last said that there are no embeddings."""
        self._making = asyncio.create_task(self._make())

    @property
    def vectors(self) -> list[array[float]] | None:
        """One for each passage; None while they are not all there, or are of other weights than agents have now."""
        is_whole = len(self._made) == len(self._texts) and self._of == self._digests()
        return self._made if is_whole else None

    async def close(self) -> None:
        """Safe to call twice."""
        self._stop()
        self._stop = lambda: None
        self._weights.close()
        self._making.cancel()
        await asyncio.gather(self._making, return_exceptions=True)

    def _digests(self) -> frozenset[str]:
        return frozenset(self._weights.of(self._model).values())

    async def _make(self) -> None:
        while True:
            self._changed.clear()
            digests = self._digests()
            if digests and digests != self._of:
                self._made, self._of = [], digests
            if not digests or len(self._made) == len(self._texts):
                await self._changed.wait()
                continue
            at = len(self._made)
            batch = self._texts[at : at + BATCH]
            found = await embeddings(self._context, self._model, batch, caller=OPERATOR, timeout=BATCH_TIMEOUT)
            if self._digests() != self._of:
                continue
            if found is None:
                if self._told != at:
                    self._told = at
                    log.warning(
                        "%s makes no embeddings of the passages %d to %d of %d; tried again every %g s. Passages are "
                        "found by their words meanwhile; smaller ones may help (services.retrieval.passage_chars)",
                        self._model,
                        at + 1,
                        at + len(batch),
                        len(self._texts),
                        PAUSE,
                    )
                await self._context.clock.sleep(PAUSE)
                continue
            self._made += found
            if len(self._made) == len(self._texts):
                log.info("%d passages can be found by their meaning", len(self._made))
