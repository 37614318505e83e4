"""What clients written for other servers send: paths of their own, and requests without a model."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai._streaming import SSEDecoder
from tests.integration.gateway_serving import MESSAGES, TIMEOUT, Served, says, serving

from anywire.engine import Delta
from anywire.offers import Offer, offers

USAGE = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
JSON = dict[str, Any]


async def post(served: Served, path: str, body: JSON) -> httpx.Response:
    async with httpx.AsyncClient(base_url=served.url, timeout=TIMEOUT, trust_env=False) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("path", ["/v1/chat/completions_stream", "/api/v1/chat/completions_stream"])
@pytest.mark.parametrize(
    "fields", [{}, {"stream": True}, {"stream": False}, {"stream_options": {"include_usage": True}}]
)
async def test_one_path_always_streams(path: str, fields: JSON) -> None:
    engine = says("Hel", Delta("lo", finish_reason="stop", usage=USAGE))
    async with serving(engine) as served:
        answer = await post(served, path, {"model": "m", "messages": MESSAGES} | fields)
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, done = [event.data for event in SSEDecoder().iter_bytes(iter([answer.content]))]
        assert done == "[DONE]"
        frames = [json.loads(event) for event in events]
        text = [choice["delta"].get("content", "") for frame in frames for choice in frame["choices"]]
        assert "".join(text) == "Hello"
        assert bool(frames[-1].get("usage")) == ("stream_options" in fields)
        assert engine.tasks[0].stream
        refused = await post(served, path, {"model": "m"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


REQUESTS: list[tuple[str, JSON]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions_stream", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "x"}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_without_a_model_is_for_the_one_that_is_served(path: str, body: JSON, stream: bool) -> None:
    engine = says("x")
    async with serving(engine) as served:
        answer = await post(served, path, body | {"stream": stream})
        assert (answer.status_code, engine.tasks[0].model) == (200, "m")
        assert '"model":"m"' in answer.text


async def test_of_several_models_the_one_of_the_settings_is_meant() -> None:
    engine = says("x")
    engine.offers = (Offer("a", ("chat",)), Offer("b", ("chat", "completion")))
    async with serving(engine) as served:
        for path, body in REQUESTS[:2]:
            refused = await post(served, path, body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
            assert "2 are served (a, b)" in refused.json()["error"]["message"]
        # Only one of them completes.
        assert (await post(served, *REQUESTS[2])).status_code == 200
        assert engine.tasks[0].model == "b"
    engine = says("x")
    engine.offers = offers("a", "b")
    async with serving(engine, model="b") as served:
        assert (await post(served, *REQUESTS[0])).status_code == 200
        assert engine.tasks[0].model == "b"


async def test_without_any_model_a_request_must_name_one() -> None:
    engine = says("x")
    engine.offers = ()
    async with serving(engine) as served:
        refused = await post(served, *REQUESTS[0])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
