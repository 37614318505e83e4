"""Mutated requests for responses and conversations, with the services that keep them: no answer blames the server,
every error has OpenAI's form, and what is kept stays whole."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.integration.fuzzed_requests import SEEDS, Requests
from tests.integration.gateway_serving import says
from tests.integration.mutations import seed
from tests.long_form import TIMES
from tests.responses.conversing import conversing

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

REQUESTS = 400 * TIMES
ITEMS = [
    {"role": "user", "content": "hello"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "x"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
]


async def test_no_request_is_the_servers_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw = Requests(seed())
    statuses: dict[int, int] = {}
    engine = SyntheticEngine(SyntheticConfig(models=["m"], length=3))
    async with conversing(tmp_path, engine, timeout=100) as at:
        conversation = (await at.client.conversations.create(items=[])).id
        first = (await at.client.responses.create(model="m", input="x")).id
        for number in range(REQUESTS):
            path, body = "/v1/responses", draw.body("/responses")
            if number % 4 == 0:
                body = body.replace(b'"input"', f'"conversation": "{conversation}", "input"'.encode(), 1)
            elif number % 4 == 1:
                body = body.replace(b'"input"', f'"previous_response_id": "{first}", "input"'.encode(), 1)
            elif number % 4 == 2 and number % 8 == 2:
                items = json.loads(json.dumps(ITEMS))
                for _ in range(draw.rng.choice((0, 1, 2))):
                    items = draw._changed(items)
                path = f"/v1/conversations/{conversation}/items"
                body = (
                    draw.mutated(json.dumps({"items": items}).encode())
                    if number % 3
                    else json.dumps({"items": items}).encode()
                )
            headers = {"Content-Type": "application/json"}
            async with at.http.post(path, data=io.BytesIO(body), headers=headers) as answer:
                data = await answer.read()
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                if answer.status != 200:
                    error: dict[str, Any] = json.loads(data)["error"]
                    assert {"message", "type", "param", "code"} <= error.keys()
                    assert answer.status < 500, (body, data)
                elif answer.content_type == "text/event-stream":
                    assert b"event: response.failed" not in data, (body, data)
                elif path == "/v1/responses":
                    assert json.loads(data)["status"] in ("completed", "incomplete")
        page = at.client.conversations.items.list(conversation, limit=100)
        ids = [item.id async for item in page]
        assert len(set(ids)) == len(ids)
    assert not caplog.records, [each.getMessage() for each in caplog.records]
    assert statuses.get(200, 0) > REQUESTS / 20, statuses
    assert set(SEEDS) >= {"/responses"}


async def test_what_is_nested_deeply_is_refused_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    engine = says("done")
    async with conversing(tmp_path, engine) as at:
        conversation = (await at.client.conversations.create()).id
        answered = 0
        for depth in range(860, 960):
            nest = "[" * depth + "]" * depth
            items = f'[{{"role": "user", "content": "x", "more": {nest}}}]'
            ways = {
                "/v1/responses": f'{{"model": "m", "conversation": "{conversation}", "input": {items}}}',
                f"/v1/conversations/{conversation}/items": f'{{"items": {items}}}',
            }
            for path, body in ways.items():
                headers = {"Content-Type": "application/json"}
                async with at.http.post(path, data=body, headers=headers) as answer:
                    assert answer.status in (200, 400), await answer.text()
                    answered += answer.status == 200 and path == "/v1/responses"
            async with at.http.get(f"/v1/conversations/{conversation}/items?limit=2") as answer:
                assert answer.status == 200
        assert 0 < answered == len(engine.tasks), "nothing is refused once it was answered"
    assert not caplog.records, [each.getMessage() for each in caplog.records]
