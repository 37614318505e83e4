"""Numbers that no program can hold are the client's fault, wherever they stand in a request."""

from __future__ import annotations

import json
import logging

import aiohttp
import pytest
from tests.integration.gateway_serving import serving

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

HUGE = ("1e999", "-1e999", "9" * 400, "9" * 5000, "1" + "0" * 30)
MESSAGES = '"messages": [{"role": "user", "content": "x"}]'
BODIES = {
    "/v1/chat/completions": f'{{"model": "m", {MESSAGES}, "max_tokens": 1',
    "/v1/completions": '{"model": "m", "prompt": "x", "max_tokens": 1',
    "/v1/embeddings": '{"model": "m", "input": "x"',
    "/v1/responses": '{"model": "m", "input": "x"',
    "/v1/messages": f'{{"model": "m", {MESSAGES}, "max_tokens": 1',
    "/v1/messages/count_tokens": f'{{"model": "m", {MESSAGES}',
    "/v1/rerank": '{"model": "m", "query": "x", "documents": ["a"], "return_documents": true',
    "/v1/tokenize": '{"model": "m", "prompt": "x"',
    "/v1/images/generations": '{"model": "m", "prompt": "x"',
    "/v1/audio/speech": '{"model": "m", "input": "x", "voice": "v"',
    "/api/chat": f'{{"model": "m", {MESSAGES}, "stream": false',
    "/api/generate": '{"model": "m", "prompt": "x", "stream": false',
    "/api/embed": '{"model": "m", "input": "x"',
    "/api/show": '{"model": "m"',
}
MEMBERS = (
    '"x": N', '"x": {"y": [N]}', '"metadata": {"a": N}', '"format": {"type": "object", "maximum": N}',
    '"options": {"seed": N}',
    '"options": {"num_predict": N, "top_k": N}', '"keep_alive": N', '"seed": N', '"temperature": N', '"top_n": N',
    '"tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": N}}}]', '"think": N',
    '"tools": [{"name": "f", "input_schema": {"type": "object", "maximum": N}}]',
    '"documents": [{"text": "a", "n": N}]',
    '"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"maximum": N}}}',
    '"text": {"format": {"type": "json_schema", "name": "n", "schema": {"maximum": N}}}', '"dimensions": N',
)  # fmt: skip


async def test_a_number_that_is_too_large_is_never_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    answered = 0
    engine = SyntheticEngine(SyntheticConfig(models=["m"], length=1))
    async with serving(engine) as served, aiohttp.ClientSession(served.url) as http:
        for path, body in BODIES.items():
            for member in MEMBERS:
                for huge in HUGE:
                    data = f"{body}, {member.replace('N', huge)}}}".encode()
                    headers = {"Content-Type": "application/json"}
                    async with http.post(path, data=data, headers=headers) as answer:
                        told = await answer.read()
                        assert answer.status < 500, (path, data[:300], told)
                        assert answer.status == 200 or "error" in json.loads(told), (path, told)
                        answered += answer.status == 200
    assert answered > len(BODIES)
    assert not caplog.records, [each.getMessage() for each in caplog.records]
