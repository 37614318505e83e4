"""Mutated requests of Ollama's API and of forms with sound: no answer blames the server, every error has its form."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import aiohttp
import pytest
from tests.integration.fuzzed_requests import Requests
from tests.integration.gateway_serving import serving
from tests.integration.mutations import seed
from tests.long_form import TIMES

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine
from anywire_gateway_openai.ollama.catalogue import MAX_NAMED_BYTES

REQUESTS = 300 * TIMES
CALL = {"function": {"name": "f", "arguments": {"a": 1}}, "id": "c"}
SEEDS: dict[str, list[dict[str, Any]]] = {
    "/api/chat": [
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "f", "images": ["iVBORw0KGgo="]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL]},
                {"role": "tool", "content": "x", "tool_name": "f"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "options": {"temperature": 0.5, "num_predict": 3, "stop": ["a"], "num_ctx": 4},
            "keep_alive": "5m",
            "think": False,
        },
        {"model": "m:latest", "messages": [{"role": "user", "content": "x"}], "stream": False, "format": "json"},
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 2},
        {"model": "m", "messages": [], "keep_alive": 0},
    ],
    "/api/generate": [
        {"model": "m", "prompt": "x", "system": "y", "images": ["/9j/"], "format": {"type": "object"}},
        {"model": "m", "prompt": "x", "raw": True, "stream": False, "logprobs": True, "top_logprobs": 1},
        {"model": "m", "prompt": "x", "suffix": "y", "context": [1]},
    ],
    "/api/embed": [{"model": "m", "input": ["a", "b"], "dimensions": 2, "truncate": True}],
    "/api/embeddings": [{"model": "m", "prompt": "a"}],
    "/api/show": [{"model": "m", "name": "m", "verbose": True}],
    "/api/pull": [{"model": "m", "stream": False}],
}


async def test_no_request_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw, statuses = Requests(seed()), dict[int, int]()
    engine = SyntheticEngine(SyntheticConfig(models=["m"], length=3))
    async with serving(engine, timeout=100) as served, aiohttp.ClientSession(served.url) as http:
        for _ in range(REQUESTS):
            path = draw.rng.choice(list(SEEDS))
            value: Any = json.loads(json.dumps(draw.rng.choice(SEEDS[path])))
            for _ in range(draw.rng.choice((0, 1, 1, 2))):
                value = draw._changed(value)
            try:
                body = json.dumps(value).encode()
            except (ValueError, RecursionError):
                continue
            if draw.rng.random() < 0.2:
                body = draw.mutated(body)
            async with http.post(path, data=io.BytesIO(body)) as answer:
                data = await answer.read()
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                assert answer.status < 500, (path, body, data)
                lines = [json.loads(line) for line in data.splitlines() if line]
                if answer.status == 200:
                    assert all("error" not in each for each in lines), (path, body, data)
                else:
                    (error,) = lines
                    assert set(error) == {"error"}
                    assert isinstance(error["error"], str), (path, body, data)
        assert not served.context.tasks()
    assert not caplog.records, [each.getMessage() for each in caplog.records]
    assert statuses.get(200, 0) > REQUESTS / 5, statuses


async def test_no_form_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw = Requests(seed())
    head = b'--x\r\nContent-Disposition: form-data; name="'
    form = (
        head
        + b'model"\r\n\r\nm\r\n'
        + head
        + b'file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--x--'
    )
    engine, answered = SyntheticEngine(SyntheticConfig(models=["m"])), 0
    async with serving(engine, timeout=100) as served, aiohttp.ClientSession(served.url) as http:
        for number in range(REQUESTS // 2):
            body = draw.mutated(form) if number % 4 else form
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            async with http.post("/v1/audio/transcriptions", data=io.BytesIO(body), headers=headers) as answer:
                data = await answer.json()
                assert answer.status < 500, (body, data)
                answered += answer.status == 200
                assert "text" in data if answer.status == 200 else "message" in data["error"]
    assert not caplog.records, [each.getMessage() for each in caplog.records]
    assert answered >= REQUESTS // 8


@pytest.mark.parametrize("path", ["/api/show", "/api/pull"])
async def test_what_names_a_model_is_short(path: str) -> None:
    """Many at once must not fill the memory: their bodies are counted nowhere."""
    engine = SyntheticEngine(SyntheticConfig(models=["m"]))
    async with serving(engine) as served, aiohttp.ClientSession(served.url) as http:
        body = {"model": "m", "system": "x" * MAX_NAMED_BYTES}
        async with http.post(path, json=body) as answer:
            assert (answer.status, set(await answer.json())) == (413, {"error"})
        body["system"] = "x" * (MAX_NAMED_BYTES // 2)
        async with http.post(path, json=body) as answer:
            assert answer.status == 200
