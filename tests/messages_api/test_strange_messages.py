"""Mutated requests for messages: no answer blames the server, and every error has Anthropic's form."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from tests.integration.fuzzed_requests import Requests
from tests.integration.mutations import seed
from tests.long_form import TIMES
from tests.messages_api.asking import ASK, LOOK, asking
from tests.messages_api.told_messages import checked, events_of, put_together

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

REQUESTS = 300 * TIMES
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PAPER = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
SEEDS: list[dict[str, Any]] = [
    {**ASK, "max_tokens": 4, "stream": True, "stop_sequences": ["a"], "metadata": {"user_id": "u"}, "top_k": 3},
    {
        **ASK,
        "max_tokens": 4,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "what?"}, PICTURE, PAPER]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "I look"},
                    {"type": "tool_use", "id": "t", "name": "look", "input": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a tree"}]},
                    {"type": "text", "text": "look again"},
                ],
            },
        ],
        "tools": [LOOK],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "disabled"},
    },
    {
        **ASK,
        "tools": [LOOK],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low"},
        "stream": True,
    },
    {**ASK, "output_config": {"format": {"type": "json_schema", "schema": LOOK["input_schema"]}}},
]


async def test_no_request_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw = Requests(seed())
    statuses: dict[int, int] = {}
    headers = {"Content-Type": "application/json"}
    async with asking(SyntheticEngine(SyntheticConfig(models=["m"], length=3)), timeout=100) as at:
        for number in range(REQUESTS):
            value = json.loads(json.dumps(SEEDS[number % len(SEEDS)]))
            for _ in range(draw.rng.choice((0, 1, 1, 2, 4))):
                value = draw._changed(value)
            try:
                body = json.dumps(value).encode()
            except (ValueError, RecursionError):
                continue
            if number % 5 == 0:
                body = draw.mutated(body)
            path = "/v1/messages/count_tokens" if number % 7 == 0 else "/v1/messages"
            async with at.http.post(path, data=io.BytesIO(body), headers=headers) as answer:
                data = await answer.read()
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            if answer.status != 200:
                error = json.loads(data)
                assert error["type"] == "error"
                assert {"type", "message", "details"} == error["error"].keys()
                assert answer.status < 500, (body, data)
            elif answer.content_type == "text/event-stream":
                checked(put_together(events_of(data)))
            elif path == "/v1/messages":
                checked(json.loads(data))
            else:
                assert json.loads(data)["input_tokens"] >= 0
    assert not caplog.records, [each.getMessage() for each in caplog.records]
    assert statuses.get(200, 0) > REQUESTS / 20, statuses
