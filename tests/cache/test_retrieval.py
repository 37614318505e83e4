"""Answers from documents when no model can answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.cached import TellingEngine, chat, front, task, vectors
from tests.long_form import examples

from anywire.caller import OPERATOR
from anywire.engine import Delta, EngineStatus
from anywire.errors import ConfigError, EngineFailed
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.route import Request, Response
from anywire.service import Service
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_service_cache.retrieval import vectors as vectors_module
from anywire_service_cache.retrieval.config import RetrievalConfig
from anywire_service_cache.retrieval.documents import passages_of, read_library
from anywire_service_cache.retrieval.service import Retrieval
from anywire_service_cache.retrieval.words import WordIndex

OPENING = "The office opens at nine.\n\nOn Sundays it is closed.\n"
RETURNS = "# Returns\n\nSend goods back within thirty days.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    (documents / "shop").mkdir(parents=True)
    (documents / "hours.md").write_text(OPENING)
    (documents / "shop" / "returns.txt").write_text(RETURNS)
    (documents / ".hidden.md").write_text("secret office")
    (documents / "code.py").write_text("office")
    (tmp_path / "outside.md").write_text("outside office")
    (documents / "link.md").symlink_to(tmp_path / "outside.md")
    return documents


class TestRetrieval(ServiceConformance):
    service = "retrieval"

    @pytest.fixture(autouse=True)
    def _documents(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Service:
        return Retrieval(RetrievalConfig(folder=self.folder))


class Failing(TellingEngine):
    """Its models but those of embeddings fail."""

    def __init__(self, embedded: dict[str, list[float]] | None = None) -> None:
        super().__init__("m", "e")
        made = vectors(embedded or {})

        def answer(asked: TaskRequest, number: int) -> list[Delta]:
            if asked.kind != "embedding":
                raise EngineFailed("no memory")
            return made(asked, number)

        self.answer = answer


@asynccontextmanager
async def retrieving(
    tmp_path: Path, folder: Path, engine: TellingEngine | None = None, **options: Any
) -> AsyncIterator[ServiceBench]:
    service = Retrieval(RetrievalConfig(folder=folder, **options))
    async with service_bench(service, state=tmp_path, engine=engine or Failing()) as bench:
        yield bench


async def told(bench: ServiceBench) -> dict[str, Any]:
    (route,) = [each for each in bench.routes.all() if each.method == "GET"]
    answer = await route.handler(Request("GET", "/v1/retrieval", {}, {}, {}, b"", OPERATOR))
    assert isinstance(answer, Response)
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    return found


async def test_a_failing_model_is_answered_from_the_documents_and_marked(tmp_path: Path, folder: Path) -> None:
    async with retrieving(tmp_path, folder) as bench, front(bench) as http:
        client = openai.AsyncOpenAI(base_url=f"{http._base_url}/v1", api_key="none", max_retries=0)
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "When does the office open?"}]
        )
        assert raw.headers["x-anywire-fallback"] == "retrieval"
        answer = raw.parse()
        text = answer.choices[0].message.content
        assert text is not None
        assert text.startswith("No model can answer now.")
        assert "[1] hours.md, line 1\nThe office opens at nine." in text
        assert "secret" not in text
        assert "outside" not in text
        marked = (answer.model_extra or {})["anywire_fallback"]
        assert (marked["service"], marked["error"], marked["found_by"]) == ("retrieval", "engine_failed", "words")
        assert marked["sources"][0]["source"] == "hours.md"
        streamed = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "When does the office open?"}], stream=True
        )
        pieces = [chunk async for chunk in streamed]
        assert "".join(each.choices[0].delta.content or "" for each in pieces) == text
        assert pieces[-1].choices[0].finish_reason == "stop"
        assert any("anywire_fallback" in (each.model_extra or {}) for each in pieces)
        completed = await client.completions.create(model="m", prompt="goods back")
        assert "shop/returns.txt" in completed.choices[0].text
        with pytest.raises(openai.APIStatusError) as failed:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "xylophone"}])
        assert "x-anywire-fallback" not in failed.value.response.headers
        await client.close()


async def test_what_asks_for_more_than_text_and_what_succeeds_is_left_alone(tmp_path: Path, folder: Path) -> None:
    async with retrieving(tmp_path, folder) as bench:
        for body, kind in (
            (chat("office hours", response_format={"type": "json_object"}), "chat"),
            ('{"input": "office"}', "embedding"),
            ("[]", "chat"),
        ):
            with pytest.raises((EngineFailed, KeyError)):
                await expect(task(bench, body, kind=kind).result(), "the task fails")  # type: ignore[arg-type]
        assert (await told(bench))["answers"] == {"meaning": 0, "words": 0}
    async with retrieving(tmp_path, folder, TellingEngine()) as bench:
        stream = task(bench, chat("office"))
        assert (await expect(stream.result(), "an answer")).deltas[0].startswith("0 ")
        assert not stream.notes


async def test_passages_are_found_by_their_meaning_where_an_agent_makes_embeddings(
    tmp_path: Path, folder: Path
) -> None:
    question = "opening times?"
    engine = Failing(
        {OPENING.strip(): [1.0, 0.0], RETURNS.strip(): [0.0, 1.0], question: [0.9, 0.1], "else": [-1.0, -1.0]}
    )
    async with retrieving(tmp_path, folder, engine, model="e", passages=1, timeout=9) as bench:

        async def embedded() -> None:
            while not (await told(bench))["by_meaning"]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)

        await expect(embedded(), "all passages have embeddings")
        stream = task(bench, chat(question))
        answer = await expect(stream.result(), "an answer")
        assert '"found_by":"meaning"' in answer.extra
        assert "office opens" in answer.deltas[0]
        assert stream.notes == {"fallback": "retrieval"}
        with pytest.raises(EngineFailed):
            await expect(task(bench, chat("else")).result(), "nothing is alike")


async def test_documents_are_read_again_when_an_operator_says_so(tmp_path: Path, folder: Path) -> None:
    async with retrieving(tmp_path, folder) as bench:
        assert (await told(bench))["documents"] == 2
        (folder / "new.md").write_text("The xylophone is in the cellar.")
        (route,) = [each for each in bench.routes.all() if each.method == "POST"]
        assert route.role == "operate"
        await route.handler(Request("POST", "/v1/retrieval/reload", {}, {}, {}, b"", OPERATOR))
        answer = await expect(task(bench, chat("xylophone")).result(), "an answer")
        assert "cellar" in answer.deltas[0]


async def test_a_folder_that_is_not_there_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"services\.retrieval\.folder"):
        async with retrieving(tmp_path, tmp_path / "nowhere"):
            raise AssertionError("it has started")


def test_what_exceeds_the_bounds_is_left_out(folder: Path) -> None:
    assert read_library(folder, ["*.md", "*.txt"], 1, 10_000, 500).left_out == 1
    library = read_library(folder, ["*.md", "*.txt"], 10, len(OPENING), 500)
    assert (library.documents, library.left_out) == (1, 1)


@settings(max_examples=examples(60))
@given(st.text("ab .\n", max_size=400), st.integers(100, 140))
def test_passages_are_the_whole_text_in_order_and_bounded(text: str, most: int) -> None:
    found = list(passages_of("x", text, most))
    assert all(0 < len(each.text) <= most for each in found)
    assert "".join("".join(each.text.split()) for each in found) == "".join(text.split())
    lines = text.split("\n")
    for each in found:
        first = each.text.split("\n")[0]
        assert each.line == 1 or first[:20].strip() in lines[each.line - 1] or first not in text
    assert [each.line for each in found] == sorted(each.line for each in found)


def test_the_text_with_the_rarer_words_comes_first() -> None:
    index = WordIndex(["the cat sat", "the dog sat", "the bird flew away", ""])
    assert index.closest("Where did the CAT sit?", 3)[0][0] == 0
    assert index.closest("the", 3) == []
    assert index.closest("nothing of it", 3) == []
    assert WordIndex([]).closest("x", 3) == []


def test_a_text_without_any_sentence_is_cut_in_one_walk() -> None:
    """Each piece copied the rest of the text, which took minutes for some megabytes."""
    found = list(passages_of("log.txt", "x" * 8_000_050, 100))
    assert [len(each.text) for each in found] == [*[100] * 80_000, 50]


async def test_what_another_orchestrator_has_passed_on_is_left_to_its_other_agents(
    tmp_path: Path, folder: Path
) -> None:
    async with retrieving(tmp_path / "a", folder) as bench:
        with pytest.raises(EngineFailed):
            await expect(task(bench, chat("office"), hops=1).result(), "the task fails")
        assert "hours.md" in (await expect(task(bench, chat("office")).result(), "an answer")).deltas[0]
    async with retrieving(tmp_path / "b", folder, passed_on=True) as bench:
        assert "hours.md" in (await expect(task(bench, chat("office"), hops=1).result(), "an answer")).deltas[0]


async def test_a_count_of_tokens_is_no_question(tmp_path: Path, folder: Path) -> None:
    class Anthropic(Failing):
        def status(self) -> EngineStatus:
            return EngineStatus("ready", (Offer("m", features={"api:messages": True}),))

    async with retrieving(tmp_path, folder, Anthropic()) as bench, front(bench) as http:
        asked = {"model": "m", "messages": [{"role": "user", "content": "office"}]}
        async with http.post("/v1/messages/count_tokens", json=asked) as answer:
            assert answer.status == 500
            assert "no memory" in await answer.text()
            assert "x-anywire-fallback" not in answer.headers
        async with http.post("/v1/messages", json=asked | {"max_tokens": 5}) as answer:
            assert answer.headers["x-anywire-fallback"] == "retrieval"
            assert "hours.md" in (await answer.json())["content"][0]["text"]


async def test_passages_are_looked_for_beside_the_event_loop(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []
    closest = WordIndex.closest

    def noted(index: WordIndex, question: str, most: int) -> list[tuple[int, float]]:
        where.append(threading.current_thread())
        return closest(index, question, most)

    monkeypatch.setattr(WordIndex, "closest", noted)
    async with retrieving(tmp_path, folder) as bench:
        await expect(task(bench, chat("office")).result(), "an answer")
    assert where
    assert threading.main_thread() not in where


async def test_passages_without_embeddings_are_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    monkeypatch.setattr(vectors_module.log, "warning", lambda *words: told.set())
    async with retrieving(tmp_path, folder, model="e"):  # its engine knows none of the passages
        await expect(told.wait(), "a warning")
