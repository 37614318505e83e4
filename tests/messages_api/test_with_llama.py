"""Messages of real llama.cpp, with a tiny model of random weights: translated, and passed on to its own API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_engine_llama import write_model
from tests.messages_api.asking import LOOK, asking
from tests.messages_api.told_messages import checked, events_of, put_together, said_in

from anywire_engine_llama import LlamaEngine

pytestmark = pytest.mark.timeout(120)
CHAT: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"at": 7}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a tree"}]},
]


@pytest.mark.parametrize("apis", [[], ["messages"]], ids=["translated", "passed-on"])
async def test_llama_takes_every_kind_of_block(tmp_path: Path, apis: list[Any]) -> None:
    model = write_model(tmp_path / "tiny-chat.Q4_K_M.gguf")
    engine = LlamaEngine(LlamaEngine.Config(model=str(model), context=2048, threads=1, apis=apis))
    async with asking(engine, timeout=100) as at:
        (name,) = at.served.context.models()
        ask: dict[str, Any] = {"model": name, "max_tokens": 6, "system": "Be brief"}
        exact: dict[str, Any] = {"extra_body": {"temperature": 0}}
        first = await at.client.messages.create(**ask, **exact, messages=CHAT[:1])
        checked(first.model_dump(mode="json", exclude_unset=True))
        assert (first.stop_reason, first.usage.output_tokens) == ("max_tokens", 6)
        second = await at.client.messages.create(**ask, **exact, messages=CHAT)
        given = second.usage.input_tokens + (second.usage.cache_read_input_tokens or 0)
        assert given > first.usage.input_tokens + (first.usage.cache_read_input_tokens or 0)
        async with at.http.post(
            "/v1/messages", json={**ask, "temperature": 0, "messages": CHAT, "stream": True}
        ) as answer:
            assert answer.status == 200
            streamed = put_together(events_of(await answer.read()))
        assert streamed["content"] == said_in(second.content)
        assert streamed["usage"]["output_tokens"] == 6
        counted = await at.client.messages.with_raw_response.count_tokens(
            model=name, system="Be brief", messages=CHAT, tools=[LOOK]
        )
        assert (await counted.parse()).input_tokens > 10
        assert "x-anywire-estimated" not in counted.headers
        alone = await at.client.messages.count_tokens(model=name, system="Be brief", messages=CHAT)
        assert alone.input_tokens == given, "what is counted is what is read"
        assert at.engine.status().offers[0].features.get("api:messages", False) == bool(apis)
