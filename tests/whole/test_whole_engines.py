"""Rerank, tokens, sound and images of engines: asked of servers in their own forms, and of real llama.cpp."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_serving import serving
from tests.integration.test_engine_llama import write_model
from tests.long_form import examples
from tests.whole.whole_server import WholeServer, whole_server

from anywire.builtin.synthetic import WORDS, SyntheticConfig, SyntheticEngine
from anywire.builtin.synthetic_whole import WholeAnswers
from anywire.engine import Delta, Engine
from anywire.errors import EngineFailed, InvalidRequest
from anywire.messages import Kind, TaskRequest, WholeKind
from anywire.offers import Offer
from anywire.pipeline.orders.probes import BODIES
from anywire_engine_llama import LlamaEngine
from anywire_engine_models.config import ModelSettings
from anywire_engine_models.engine import ModelsEngine
from anywire_engine_models.llama_cpp.command import LlamaSettings, llama_command
from anywire_engine_openai import OpenAIEngine

pytestmark = pytest.mark.timeout(120)
CHAT = [{"role": "user", "content": "hello"}]


def task(kind: Kind, model: str = "m", **body: Any) -> TaskRequest:
    return TaskRequest("h", "t", 1, kind, model, json.dumps({"model": model, **body}))


async def answer(engine: Engine, asked: TaskRequest) -> dict[str, Any]:
    async with aclosing(engine.run(asked)) as deltas:
        found = [each async for each in deltas if isinstance(each, Delta)]
    (delta,) = [each for each in found if each.extra]
    told: dict[str, Any] = json.loads(delta.extra)
    return told


@asynccontextmanager
async def engine_at(server: WholeServer, **options: Any) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(OpenAIEngine.Config(base_url=server.url, refresh_interval=0, **options))
    await engine.start(lambda: None)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.mark.parametrize("owner", ["", "vllm"])
async def test_servers_are_asked_in_their_own_form(owner: str) -> None:
    async with (
        whole_server(owner) as server,
        engine_at(server, kinds=list(get_args(Kind)), models={"public": "m"}) as at,
    ):
        scored = {
            "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}],
            "usage": {"total_tokens": 3},
        }
        server.says("/v1/rerank", scored)
        found = await answer(at, task("rerank", "public", query="q", documents=[{"text": "a"}, "b"], top_n=1))
        assert found == {"results": scored["results"]}
        assert server.asked[-1] == (
            "/v1/rerank",
            {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1},
        )
        server.says("/tokenize", {"tokens": [5, 6], "count": 2, "max_model_len": 9, "token_strs": ["a", "b"]})
        found = await answer(at, task("tokenize", "public", prompt="ab", return_token_strs=True))
        assert found == {"tokens": [5, 6], "count": 2, "max_model_len": 9, "token_strs": ["a", "b"]}
        path, sent = server.asked[-1]
        assert (path, sent["model"], sent["prompt"], sent["add_special_tokens"]) == ("/tokenize", "m", "ab", True)
        found = await answer(at, task("tokenize", "public", messages=CHAT))
        assert server.asked[-1] == ("/tokenize", {"model": "m", "messages": CHAT})
        server.says("/detokenize", {"prompt": "ab"})
        assert await answer(at, task("detokenize", "public", tokens=[5, 6])) == {"prompt": "ab"}
        server.says("/v1/images/generations", {"created": 1, "data": [{"b64_json": "x"}], "usage": {"total_tokens": 1}})
        found = await answer(at, task("image", "public", prompt="a cat"))
        assert found == {"created": 1, "data": [{"b64_json": "x"}]}
        server.answers["/v1/audio/speech"] = web.Response(body=b"\0sound", content_type="audio/mpeg")
        found = await answer(at, task("speech", "public", input="x", voice="y"))
        assert (base64.b64decode(found["audio"]), found["content_type"]) == (b"\0sound", "audio/mpeg")


async def test_sound_is_sent_as_a_form() -> None:
    async with whole_server() as server, engine_at(server, kinds=["transcription"]) as at:
        server.says("/v1/audio/transcriptions", {"text": "heard", "usage": {"type": "duration", "seconds": 1}})
        sound = bytes(range(256))
        body: dict[str, Any] = {
            "file": base64.b64encode(sound).decode(),
            "filename": 'a"b\r\n.wav',
            "content_type": "audio/wav",
            "language": "en",
            "temperature": 0.5,
            "timestamp_granularities[]": ["word", "segment"],
        }
        asked = task("transcription", **body)
        assert await answer(at, asked) == {"text": "heard"}
        _, form = server.asked[-1]
        assert form["file"][1:] == ("audio/wav", sound)
        assert "\r" not in form["file"][0]
        assert form["language"] == ["en"]
        assert (form["model"], form["temperature"]) == (["m"], ["0.5"])
        assert form["timestamp_granularities[]"] == ["word", "segment"]
        server.answers["/v1/audio/transcriptions"] = web.Response(
            text="1\n00:00 --> 00:01\nheard", content_type="text/plain"
        )
        found = await answer(at, task("transcription", file="", filename="a", response_format="srt"))
        assert found["content"].startswith("1\n")
        with pytest.raises(InvalidRequest, match="base64"):
            await answer(at, task("transcription", file="no base64", filename="a"))


async def test_llama_cpps_server_makes_a_prompt_of_a_chat_first() -> None:
    async with whole_server("llamacpp") as server, engine_at(server) as at:
        (offer,) = at.status().offers
        assert set(offer.kinds) >= {"chat", "tokenize", "detokenize"}
        assert "rerank" not in offer.kinds
        server.says("/apply-template", {"prompt": "user: hello\nassistant:"})
        server.says("/tokenize", {"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [226, 130]}]})
        found = await answer(at, task("tokenize", messages=CHAT, tools=[], return_token_strs=True))
        assert found == {"tokens": [1, 2], "count": 2, "token_strs": ["a", "\ufffd"]}
        (_, first), (_, second) = server.asked
        assert first["messages"] == CHAT
        assert (second["content"], second["add_special"], second["with_pieces"]) == (
            "user: hello\nassistant:",
            True,
            True,
        )
        assert "messages" not in second
        server.says("/detokenize", {"content": "ab"})
        assert await answer(at, task("detokenize", tokens=[5, 6])) == {"prompt": "ab"}
        server.says("/apply-template", {"error": {"message": "no such role", "code": 400}}, 400)
        with pytest.raises(InvalidRequest, match="no such role"):
            await answer(at, task("tokenize", messages=CHAT))


async def test_a_gateway_of_anywire_is_asked_for_what_it_lists() -> None:
    below = SyntheticEngine(SyntheticConfig(models=["m"]))
    below.offer(
        Offer("m", ("chat", "tokenize"), owner="llamacpp"),  # llama.cpp's server is somewhere below
        Offer("ranks", ("rerank",)),
    )
    async with serving(below) as served:
        engine = OpenAIEngine(OpenAIEngine.Config(base_url=f"{served.url}/v1", refresh_interval=0))
        await engine.start(lambda: None)
        try:
            kinds = {each.model: each.kinds for each in engine.status().offers}
            assert kinds == {"m": ("chat", "tokenize"), "ranks": ("rerank",)}
            assert (await answer(engine, task("tokenize", messages=CHAT)))["count"] > 0
            found = await answer(engine, task("rerank", "ranks", query="a b", documents=["c", "a"]))
            assert [each["index"] for each in found["results"]] == [1, 0]
        finally:
            await engine.close()


@pytest.mark.parametrize(
    "said", [{"results": [{"index": "0", "relevance_score": 1}]}, {"results": 5}, [1], {}, {"results": [{"index": 0}]}]
)
async def test_what_is_no_ranking_is_the_servers_fault(said: Any) -> None:
    async with whole_server() as server, engine_at(server, kinds=["rerank"]) as at:
        server.says("/v1/rerank", said)
        with pytest.raises(EngineFailed):
            await answer(at, task("rerank", query="q", documents=["a"]))
        server.says("/v1/rerank", [{"index": 0, "score": 0.5}])  # TEI's
        assert await answer(at, task("rerank", query="q", documents=["a"])) == {
            "results": [{"index": 0, "relevance_score": 0.5}]
        }
        server.says("/v1/rerank", {"error": {"message": "too long", "code": 400}}, 400)
        with pytest.raises(InvalidRequest, match="too long"):
            await answer(at, task("rerank", query="q", documents=["a"]))


async def test_real_llama_cpp_counts_what_it_reads(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny-chat.Q4_K_M.gguf")
    engine = LlamaEngine(LlamaEngine.Config(model=str(model), context=512, threads=1))
    async with serving(engine, timeout=100) as served, aiohttp.ClientSession(served.url) as http:
        (name,) = served.context.models()
        text = "bafa dinon"
        async with http.post("/tokenize", json={"model": name, "content": text, "with_pieces": True}) as got:
            pieces = (await got.json())["tokens"]
        assert "".join(each["piece"] for each in pieces).strip() == text
        async with http.post("/detokenize", json={"tokens": [each["id"] for each in pieces]}) as got:
            assert (await got.json())["content"].strip() == text
        for body in ({"prompt": text}, {"messages": [{"role": "user", "content": text}]}):
            async with http.post("/v1/tokenize", json=body) as got:
                count = (await got.json())["count"]
            path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
            async with http.post(path, json={**body, "max_tokens": 1}) as got:
                assert (await got.json())["usage"]["prompt_tokens"] == count, body
        async with http.post("/rerank", json={"model": name, "query": "x", "documents": ["y"]}) as got:
            assert (got.status, "does not do rerank" in await got.text()) == (400, True)


async def test_real_llama_cpp_ranks_a_hosted_model(tmp_path: Path) -> None:
    entry = {
        "provider": "local", "library": "library", "name": "t", "version": "1", "full_identifier": "local:t:1",
        "model_file_path": str(write_model(tmp_path / "tiny.gguf")),
        "settings": {"kinds": ["rerank"], "context": 256, "on_demand": True},
    }  # fmt: skip
    (tmp_path / "models.json").write_text(json.dumps({"models": [entry]}))
    engine = ModelsEngine(ModelsEngine.Config(registry=tmp_path / "models.json"))
    body: dict[str, Any] = {
        "query": "bafa",
        "documents": ["bafa dinon", "x", "bafa"],
        "top_n": 2,
        "return_documents": True,
    }
    async with serving(engine, timeout=100) as served, aiohttp.ClientSession(served.url) as http:
        async with http.get("/v1/models") as got:
            assert (await got.json())["data"][0]["kinds"] == ["rerank", "tokenize", "detokenize"]
        async with http.post("/v1/rerank", json=body) as got:
            found = await got.json()
        assert (got.status, found["model"], len(found["results"])) == (200, "local:t:1", 2), found
        assert [each["document"]["text"] for each in found["results"]] == [
            body["documents"][each["index"]] for each in found["results"]
        ]
        assert found["results"][0]["relevance_score"] >= found["results"][1]["relevance_score"]


async def test_a_hosted_model_ranks_where_that_is_set() -> None:
    command = llama_command(Path("/m.gguf"), settings=LlamaSettings(alias="m", context=128, rerank=True))
    at = command.arguments.index("--pooling")
    assert command.arguments[at + 1] == "rank"
    assert "--embeddings" in command.arguments
    for wrong in (["rerank", "embedding"], ["speech"], ["chat", "image"]):
        with pytest.raises(ValueError, match="kinds"):
            ModelSettings(kinds=wrong)
    assert ModelSettings(kinds=["speech"], command=["server", "{port}"]).kinds == ["speech"]


async def test_a_probe_of_each_kind_is_answered() -> None:
    assert set(BODIES) == set(get_args(Kind))
    engine = SyntheticEngine(SyntheticConfig(models=["m"]))
    for kind, body in BODIES.items():
        asked: dict[str, Any] = dict(body)
        async with aclosing(engine.run(task(kind, **asked))) as deltas:
            assert [each async for each in deltas], kind


words = st.text(st.sampled_from(" abetho.,ÄÖ😀\n"), max_size=30)


@settings(max_examples=examples(60), deadline=None)
@given(words)
def test_synthetic_tokens_become_the_same_text(text: str) -> None:
    maker = WholeAnswers(WORDS, 0, 0)

    def ask(kind: WholeKind, **body: Any) -> Any:
        return json.loads(maker.answer(kind, json.dumps(body)).extra)

    found = ask("tokenize", prompt=text, return_token_strs=True)
    assert "".join(found["token_strs"]) == text
    assert len(found["tokens"]) == found["count"]
    assert ask("detokenize", tokens=found["tokens"])["prompt"] == text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("rerank", {"query": "", "documents": ["x"]}),
        ("rerank", {"query": "x", "documents": []}),
        ("rerank", {"query": "x", "documents": [5]}),
        ("tokenize", {"prompt": 5}),
        ("detokenize", {"tokens": [-1]}),
        ("detokenize", {"tokens": [2**40]}),
        ("detokenize", {"tokens": [0xD800 + 2 * len(set(WORDS))]}),
        ("transcription", {"file": "?"}),
        ("speech", {"input": "x", "response_format": "flac"}),
        ("image", {"prompt": "x", "n": 11}),
    ],
)
def test_the_synthetic_engine_names_what_it_does_not_take(kind: WholeKind, body: Any) -> None:
    with pytest.raises(InvalidRequest):
        WholeAnswers(WORDS, 0, 0).answer(kind, json.dumps(body))
