"""Rerank, tokens, sound and images at the gateway, in the forms that their clients know."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import wave
from collections.abc import AsyncGenerator, Callable
from types import FrameType
from typing import Any, get_args

import aiohttp
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_serving import ScriptedEngine, hangs, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.long_form import examples
from tests.patience import PATIENCE

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire.caller import Caller, Limits
from anywire.engine import Delta, EngineProgress
from anywire.errors import InvalidRequest, LimitReached
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer
from anywire.scheduler import QueuedTask, QueueKey
from anywire.scheduler_tools.charges import ExpectedTokens
from anywire.submission import Submission
from anywire_gateway_openai.whole import handlers
from anywire_gateway_openai.whole.form_data import MAX_PARTS, FormFile, read_form

DOCUMENTS = ["a cat sat", "dogs bark", "the cat"]


def synthetic(**config: Any) -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], **config))


class WholeEngine(ScriptedEngine):
    """Answers each task with the same text as its JSON object."""

    capabilities = get_args(Kind)

    def __init__(self, extra: str, usage: str = "") -> None:
        async def script(task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
            yield Delta("", extra, "stop", usage)

        super().__init__(script)


async def test_documents_are_ranked() -> None:
    async with serving(synthetic()) as served, aiohttp.ClientSession(served.url) as http:
        body = {"model": "m", "query": "the cat", "documents": DOCUMENTS, "top_n": 2, "return_documents": True}
        for path in ("/v1/rerank", "/rerank", "/v1/reranking", "/v2/rerank", "/api/v1/rerank"):
            async with http.post(path, json=body) as answer:
                found = await answer.json()
                assert (answer.status, found["object"], found["model"]) == (200, "list", "m"), found
                assert found["id"] == f"rerank-{answer.headers['x-anywire-task']}"
                assert "x-anywire-stages" in answer.headers
            assert [each["index"] for each in found["results"]] == [2, 0]
            assert found["results"][0]["document"] == {"text": "the cat"}
            scores = [each["relevance_score"] for each in found["results"]]
            assert scores == sorted(scores, reverse=True)
            assert found["usage"]["total_tokens"] > 0
        async with http.post("/v1/rerank", json={"query": "x", "documents": [{"text": "x"}, "y"]}) as answer:
            found = await answer.json()  # the only model is meant
            assert [each["index"] for each in found["results"]] == [0, 1]
            assert "document" not in found["results"][0]


async def test_the_best_documents_come_first_whatever_the_engine_says() -> None:
    results = [{"index": at, "relevance_score": score} for at, score in enumerate((0.1, 0.9, 0.5))]
    engine = WholeEngine(json.dumps({"results": results, "model": "its own name", "meta": {"a": 1}}))
    body = {"query": "x", "documents": ["a", "b", "c"], "top_n": 2}
    async with (
        serving(engine) as served,
        aiohttp.ClientSession(served.url) as http,
        http.post("/v1/rerank", json=body) as answer,
    ):
        found = await answer.json()
        assert [each["index"] for each in found["results"]] == [1, 2]
        assert (found["model"], found["meta"]) == ("m", {"a": 1})


async def test_tokens_in_the_forms_of_vllm_and_llama_cpp() -> None:
    text = "the cat, so?"
    async with serving(synthetic(context=64)) as served, aiohttp.ClientSession(served.url) as http:
        for path in ("/v1/tokenize", "/tokenize"):
            async with http.post(path, json={"model": "m", "prompt": text, "return_token_strs": True}) as answer:
                found = await answer.json()
            assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
            assert ("".join(found["token_strs"]), found["max_model_len"]) == (text, 64)
        async with http.post("/tokenize", json={"content": text}) as answer:
            assert await answer.json() == {"tokens": found["tokens"]}
        async with http.post("/tokenize", json={"content": text, "with_pieces": True}) as answer:
            pieces = (await answer.json())["tokens"]
            assert [each["id"] for each in pieces] == found["tokens"]
            assert "".join(each["piece"] for each in pieces) == text
        async with http.post("/detokenize", json={"model": "m", "tokens": found["tokens"]}) as answer:
            assert await answer.json() == {"prompt": text, "content": text}
        chat = {"model": "m", "messages": [{"role": "user", "content": text}]}
        async with http.post("/tokenize", json=chat) as answer:
            assert (await answer.json())["count"] == found["count"]
        for wrong in ({"model": "m"}, {"prompt": "x", "messages": []}, {"prompt": 5}, {"tokens": [1]}):
            async with http.post("/tokenize", json=wrong) as answer:
                assert answer.status == 400, wrong


async def test_special_tokens_are_added_as_each_server_does() -> None:
    engine = WholeEngine('{"tokens":[1,2],"count":2}')
    async with serving(engine) as served, aiohttp.ClientSession(served.url) as http:
        for body, adds in (
            ({"content": "x"}, False),
            ({"content": "x", "add_special": True}, True),
            ({"prompt": "x"}, True),
            ({"prompt": "x", "add_special_tokens": False}, False),
        ):
            async with http.post("/tokenize", json=body) as answer:
                assert answer.status == 200
            given = json.loads(engine.tasks[-1].body)
            assert (given["prompt"], given["add_special_tokens"]) == ("x", adds)
            assert "content" not in given
        async with http.post("/tokenize", json={"messages": [], "add_generation_prompt": False}) as answer:
            assert (await answer.json())["max_model_len"] is None
        given = json.loads(engine.tasks[-1].body)
        assert (given["add_generation_prompt"], "add_special_tokens" in given) == (False, False)


async def test_openais_client_speaks_hears_and_draws() -> None:
    async with serving(synthetic()) as served, served.client() as client:
        sound = await client.audio.speech.create(model="m", input="hello there", voice="alloy", response_format="wav")
        with wave.open(io.BytesIO(sound.content)) as file:
            assert file.getnframes() > 0
        heard = await client.audio.transcriptions.create(model="m", file=("a.wav", sound.content, "audio/wav"))
        assert heard.text
        text = await client.audio.transcriptions.create(
            model="m", file=("a.wav", sound.content), response_format="text", language="en"
        )
        assert str(text).strip() == heard.text
        images = await client.images.generate(model="m", prompt="a cat", n=2, response_format="b64_json")
        assert images.data is not None
        assert [base64.b64decode(each.b64_json or "")[:4] for each in images.data] == [b"\x89PNG"] * 2
        with pytest.raises(openai.BadRequestError, match="response_format"):
            await client.audio.speech.create(model="m", input="x", voice="alloy", response_format="flac")
        with pytest.raises(openai.BadRequestError, match="file"):
            await client.audio.transcriptions.create(model="m", file=("a.wav", b""))


async def test_a_kind_that_no_agent_offers_is_refused() -> None:
    engine = synthetic(kinds=["chat"])
    engine.offer(Offer("m", ("chat",)), Offer("ranks", ("rerank",)))
    async with serving(engine) as served, aiohttp.ClientSession(served.url) as http:
        async with http.post("/v1/tokenize", json={"model": "m", "prompt": "x"}) as answer:
            told = (await answer.json())["error"]
            assert (answer.status, told["message"]) == (400, "model 'm' does not do tokenize here")
        async with http.post("/v1/rerank", json={"model": "none", "query": "x", "documents": ["y"]}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
        async with http.post("/v1/rerank", json={"query": "x", "documents": ["y"]}) as answer:
            assert (await answer.json())["model"] == "ranks", "the only model that does it"
        async with http.get("/v1/models") as answer:
            kinds = {each["id"]: each["kinds"] for each in (await answer.json())["data"]}
            assert kinds == {"m": ["chat"], "ranks": ["rerank"]}


@pytest.mark.parametrize(
    ("path", "body", "extra"),
    [
        ("rerank", {"query": "x", "documents": ["y"]}, '{"results":[{"index":1,"relevance_score":1}]}'),
        ("rerank", {"query": "x", "documents": ["y"]}, '{"results":[{"index":0,"relevance_score":"1"}]}'),
        ("rerank", {"query": "x", "documents": ["y"]}, '{"results":{}}'),
        ("rerank", {"query": "x", "documents": ["y"]}, "[]"),
        ("tokenize", {"prompt": "x"}, '{"tokens":["a"]}'),
        ("tokenize", {"prompt": "x"}, "no JSON"),
        ("detokenize", {"tokens": [1]}, '{"prompt":5}'),
        ("audio/speech", {"input": "x", "voice": "y"}, '{"audio":"no base64!"}'),
        ("audio/speech", {"input": "x", "voice": "y"}, '{"content_type":"audio/wav"}'),
        ("images/generations", {"prompt": "x"}, '{"data":5}'),
    ],
)
async def test_what_an_agent_may_not_answer_is_its_fault(path: str, body: Any, extra: str) -> None:
    async with (
        serving(WholeEngine(extra)) as served,
        aiohttp.ClientSession(served.url) as http,
        http.post(f"/v1/{path}", json=body) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (502, "stream_corrupted")


async def test_an_agent_chooses_no_page_as_the_media_type() -> None:
    for said, told in (
        ("text/html", "application/octet-stream"),
        ("audio/mpeg\r\nX-Evil: 1", "application/octet-stream"),
        ("audio/mpeg", "audio/mpeg"),
    ):
        extra = json.dumps({"audio": base64.b64encode(b"sound").decode(), "content_type": said})
        async with (
            serving(WholeEngine(extra)) as served,
            aiohttp.ClientSession(served.url) as http,
            http.post("/v1/audio/speech", json={"input": "x"}) as answer,
        ):
            assert (await answer.read(), answer.headers["Content-Type"]) == (b"sound", told)
            assert "X-Evil" not in answer.headers


async def test_keys_idempotency_and_clients_that_leave() -> None:
    body = {"model": "m", "query": "x", "documents": ["x"]}
    engine = WholeEngine('{"results":[{"index":0,"relevance_score":0.5}]}', '{"total_tokens":3}')
    async with (
        serving(engine, access=KnownKeys(alice="use")) as served,
        aiohttp.ClientSession(served.url) as http,
    ):
        async with http.post("/v1/rerank", json=body) as answer:
            assert answer.status == 401
        headers = {**bearer("alice"), "Idempotency-Key": "k"}
        for replayed in (None, "true"):
            async with http.post("/v1/rerank", json=body, headers=headers) as answer:
                assert (answer.status, answer.headers.get("x-anywire-replayed")) == (200, replayed)
        assert len(engine.tasks) == 1
        assert engine.tasks[0].tenant == "alice"
        async with http.post(
            "/v1/rerank", json=body, headers={**bearer("alice"), "x-anywire-background": "1"}
        ) as answer:
            assert (await answer.json())["error"]["param"] == "x-anywire-background"
    waits = hangs()
    waits.capabilities = get_args(Kind)
    async with serving(waits) as served, aiohttp.ClientSession(served.url) as http:
        asking = asyncio.ensure_future(http.post("/v1/rerank", json=body))
        await asyncio.wait_for(waits.began.wait(), PATIENCE)
        asking.cancel()
        await asyncio.wait_for(waits.cancelled.wait(), PATIENCE)


async def test_sound_that_is_too_large_is_refused() -> None:
    async with serving(synthetic(), max_body_bytes=4096) as served, served.client() as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.audio.transcriptions.create(model="m", file=("a.wav", b"x" * 5000))
        assert refused.value.status_code == 413
        with pytest.raises(openai.APIStatusError) as refused:  # as base64 it is
            await client.audio.transcriptions.create(model="m", file=("a.wav", b"x" * 3500))
        assert refused.value.status_code == 413


async def test_large_sound_travels_whole() -> None:
    engine = WholeEngine('{"text":"heard"}')
    sound = bytes(range(256)) * 2000
    async with serving(engine) as served, served.client() as client:
        heard = await client.audio.transcriptions.create(
            model="m", file=("../a b.wav", sound, "audio/wav"), timestamp_granularities=["word"], temperature=0.5
        )
        assert heard.text == "heard"
    given = json.loads(engine.tasks[-1].body)
    assert base64.b64decode(given["file"]) == sound
    assert (given["filename"], given["content_type"], given["temperature"]) == ("a b.wav", "audio/wav", "0.5")
    assert given["timestamp_granularities[]"] == ["word"]


async def test_a_refused_file_is_let_go_of_at_once() -> None:
    """A flood of files that are refused must not stay in memory until Python looks for cycles."""

    def is_handlers(each: object) -> bool:
        return isinstance(each, FrameType) and each.f_code.co_name == "transcription"

    async with serving(synthetic(), max_body_bytes=4096) as served, served.client() as client:
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(openai.APIStatusError):  # as base64 it is too large
                await client.audio.transcriptions.create(model="m", file=("a.wav", b"x" * 3500))
            assert not any(map(is_handlers, gc.get_objects()))
        finally:
            gc.enable()


async def test_sound_and_counting_are_no_prompts_of_the_day() -> None:
    engine = WholeEngine('{"text":"heard"}')  # servers that hear tell no tokens
    caller = Caller("k", "alice", limits=Limits(tokens_per_day=10_000))
    body = json.dumps({"model": "m", "file": "A" * 200_000, "filename": "a.wav"})
    async with serving(engine) as served:
        for _ in range(3):
            await served.context.submit(Submission("transcription", "m", body, caller=caller)).result()
        counting = Submission("tokenize", "m", body, caller=caller)
        for _ in range(3):  # no model reads anything
            await served.context.submit(counting).result()
        text = Submission("rerank", "m", body, caller=caller)
        await served.context.submit(text).result()
        with pytest.raises(LimitReached):
            await served.context.submit(text).result()
    expected = ExpectedTokens(0)
    heard = QueuedTask("t", (QueueKey("m", "transcription"),), prompt_chars=16_000_000)
    assert expected.prompt(heard) == 100_000


async def test_the_event_loop_runs_between_the_looks_at_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    seen: list[int] = []

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            seen.append(turns)
            return call(*given)

        return noted

    for name in ("read_form", "asked_transcription", "digest_of", "translated"):
        monkeypatch.setattr(handlers, name, noting(getattr(handlers, name)))
    async with serving(WholeEngine('{"text":"heard"}')) as served, served.client() as client:
        turning = asyncio.ensure_future(turn())
        try:
            for headers in (dict[str, str](), {"Idempotency-Key": "k"}):
                seen.clear()
                await client.audio.transcriptions.create(model="m", file=("a.wav", b"sound"), extra_headers=headers)
                assert len(seen) == 3 + bool(headers), "nobody asks for a digest without a key"
                assert sorted(set(seen)) == seen
        finally:
            turning.cancel()


# Forms

BOUNDARY = "xYz"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return body + f"--{BOUNDARY}--\r\n".encode()


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b[]", "ü"]), st.binary(max_size=40), st.booleans()), max_size=5))
def test_a_form_is_read_as_it_was_written(parts: list[tuple[str, bytes, bool]]) -> None:
    mark = f"\r\n--{BOUNDARY}".encode()
    parts = [each for each in parts if mark not in b"\r\n" + each[1]]
    heads = [
        f'Content-Disposition: form-data; name="{name}"'
        + ('; filename="f"\r\nContent-Type: audio/x' if is_file else "")
        for name, _, is_file in parts
    ]
    wanted: dict[str, list[str | FormFile]] = {}
    for name, data, is_file in parts:
        value = FormFile("f", "audio/x", data) if is_file else data.decode(errors="replace")
        wanted.setdefault(name, []).append(value)
    body = form(*zip(heads, [data for _, data, _ in parts], strict=True))
    assert read_form(body, TYPE) == wanted


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", TYPE),
        (b"--xYz", TYPE),
        (form(("Content-Disposition: form-data", b"x")), TYPE),
        (form(('Content-Disposition: form-data; name=""', b"x")), TYPE),
        (form(("x: " + "y" * 9000, b"x")), TYPE),
        (form(*[('Content-Disposition: form-data; name="a"', b"")] * (MAX_PARTS + 1)), TYPE),
        (form(('Content-Disposition: form-data; name="a"', b"x")), "application/json"),
        (form(('Content-Disposition: form-data; name="a"', b"x")), "multipart/form-data"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        read_form(body, content_type)
