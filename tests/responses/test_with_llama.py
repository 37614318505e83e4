"""Responses of real llama.cpp, with a tiny model of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_engine_llama import write_model
from tests.responses.conversing import checked, checked_event, conversing

from anywire_engine_llama import LlamaEngine

pytestmark = pytest.mark.timeout(120)


def llama(model: str, **options: Any) -> LlamaEngine:
    return LlamaEngine(LlamaEngine.Config(**{"model": model, "context": 2048, "threads": 1, **options}))


async def test_llama_takes_every_kind_of_item(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny-chat.Q4_K_M.gguf")
    async with conversing(tmp_path, llama(str(model)), timeout=100) as at:
        ask: dict[str, Any] = {"temperature": 0, "max_output_tokens": 6}
        (name,) = at.served.context.models()
        first = checked(await at.client.responses.create(model=name, input="Hello", instructions="Be brief", **ask))
        assert first.usage is not None
        assert (first.status, first.usage.output_tokens) == ("incomplete", 6)
        items: list[Any] = [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "assistant", "content": "Hi"},
            {
                "role": "developer",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            {"role": "user", "content": "And?"},
        ]
        second = checked(
            await at.client.responses.create(model=name, input=items, previous_response_id=first.id, **ask)
        )
        assert second.usage is not None
        assert second.usage.input_tokens > first.usage.input_tokens + 6
        stream = await at.client.responses.create(
            model=name, input=items, previous_response_id=first.id, stream=True, **ask
        )
        events = [checked_event(each) async for each in stream]
        assert events[-1].response.output_text == second.output_text
        assert events[-1].response.usage.total_tokens == second.usage.total_tokens
        form: Any = {
            "type": "json_schema",
            "name": "n",
            "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                       "additionalProperties": False},
        }  # fmt: skip
        structured = await at.client.responses.create(
            model=name, input="x", text={"format": form}, temperature=0, max_output_tokens=64
        )
        assert set(json.loads(structured.output_text)) == {"a"}
