"""A deliberation as a model of the OpenAI gateway, asked by the stock client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.deliberation.deliberation_bench import ANN, RUBRIC, Council, bench

from anywire.caller import OPERATOR
from anywire.testing.patience import expect
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.prompts import newest
from anywire_service_deliberation.record import Deliberation

ASKED: Any = [{"role": "user", "content": "Why is the sky blue?"}]
OPTIONS: Any = {"deliberation": {"rubric": RUBRIC, "members": 3}}


@asynccontextmanager
async def serving(folder: Path, engine: Council) -> AsyncIterator[tuple[openai.AsyncOpenAI, KeptDeliberations]]:
    async with bench(folder, engine=engine) as (served, kept):
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(served.context("openai"))
        client = openai.AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0)
        try:
            yield client, kept
        finally:
            await client.close()
            await gateway.close()


async def state_of(kept: KeptDeliberations, answer_id: str) -> Deliberation:
    state = await kept.get(answer_id.removeprefix("chatcmpl-"), OPERATOR)
    assert state is not None
    return state


async def test_the_winner_is_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, Council()) as (client, kept):
        models = [model.id async for model in client.models.list()]
        assert {"deliberate", "deliberate:DEV", "deliberate:QA"} <= set(models)
        asking = client.chat.completions.create(model="deliberate:QA", messages=ASKED, extra_body=OPTIONS)
        answer = await expect(asking, "the answer")
        state = await state_of(kept, answer.id)
        assert answer.choices[0].message.content == newest(state, state.winner).text
        assert answer.usage is not None
        assert answer.usage.total_tokens == 15 * len(state.answers)
        assert answer.model == "deliberate:QA"


async def test_a_stream_has_the_answer_at_its_end_and_tells_how_it_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path, Council()) as (client, kept):
        stream = await expect(
            client.chat.completions.create(model="deliberate:DEV", messages=ASKED, extra_body=OPTIONS, stream=True),
            "it begins",
        )
        chunks = [chunk async for chunk in stream]
        state = await state_of(kept, chunks[0].id)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == newest(state, state.winner).text
        assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == [
            "stop"
        ]
        told: list[Any] = [chunk.model_extra["deliberation"] for chunk in chunks if chunk.model_extra]
        assert [each["status"] for each in told if each["event"] == "stage"][-1] == "scoring"


async def test_what_goes_wrong_is_an_error_of_the_client_library(tmp_path: Path) -> None:
    async with serving(tmp_path, Council(lambda member, kind, asked: "fail")) as (client, kept):
        with pytest.raises(openai.BadRequestError, match="did you mean 'rounds'"):
            await client.chat.completions.create(
                model="deliberate:DEV", messages=ASKED, extra_body={"deliberation": {"roundz": 1}}
            )
        with pytest.raises(openai.APIStatusError, match="0 of 3 members have a proposal"):
            await client.chat.completions.create(model="deliberate:DEV", messages=ASKED, extra_body=OPTIONS)
        assert [state.status for state in await kept.list(OPERATOR)] == ["failed"]
        assert await kept.list(ANN) == []


async def test_a_client_that_goes_away_ends_it(tmp_path: Path) -> None:
    engine = Council()
    engine.hold("critique")
    async with serving(tmp_path, engine) as (client, kept):
        stream = await client.chat.completions.create(
            model="deliberate:DEV", messages=ASKED, extra_body=OPTIONS, stream=True
        )
        first = await anext(aiter(stream))
        await engine.all_asked("critique", 6)
        await stream.close()
        await engine.recorder.until(lambda: len(engine.named("cancelled", "critique")) == 6, "all are stopped")
        waiting = kept.get(first.id.removeprefix("chatcmpl-"), OPERATOR, 60)
        state = await expect(waiting, "it has ended")
        assert state is not None
        assert state.status == "cancelled"
