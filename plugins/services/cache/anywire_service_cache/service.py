"""The service ``cache``: answers that were given before are given again."""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import NamedTuple

from anywire.context import Context
from anywire.engine import Delta
from anywire.errors import AnywireError, PluginFailed
from anywire.files.database_thread import taken_over
from anywire.messages import Chunk
from anywire.metric import Metric
from anywire.service import Answered, Service
from anywire.submission import Submission
from anywire_service_cache.answers import Gathering, Room, encoded
from anywire_service_cache.asked import PLAIN, Asked, read_asked
from anywire_service_cache.config import CacheConfig
from anywire_service_cache.entries import Entry
from anywire_service_cache.payloads import InMemory, OnDisk, Payloads
from anywire_service_cache.routes import cache_routes
from anywire_service_cache.store import Store
from anywire_service_cache.weights import Weights

log = logging.getLogger(__name__)

NOTE, SIMILARITY = "cache", "cache-similarity"
MAX_GATHERED = 4096
"""Answers that are gathered at once; of more, those that come later are not kept."""


MEANING_PAUSE = 5.0
"""Seconds for which embeddings are not asked for after one has not come in time."""
CLOSE_PATIENCE = 2.0
"""Seconds that answers which are being written get at the end."""


class _Found(NamedTuple):
    entry: Entry
    answer: tuple[Delta, ...]
    similarity: float = 0.0
    """0 where the request is the same."""


class _Counted(NamedTuple):
    name: str
    text: str


_COUNTS = (
    _Counted("misses", "Tasks that the cache might have answered, and an agent has."),
    _Counted("stored", "Answers that were kept."),
    _Counted("failures", "Times that the disk did not do what it should."),
)


class Cache(Service):
    """Stands before the tasks of agents' models. It keeps whole answers of agents alone, and gives them again to the
    tenant that had them, while an agent offers the weights that gave them."""

    name = "cache"
    Config = CacheConfig

    config: CacheConfig

    def __init__(self, config: CacheConfig) -> None:
        super().__init__(config)
        self._counts: Counter[str] = Counter()
        self._gathering: dict[asyncio.Task[None], Asked] = {}
        self._room = Room()
        self._context: Context | None = None
        self._payloads: Payloads | None = None
        self._store: Store | None = None
        self._weights: Weights | None = None
        self._opening: asyncio.Task[None] | None = None
        self._said_unknown = False
        self._meaning_rests_until = 0.0

    async def start(self, context: Context) -> None:
        self._context, config = context, self.config
        payloads: Payloads = InMemory()
        if config.store == "sqlite":
            folder = config.folder.expanduser() if config.folder is not None else context.state_folder
            payloads = OnDisk(folder.absolute())
        self._payloads = payloads
        store = Store(config, payloads, context.clock, time.time, self._counts)
        self._weights = Weights(context)
        if await payloads.open():
            await store.load()
            self._store = store
        else:
            log.warning("another process has the folder of the cache; answers are kept once that has ended")
            self._opening = asyncio.create_task(self._take_over(context, payloads, store))
        context.routes.add(*cache_routes(self))

    async def close(self) -> None:
        self._store = None
        if self._gathering:
            await asyncio.wait(self._gathering, timeout=CLOSE_PATIENCE)  # what was answered is written yet
        tasks = [*self._gathering, *([self._opening] if self._opening is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._weights is not None:
            self._weights.close()
        if self._payloads is not None:
            await self._payloads.close()

    @property
    def store(self) -> Store | None:
        """What is kept; None before another process has let go of the folder, and after the end."""
        return self._store

    @property
    def counts(self) -> Counter[str]:
        """``exact``, ``semantic`` (hits), ``misses``, ``stored``, ``full``, ``expired``, ``cleared``, ``failures``."""
        return self._counts

    def metrics(self) -> Iterable[Metric]:
        counts, store = self._counts, self._store
        for how in ("exact", "semantic"):
            text = "Tasks that were answered with an answer that was kept."
            yield Metric("hits", text, counts[how], {"how": how}, counter=True)
        for each in _COUNTS:
            yield Metric(each.name, each.text, counts[each.name], counter=True)
        for why in ("full", "expired", "cleared"):
            text = "Answers that are kept no more, by why."
            yield Metric("removed", text, counts[why], {"why": why}, counter=True)
        yield Metric("entries", "Answers that are kept.", len(store.entries) if store is not None else 0)
        yield Metric("bytes", "Bytes of the answers that are kept.", store.entries.bytes if store is not None else 0)

    def tell(self, name: str, submission: Submission, **data: object) -> None:
        """Publish an event of the cache about a task."""
        if self._context is not None:
            caller, trace = submission.caller, submission.trace
            self._context.events.publish_plugin(
                self.name, name, data, tenant=caller.tenant, caller=caller.id, trace=trace
            )

    async def clear(self, scope: str | None, model: str) -> int:
        """As `Store.clear`. What is being answered meanwhile is not kept either."""
        if self._store is None:
            raise PluginFailed("another process has the folder of the cache, so this one keeps nothing yet")
        for task, asked in self._gathering.items():
            if (scope is None or asked.scope == scope) and (not model or asked.model == model):
                task.cancel()
        cleared = await self._store.clear(scope, model)
        self._counts["cleared"] += cleared
        return cleared

    async def before(self, task_id: str, submission: Submission) -> Answered | None:
        context, store, weights = self._context, self._store, self._weights
        asked = read_asked(submission, self.config)
        if asked is None or context is None or store is None or weights is None:
            return None
        vector: array[float] | None = None
        found: _Found | None = None
        if not asked.directives.no_cache:
            found = await self._same(store, weights, asked)
        if found is None and asked.group:
            found, vector = await self._alike(context, store, weights, asked, task_id, submission)
        if found is not None:
            how = "semantic" if found.similarity else "exact"
            self._counts[how] += 1
            context.note(task_id, NOTE, "hit")
            if found.similarity:
                context.note(task_id, SIMILARITY, f"{found.similarity:.4f}")
            age = round(max(0.0, time.time() - found.entry.created), 3)
            self.tell("hit", submission, task_id=task_id, model=asked.model, how=how, age_s=age)
            return found.answer
        self._counts["misses"] += 1
        context.note(task_id, NOTE, "miss")
        self._gather(context, store, weights, task_id, submission, asked, vector)
        return None

    # Finding

    async def _same(self, store: Store, weights: Weights, asked: Asked) -> _Found | None:
        now = time.time()
        for key in (asked.key + PLAIN, asked.own_form):
            entry = store.entries.find(key, now)
            if entry is not None and self._is_fresh(entry, weights, asked, now):
                answer = await store.answer(entry)
                if answer is not None:
                    return _Found(entry, answer)
        return None

    async def _alike(
        self,
        context: Context,
        store: Store,
        weights: Weights,
        asked: Asked,
        task_id: str,
        submission: Submission,
    ) -> tuple[_Found | None, array[float] | None]:
        """An answer to a question that means the same, and the embedding of this one."""
        from anywire_service_cache.meaning import embeddings, ranked

        semantic, clock = self.config.semantic, context.clock
        assert semantic is not None
        if not weights.of(semantic.model) or clock.now() < self._meaning_rests_until:
            return None, None
        due = clock.now() + semantic.timeout
        vectors = await embeddings(
            context,
            semantic.model,
            [asked.question],
            caller=submission.caller,
            timeout=semantic.timeout,
            parent=task_id,
        )
        if vectors is None:
            if clock.now() >= due and clock.now() >= self._meaning_rests_until:
                self._meaning_rests_until = clock.now() + MEANING_PAUSE
                log.warning(
                    "questions are not compared by their meaning for %g s: %s gave no embedding within %g s",
                    MEANING_PAUSE,
                    semantic.model,
                    semantic.timeout,
                )
            return None, None
        vector, now = vectors[0], time.time()
        if asked.directives.no_cache:
            return None, vector
        entries = [
            each
            for each in store.entries.of_group(self._group(asked, weights), now, semantic.max_compared)
            if self._is_fresh(each, weights, asked, now) and each.key[-1:] in (PLAIN, asked.own_form[-1:])
        ]
        closest = ranked(vector, [each.vector for each in entries], 1)
        if not closest or closest[0][1] < semantic.threshold:
            return None, vector
        at, similarity = closest[0]
        answer = await store.answer(entries[at])
        return (_Found(entries[at], answer, similarity), vector) if answer is not None else (None, vector)

    def _is_fresh(self, entry: Entry, weights: Weights, asked: Asked, now: float) -> bool:
        """Whether it is this scope's, young enough for its client, and an agent offers the weights that gave it."""
        return (
            entry.scope == asked.scope
            and now - entry.created <= asked.directives.max_age
            and entry.digest in weights.of(asked.model).values()
        )

    def _group(self, asked: Asked, weights: Weights) -> bytes:
        """With the weights that make embeddings: those of others cannot be compared."""
        semantic = self.config.semantic
        assert semantic is not None
        digests = sorted(set(weights.of(semantic.model).values()))
        return asked.group + "\0".join((semantic.model, *digests)).encode(errors="surrogatepass")

    # Keeping

    def _gather(
        self,
        context: Context,
        store: Store,
        weights: Weights,
        task_id: str,
        submission: Submission,
        asked: Asked,
        vector: array[float] | None,
    ) -> None:
        if len(self._gathering) >= MAX_GATHERED or store.rests or context.closing:
            return
        try:
            chunks = context.follow(task_id)
        except AnywireError:
            return  # it has ended already
        known = dict(weights.of(asked.model))
        group = self._group(asked, weights) if vector is not None else b""
        keeping = self._kept(context, store, weights, task_id, submission, asked, chunks, known, group, vector)
        task = asyncio.get_running_loop().create_task(keeping)
        self._gathering[task] = asked
        task.add_done_callback(self._gathering.pop)

    async def _kept(
        self,
        context: Context,
        store: Store,
        weights: Weights,
        task_id: str,
        submission: Submission,
        asked: Asked,
        chunks: AsyncGenerator[Chunk, None],
        known: dict[str, str],
        group: bytes,
        vector: array[float] | None,
    ) -> None:
        """Keep the answer to a task, once it is whole."""
        gathering = Gathering(self.config.max_answer_bytes, self._room)
        answer: tuple[Delta, ...] | None = None
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    answer = gathering.add(chunk)
                    if answer is not None or gathering.unfit:
                        break
        except AnywireError:
            return  # it has failed
        finally:
            gathering.close()
        if answer is None:
            return
        digest = self._digest(context, weights, task_id, asked.model, known)
        if digest is None:
            return
        key = asked.key + PLAIN if gathering.is_plain else asked.own_form
        data = encoded(answer)
        entry = Entry(key, asked.scope, asked.model, digest, time.time(), len(data), group, vector or array("f"))
        if await store.keep(entry, data):
            self._counts["stored"] += 1
            self.tell("stored", submission, task_id=task_id, model=asked.model, bytes=len(data))

    def _digest(
        self, context: Context, weights: Weights, task_id: str, model: str, known: dict[str, str]
    ) -> str | None:
        """The digest of the weights that have answered; None where it was no agent's, another model's, or where the
        weights of the agent have changed meanwhile."""
        record = context.explain(task_id)
        if record is None:
            if not self._said_unknown:
                self._said_unknown = True
                log.warning("answers are not kept: who has given them is not known with pipeline.explained_tasks: 0")
            return None
        agent_id = record.view.agent_id
        chosen = [each for each in record.decisions if each.agent_id == agent_id]
        if not agent_id or not chosen or chosen[-1].model != model:
            return None
        digest = weights.of(model).get(agent_id)
        if digest is None or known.get(agent_id) != digest or not (digest or self.config.unknown_weights):
            return None
        return digest

    async def _take_over(self, context: Context, payloads: Payloads, store: Store) -> None:
        try:
            await taken_over(payloads.open, context.clock)
            await store.load()
        except AnywireError as error:
            log.error("no answers are kept: %s", error)
            return
        self._store = store
        log.info("the folder of the cache is free now; answers are kept")
