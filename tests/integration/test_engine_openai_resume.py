"""The engine ``openai`` goes on from a text: which servers are asked to, how each is, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.test_engine_llama import engine_for as llama_engine_for
from tests.integration.test_engine_llama import model

from anywire.engine import Delta
from anywire.errors import EngineFailed
from anywire.messages import Kind, TaskRequest

from .fake_openai_server import (
    DONE,
    FakeServer,
    answering,
    collect,
    engine_for,
    event,
    request,
    saying,
    server,
    step,
)

pytestmark = pytest.mark.timeout(60)

__all__ = ["model", "server"]  # fixtures

REST = (step(" three"), step(" four"), step(finish="stop"))
SAID = "one two"
USER = {"role": "user", "content": "hi"}


def resuming(kind: Kind = "chat", text: str = SAID, **body: Any) -> TaskRequest:
    return msgspec.structs.replace(request(kind=kind, **body), resume=text)


def usage(prompt: int, answer: int, **more: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return event({"choices": [], "usage": counts | more})


def told(deltas: list[Delta]) -> dict[str, Any]:
    """The usage at the end of an answer."""
    return dict(json.loads(next(each.usage for each in reversed(deltas) if each.usage)))


def text(deltas: list[Delta]) -> str:
    return "".join(each.text for each in deltas)


@pytest.mark.parametrize(
    ("owner", "setting", "way"),
    [
        ("llamacpp", "auto", "last_message"),
        ("vllm", "auto", "continue_final_message"),
        ("sglang", "auto", "continue_final_message"),
        ("library", "auto", ""),
        (None, "auto", ""),
        ("library", "last_message", "last_message"),
        ("llamacpp", "continue_final_message", "continue_final_message"),
        ("vllm", "never", ""),
    ],
)
async def test_how_a_server_is_asked_to_go_on(server: FakeServer, owner: Any, setting: str, way: str) -> None:
    server.models["data"] = [{"id": "m1", "owned_by": owner}]
    server.handler = answering(*REST, usage(12, 2), DONE)
    server.tokenized = []
    async with engine_for(server.url, resume=setting) as engine:
        assert engine.status().offers[0].features == ({"resume": True} if way else {})
        assert engine.resumable(request()) is bool(way)
        assert "resume" not in engine.capabilities
        if not way:
            with pytest.raises(EngineFailed, match=r"not known to go on from a text \(openai\.resume\)"):
                await collect(engine, resuming())
            return
        deltas = await collect(engine, resuming(temperature=0))
    assert text(deltas) == " three four"
    (sent,) = server.requests
    assert sent["messages"] == [USER, {"role": "assistant", "content": SAID}]
    told_to = (True, False) if way == "continue_final_message" else (None, None)
    assert (sent.get("continue_final_message"), sent.get("add_generation_prompt")) == told_to
    assert (sent["temperature"], sent["stream"]) == (0, True)
    assert server.tokenized == [
        {"content": SAID, "model": "m1", "prompt": SAID, "add_special_tokens": False, "add_special": False}
    ]
    assert told(deltas) == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}


async def test_a_completion_goes_on_from_its_prompt(server: FakeServer) -> None:
    server.handler = answering(
        event({"choices": [{"index": 0, "text": " three", "finish_reason": "stop"}]}), usage(9, 1), DONE
    )
    server.tokenized = []
    async with engine_for(server.url, resume="last_message") as engine:
        deltas = await collect(engine, resuming("completion"))
    assert text(deltas) == " three"
    assert server.requests[0]["prompt"] == f"hi{SAID}"
    assert told(deltas)["completion_tokens"] == 3


async def test_the_length_asked_for_holds_for_the_whole(server: FakeServer) -> None:
    server.handler = answering(*REST, usage(12, 2), DONE)
    server.tokenized = []
    async with engine_for(server.url, resume="last_message", default_max_tokens=7) as engine:
        for body in ({"max_tokens": 10}, {"max_completion_tokens": 10}, {}, {"max_tokens": None}):
            await collect(engine, resuming(**body))
    names = ("max_tokens", "max_completion_tokens")
    assert [tuple(each.get(name) for name in names) for each in server.requests] == [
        *((8, None), (None, 8), (5, None), (5, None))
    ]


async def test_of_an_answer_that_was_whole_only_its_usage_is_asked_for(server: FakeServer) -> None:
    server.handler = answering(step(" unwanted"), step(finish="length"), usage(12, 1), DONE)
    server.tokenized = []
    async with engine_for(server.url, resume="last_message") as engine:
        deltas = await collect(engine, resuming(max_tokens=2))
    assert server.requests[0]["max_tokens"] == 1
    assert text(deltas) == ""
    assert [each.finish_reason for each in deltas if each.finish_reason] == ["length"]
    assert told(deltas) == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


async def test_an_answer_that_had_only_to_end_ends(server: FakeServer) -> None:
    """Without a token, which is a failure of any other answer."""
    server.handler = answering(step(finish="stop"), usage(12, 0), DONE)
    async with engine_for(server.url, resume="last_message") as engine:
        assert [each.finish_reason for each in await collect(engine, resuming())] == ["stop", ""]
        server.handler = answering(step(finish="stop"), usage(12, 0), DONE)
        with pytest.raises(EngineFailed, match="without a single token"):
            await collect(engine, request())


async def test_a_server_that_does_not_count_is_estimated(server: FakeServer) -> None:
    server.handler = answering(*REST, usage(30, 2, prompt_tokens_details={"cached_tokens": 28}), DONE)
    async with engine_for(server.url, resume="last_message") as engine:
        deltas = await collect(engine, resuming(text="x" * 40))
    details = {"cached_tokens": 20}
    assert told(deltas) == {
        "prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32, "prompt_tokens_details": details,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "with tools"),
        ("chat", {"logprobs": True}, "with logprobs"),
        ("chat", {"n": 2}, "with n"),
        ("chat", {"guided_json": {"type": "object"}}, "with guided_json"),
        ("chat", {"regex": "a+"}, "with regex"),
        ("completion", {"echo": True}, "with echo"),
        ("completion", {"suffix": "x"}, "with suffix"),
        ("completion", {"prompt": ["a", "b"]}, "only a chat"),
        ("chat", {"messages": [USER, {"role": "assistant", "content": "la"}]}, "not to be continued"),
    ],
)
async def test_what_cannot_be_resumed_is_known_before(
    server: FakeServer, kind: Kind, body: dict[str, Any], message: str
) -> None:
    async with engine_for(server.url, resume="continue_final_message") as engine:
        assert not engine.resumable(request(kind=kind, **body))
        with pytest.raises(EngineFailed, match=message):
            await collect(engine, resuming(kind, **body))
    assert server.requests == []


async def test_a_message_that_the_client_had_continued_is_continued(server: FakeServer) -> None:
    server.handler = answering(*REST, DONE)
    given: dict[str, Any] = {
        "messages": [USER, {"role": "assistant", "content": "la "}],
        "continue_final_message": True,
    }
    async with engine_for(server.url, resume="continue_final_message") as engine:
        assert engine.resumable(request(**given))
        await collect(engine, resuming(**given))
    assert server.requests[0]["messages"] == [USER, {"role": "assistant", "content": f"la {SAID}"}]


async def test_a_server_that_refuses_is_no_fault_of_the_client(server: FakeServer) -> None:
    refusal = {"error": {"message": "Assistant response prefill is incompatible with enable_thinking."}}
    server.handler = saying(400, refusal)
    async with engine_for(server.url, resume="last_message") as engine:
        with pytest.raises(EngineFailed, match="does not resume this answer: Assistant response prefill") as caught:
            await collect(engine, resuming())
    assert caught.value.status == 400


# A real server


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_llama_cpp_goes_on_token_by_token(model: Path, kind: Kind) -> None:
    """Wherever the text is cut: the whole is the same, and so is its usage."""
    async with (
        llama_engine_for(model) as running,
        engine_for(f"{running.address}/v1", api_key=running.key) as engine,
    ):
        assert engine.status().offers[0].features["resume"] is True
        asked = msgspec.structs.replace(
            request(kind=kind, max_tokens=12, temperature=0), model=engine.status().models[0]
        )
        assert engine.resumable(asked)
        whole = await collect(engine, asked)
        tokens = [each.text for each in whole if each.text]
        assert len(tokens) == 12
        for cut in range(1, len(tokens) + 1):
            said = "".join(tokens[:cut])
            rest = await collect(engine, msgspec.structs.replace(asked, resume=said))
            assert said + text(rest) == text(whole), f"cut after {cut} tokens"
            assert [each.finish_reason for each in rest if each.finish_reason] == ["length"]
            counts = ("prompt_tokens", "completion_tokens", "total_tokens")
            assert {name: told(rest)[name] for name in counts} == {name: told(whole)[name] for name in counts}
