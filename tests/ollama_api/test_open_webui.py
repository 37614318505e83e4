"""The requests that Open WebUI sends to a connection of Ollama's API, and to one of OpenAI's, in its own forms."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway_serving import serving

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

HEADERS = {
    "Content-Type": "application/json",
    "X-OpenWebUI-User-Name": "Ann%20Lee",
    "X-OpenWebUI-User-Id": "7",
    "X-OpenWebUI-User-Email": "ann@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "c-1",
}


def engine() -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], length=4, embedding_size=3, context=100))


async def test_a_connection_of_ollamas_api() -> None:
    async with serving(engine()) as served, aiohttp.ClientSession(served.url, headers=HEADERS) as http:
        # It verifies a connection by the version, which must be numbers.
        async with http.get("/api/version") as answer:
            version = (await answer.json())["version"]
            assert len([int(part) for part in version.split(".")]) == 3
        async with http.get("/api/tags") as answer:
            (listed,) = (await answer.json())["models"]
            assert (listed["name"], listed["model"]) == ("m:latest", "m:latest")
        async with http.get("/api/ps") as answer:
            (running,) = (await answer.json())["models"]
            assert running["name"] == listed["name"]
            assert int(datetime.fromisoformat(running["expires_at"]).timestamp()) > 0
        # It adds the tag to a name without one, and sends JSON as data.
        model = listed["model"]
        async with http.post("/api/show", data=json.dumps({"name": model, "model": model})) as answer:
            assert "completion" in (await answer.json())["capabilities"]
        chat: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "hello"}],
            "options": {"temperature": 0.8, "num_ctx": 2048, "repeat_last_n": 64},
            "keep_alive": "5m",
            "stream": True,
        }
        async with http.post("/api/chat", data=json.dumps(chat).encode()) as answer:
            assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
            assert lines[-1]["done"]
            assert "".join(each["message"]["content"] for each in lines)
        # Titles and tags of chats are asked for whole.
        async with http.post("/api/chat", data=json.dumps(chat | {"stream": False}).encode()) as answer:
            assert (await answer.json())["message"]["role"] == "assistant"
        async with http.post("/api/generate", data=json.dumps({"model": model, "prompt": "x"}).encode()) as answer:
            assert "response" in json.loads((await answer.text()).splitlines()[0])
        async with http.post("/api/embed", data=json.dumps({"model": model, "input": ["a", "b"]})) as answer:
            assert len((await answer.json())["embeddings"]) == 2
        async with http.post("/api/embeddings", data=json.dumps({"model": model, "prompt": "a"})) as answer:
            assert len((await answer.json())["embedding"]) == 3
        # It may ask OpenAI's API at the same address, under the names it has read.
        async with http.post("/v1/chat/completions", data=json.dumps({**chat, "model": "m"})) as answer:
            assert answer.content_type == "text/event-stream"
        # Unloading, and what changes models, say why not in the member that it shows.
        for method, path, body in (
            ("POST", "/api/generate", {"model": model, "keep_alive": 0, "prompt": ""}),
            ("POST", "/api/pull", {"model": "other", "name": "other"}),
            ("POST", "/api/create", {"model": "n", "from": model}),
            ("POST", "/api/copy", {"source": model, "destination": "n"}),
            ("DELETE", "/api/delete", {"model": model, "name": model}),
            ("POST", "/api/push", {"model": model}),
            ("POST", f"/api/blobs/sha256:{'a' * 64}", {}),
        ):
            async with http.request(method, path, data=json.dumps(body).encode()) as answer:
                assert answer.status == 400
                assert isinstance((await answer.json())["error"], str), path


async def test_a_connection_of_openais_api() -> None:
    async with serving(engine()) as served, aiohttp.ClientSession(f"{served.url}/v1/", headers=HEADERS) as http:
        async with http.get("models") as answer:
            (listed,) = (await answer.json())["data"]
            assert listed["id"] == "m"
        chat: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with http.post("chat/completions", data=json.dumps(chat)) as answer:
            assert answer.content_type == "text/event-stream"
            assert (await answer.text()).endswith("data: [DONE]\n\n")
        async with http.post("embeddings", data=json.dumps({"model": "m", "input": ["a"]})) as answer:
            assert len((await answer.json())["data"][0]["embedding"]) == 3
        async with http.post(
            "audio/speech", data=json.dumps({"model": "m", "input": "hi", "voice": "alloy"})
        ) as answer:
            assert (answer.content_type, (await answer.read())[:4]) == ("audio/wav", b"RIFF")
        form = aiohttp.FormData({"model": "m"})
        form.add_field("file", b"sound", filename="a.wav", content_type="audio/wav")
        headers = {name: value for name, value in HEADERS.items() if name != "Content-Type"}
        async with (
            aiohttp.ClientSession(served.url, headers=headers) as sender,
            sender.post("/v1/audio/transcriptions", data=form) as answer,
        ):
            assert (await answer.json())["text"]
        async with http.post(
            "images/generations", data=json.dumps({"model": "m", "prompt": "a cat", "n": 1})
        ) as answer:
            assert (await answer.json())["data"][0]["b64_json"]


@pytest.mark.parametrize("path", ["/api/version", "/api/tags"])
async def test_a_base_of_openais_api_below_api_stays(path: str) -> None:
    async with serving(engine()) as served, aiohttp.ClientSession(served.url) as http:
        async with http.get(path) as answer:
            assert answer.status == 200
        async with http.get("/api/v1/models") as answer:
            assert (await answer.json())["object"] == "list"
