"""Requests of the allowed size: what a large one may be, and that every way in and every wire takes it alike."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway_serving import Served, says, serving

import anywire_grpc.codec as grpc_codec
import anywire_zeromq.codec as zeromq_codec
from anywire.errors import PayloadTooLarge
from anywire.large_body import LARGE_BYTES
from anywire.messages import TaskRequest
from anywire.request_log import RequestLog
from anywire.roles.fleet import FleetEngine

BOMB = '{"model":"m","messages":[{"role":"user","content":"x"}],"unknown":[' + ",".join(["[]"] * 2_000_000) + "]}"


async def ask(served: Served, body: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{served.url}/v1/chat/completions",
            data=io.BytesIO(body.encode()),
            headers={"Content-Type": "application/json"},
        ) as response,
    ):
        return response.status, await response.json()


async def test_a_photo_of_20_mb_reaches_the_engine() -> None:
    photo = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "A" * 27_000_000}}
    said = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "what? 😀"}, photo]}]}
    engine = says("a cat")
    async with serving(engine) as served:
        status, answer = await ask(served, json.dumps(said, ensure_ascii=False))
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "a cat")
    assert json.loads(engine.tasks[0].body) == said


async def test_two_million_empty_lists_are_refused_with_the_bound() -> None:
    async with serving(says("unused")) as served:
        status, answer = await ask(served, BOMB)
        client = served.client()
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        await client.close()
    assert (status, answer["error"]["code"]) == (413, "payload_too_large")
    assert "30000 lists and objects" in answer["error"]["message"]


async def test_a_task_of_the_client_plane_has_the_same_bounds() -> None:
    async with serving(says("unused")) as served:
        engine = FleetEngine(served.orchestrator, "client", RequestLog(False))
        with pytest.raises(PayloadTooLarge, match="30000 lists and objects"):
            async for _ in engine.run(TaskRequest("h", "t", 1, "chat", "m", BOMB)):
                pass


@pytest.mark.parametrize("space", ["", " "])
async def test_an_integer_of_5000_digits_that_nobody_knows_passes(space: str) -> None:
    body = f'{{"model":"m",{space}"messages":[{{"role":"user","content":"x"}}],"unknown":{"1" * 5000}}}'
    async with serving(says("fine")) as served:
        status, _ = await ask(served, body)
    assert status == 200


async def test_a_member_given_twice_is_found_in_a_large_body_too() -> None:
    body = f'{{"model":"m", "messages":[{{"role":"user","content":"{"x" * 1_000_000}"}}], "m\\u006fdel":"other"}}'
    async with serving(says("unused")) as served:
        status, answer = await ask(served, body)
    assert (status, answer["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("size", [LARGE_BYTES, LARGE_BYTES + 1])
def test_a_large_task_is_the_same_over_zeromq_and_grpc(size: int) -> None:
    task = TaskRequest("h", "t", 2, "chat", "m", "é" * size, True, credit=7, prefer=("a",), hints='{"a":1}')
    assert zeromq_codec.decode(bytes(zeromq_codec.encode(task))) == task
    assert grpc_codec.read_tasks(*grpc_codec.decode_hub_frame(grpc_codec.encode_to_agent(task))) == [task]
