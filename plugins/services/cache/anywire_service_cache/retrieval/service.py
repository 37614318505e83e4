"""The service ``retrieval``: passages of documents in place of an error, when no model can answer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from anywire.canonical_body import canonical_members, question_of
from anywire.context import Context
from anywire.demand import read_demand
from anywire.engine import Delta
from anywire.errors import AnywireError, ConfigError
from anywire.messages import Kind
from anywire.metric import Metric
from anywire.native_api import COUNT_TOKENS, endpoint_of
from anywire.route import Request, Response, Route
from anywire.service import Answered, Service
from anywire.submission import Submission
from anywire_service_cache.answers import FALLBACK_MEMBER
from anywire_service_cache.meaning import embeddings, ranked
from anywire_service_cache.retrieval.config import RetrievalConfig
from anywire_service_cache.retrieval.documents import Library, Passage, read_library
from anywire_service_cache.retrieval.vectors import PassageVectors
from anywire_service_cache.retrieval.words import WordIndex

log = logging.getLogger(__name__)

PATH = "/retrieval"
MAX_QUESTION_CHARS = 8000
"""Characters of a question that are compared: the first ones."""
_encode = msgspec.json.Encoder().encode


class FoundBy(msgspec.Struct):
    meaning: int
    words: int


class RetrievalState(msgspec.Struct):
    """``left_out`` are documents that were not read, ``by_meaning`` says whether all passages have embeddings,
    ``answers`` counts the tasks that were answered since the start."""

    object: Literal["retrieval"]
    documents: int
    passages: int
    left_out: int
    by_meaning: bool
    answers: FoundBy


class _Close(NamedTuple):
    passage: Passage
    score: float


class _Index(NamedTuple):
    library: Library
    words: WordIndex
    vectors: PassageVectors | None


class Retrieval(Service):
    """Stands after failure. An answer of it says that no model gave it: in its text, in the member
    ``anywire_fallback`` with the sources, and in the header ``x-anywire-fallback``."""

    name = "retrieval"
    Config = RetrievalConfig

    config: RetrievalConfig

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__(config)
        self._context: Context | None = None
        self._index: _Index | None = None
        self._counts: Counter[str] = Counter()

    async def start(self, context: Context) -> None:
        self._context = context
        self._index = await self._read(context)
        library = self._index.library
        log.info("%d documents have %d passages", library.documents, len(library.passages))
        if library.left_out:
            log.warning("%d documents are left out (services.retrieval.max_files, max_bytes)", library.left_out)
        context.routes.add(
            Route(
                "GET",
                PATH,
                self._tell,
                role="observe",
                summary="Tell how many documents and passages answers are made of.",
                gives=RetrievalState,
            ),
            Route(
                "POST",
                f"{PATH}/reload",
                self._reload,
                role="operate",
                summary="Read the documents again.",
                gives=RetrievalState,
            ),
        )

    async def close(self) -> None:
        index, self._index = self._index, None
        if index is not None and index.vectors is not None:
            await index.vectors.close()

    def metrics(self) -> Iterable[Metric]:
        index = self._index
        for how in ("meaning", "words"):
            text = "Tasks that were answered with passages, by how these were found."
            yield Metric("answers", text, self._counts[how], {"how": how}, counter=True)
        yield Metric("without_passage", "Tasks that no passage answers.", self._counts["none"], counter=True)
        yield Metric("passages", "Passages that can be found.", len(index.library.passages) if index is not None else 0)

    async def after_failure(self, task_id: str, submission: Submission, error: AnywireError) -> Answered | None:
        """None for what asks for something else than text: JSON, embeddings, a count of tokens. None also for tasks
        that another service has made, or another orchestrator has passed on: that one may have other agents."""
        index, context = self._index, self._context
        if index is None or context is None or submission.parent or submission.kind not in ("chat", "completion"):
            return None
        if submission.hops and not self.config.passed_on:
            return None
        text = submission.outline or submission.body
        if endpoint_of(text) == COUNT_TOKENS:
            return None
        members = canonical_members(text)
        question = question_of(members) if members is not None else None
        if question is None or "json" in read_demand(text).needs:
            return None
        close, how = await self._closest(context, index, question.text[:MAX_QUESTION_CHARS], submission, task_id)
        if not close:
            self._counts["none"] += 1
            return None
        self._counts[how] += 1
        caller = submission.caller
        data = {"task_id": task_id, "error": error.code, "how": how, "sources": [each.passage.source for each in close]}
        context.events.publish_plugin(
            self.name, "answered", data, tenant=caller.tenant, caller=caller.id, trace=submission.trace
        )
        return answer_of(self.name, self.config.introduction, close, how, error.code, submission)

    # Inside

    async def _closest(
        self, context: Context, index: _Index, question: str, submission: Submission, task_id: str
    ) -> tuple[list[_Close], str]:
        config, passages = self.config, index.library.passages
        vectors = index.vectors.vectors if index.vectors is not None else None
        if vectors:
            asked = await embeddings(
                context, config.model, [question], caller=submission.caller, timeout=config.timeout, parent=task_id
            )
            if asked is not None:
                found = await asyncio.to_thread(ranked, asked[0], vectors, config.passages)
                return [_Close(passages[at], score) for at, score in found if score >= config.min_similarity], "meaning"
        by_words = await asyncio.to_thread(index.words.closest, question, config.passages)
        return [_Close(passages[at], score) for at, score in by_words], "words"

    async def _read(self, context: Context) -> _Index:
        """Raises `ConfigError`."""
        config = self.config
        folder = config.folder.expanduser().absolute()
        try:
            library = await asyncio.to_thread(
                read_library, folder, config.files, config.max_files, config.max_bytes, config.passage_chars
            )
        except OSError as error:
            raise ConfigError(f"services.retrieval.folder: the documents cannot be read: {error}") from error
        texts = [each.text for each in library.passages]
        words = await asyncio.to_thread(WordIndex, texts)
        vectors = PassageVectors(context, config.model, texts) if config.model and texts else None
        return _Index(library, words, vectors)

    async def _tell(self, request: Request) -> Response:
        index = self._index
        library, by_meaning = Library(0, (), 0), False
        if index is not None:
            library = index.library
            by_meaning = index.vectors is not None and index.vectors.vectors is not None
        answers = FoundBy(self._counts["meaning"], self._counts["words"])
        told = RetrievalState(
            "retrieval", library.documents, len(library.passages), library.left_out, by_meaning, answers
        )
        return Response(_encode(told))

    async def _reload(self, request: Request) -> Response:
        context, before = self._context, self._index
        if context is not None and before is not None:
            index = await self._read(context)
            if self._index is not before:  # closed, or read again by another request meanwhile
                before = index
            else:
                self._index = index
            if before.vectors is not None:
                await before.vectors.close()
        return await self._tell(request)


def answer_of(
    service: str, introduction: str, close: Iterable[_Close], how: str, error: str, submission: Submission
) -> Delta:
    """An answer of passages, in the form that the task asks for."""
    sources: list[dict[str, Any]] = []
    parts = [introduction]
    for number, (passage, score) in enumerate(close, 1):
        sources.append({"source": passage.source, "line": passage.line, "score": round(score, 4)})
        parts.append(f"[{number}] {passage.source}, line {passage.line}\n{passage.text}")
    text = "\n\n".join(parts)
    choice = {"index": 0, **_said(submission.kind, submission.stream, text), "finish_reason": "stop"}
    marked = {"service": service, "error": error, "found_by": how, "sources": sources}
    return Delta(text, _encode({"choices": [choice], FALLBACK_MEMBER: marked}).decode(), "stop")


def _said(kind: Kind, stream: bool, text: str) -> dict[str, Any]:
    if kind == "completion":
        return {"text": text}
    return {"delta": {"content": text}} if stream else {"message": {"role": "assistant", "content": text}}
