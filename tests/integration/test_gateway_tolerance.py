"""Requests that are almost right, codings of bodies, ids of requests, and how much memory bodies may take."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import zlib
from typing import Any

import aiohttp
import pytest
from yarl import URL

from anywire_gateway_openai.body import BodyRoom
from anywire_gateway_openai.content_coding import DECODERS
from anywire_gateway_openai.errors import HttpError

from .gateway_serving import MESSAGES, hangs, says, serving

CHAT = {"model": "m", "messages": MESSAGES}
TEXT = json.dumps(CHAT).encode()
JSON = {"Content-Type": "application/json"}


# Paths


@pytest.mark.parametrize("path", [
    "/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/v1/chat//completions//",
    "/chat/completions", "/chat/completions/", "/api/v1/chat/completions/", "/v1/chat/completions?x=1",
])  # fmt: skip
async def test_a_slash_or_a_base_too_many_or_too_few_is_no_matter(path: str) -> None:
    async with serving(says("x")) as served, aiohttp.ClientSession() as client:
        url = URL(served.url + path, encoded=True)
        answer = await client.post(url, json=CHAT)
        assert answer.status == 200


@pytest.mark.parametrize(("path", "meant"), [
    ("/v1/v1/chat/completions", "/v1/chat/completions"), ("/V1/chat/completions", "/v1/chat/completions"),
    ("/v1/V1/models", "/v1/models"), ("/api/v1/v1/embeddings", "/v1/embeddings"),
    ("/v1/Chat/Completions", "/v1/chat/completions"),
])  # fmt: skip
async def test_the_path_that_was_meant_is_named(path: str, meant: str) -> None:
    async with serving(says("x")) as served, aiohttp.ClientSession(served.url) as client:
        async with client.post(path, json=CHAT) as answer:
            assert answer.status == 404
            assert f"did you mean {meant}?" in (await answer.json())["error"]["message"]
        async with client.post("/v1/nothing", json=CHAT) as answer:
            assert "did you mean" not in (await answer.json())["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_and_lists_with_a_slash_answer(method: str) -> None:
    async with serving(says("x")) as served, aiohttp.ClientSession(served.url) as client:
        for path in ("/", "/v1/models/", "/models", "/v1/models/m/"):
            async with client.request(method, path) as answer:
                assert answer.status == 200


# Content codings


def encoded(coding: str, body: bytes = TEXT) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return gzip.compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    if coding == "bare deflate":
        bare = zlib.compressobj(wbits=-15)
        return bare.compress(body) + bare.flush()
    if coding == "br":
        return bytes(importlib.import_module("brotli").compress(body))
    name = "compression.zstd" if importlib.util.find_spec("compression") else "backports.zstd"
    return bytes(importlib.import_module(name).compress(body))


CODINGS = ["gzip", "x-gzip", "deflate", "bare deflate", *sorted(DECODERS.keys() & {"br", "zstd"})]


async def post(url: str, body: bytes, coding: str) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession(url) as client:
        headers = JSON | {"Content-Encoding": coding.removeprefix("bare ")}
        async with client.post("/v1/chat/completions", data=body, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_body_may_be_encoded(coding: str) -> None:
    async with serving(says("x"), max_body_bytes=100_000) as served:
        status, answer, _ = await post(served.url, encoded(coding), coding)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "x")
        for at in (1, -1):
            status, answer, _ = await post(served.url, encoded(coding)[:at], coding)
            assert (status, answer["error"]["code"]) == (400, "invalid_request")
            assert "cut off" in answer["error"]["message"]
        status, answer, _ = await post(served.url, TEXT, coding)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
        status, answer, _ = await post(served.url, encoded(coding, b" " * 10_000_000), coding)
        assert (status, answer["error"]["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("size", [0, 200_000])
async def test_a_byte_order_mark_is_passed_over(size: int) -> None:
    engine = says("x")
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * size}]}).encode()
    async with (
        serving(engine) as served,
        aiohttp.ClientSession(served.url) as client,
        client.post("/v1/chat/completions", data=b"\xef\xbb\xbf" + body, headers=JSON) as answer,
    ):
        assert answer.status == 200
    assert engine.tasks[0].body == body.decode()


async def test_several_codings_and_several_members_are_undone() -> None:
    async with serving(says("x")) as served:
        assert (await post(served.url, gzip.compress(zlib.compress(TEXT)), "deflate, gzip"))[0] == 200
        assert (await post(served.url, gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), "GZIP"))[0] == 200
        assert (await post(served.url, TEXT, "identity"))[0] == 200
        assert (await post(served.url, gzip.compress(TEXT) + b"x", "gzip"))[0] == 400
        assert (await post(served.url, zlib.compress(TEXT) + b"x", "deflate"))[0] == 400


@pytest.mark.parametrize("coding", ["foo", "gzip, foo", "compress", "gzip, gzip, gzip, gzip"])
async def test_other_codings_are_refused_with_those_that_do(coding: str) -> None:
    async with serving(says("x")) as served:
        status, answer, headers = await post(served.url, TEXT, coding)
        assert (status, answer["error"]["code"]) == (415, "unsupported_content_encoding")
        assert {"gzip", "deflate"} <= set(headers["Accept-Encoding"].split(", "))


# Ids


async def test_every_answer_has_a_request_id_and_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(says("x")) as served, aiohttp.ClientSession(served.url) as client:
        ids = []
        for path, body in [
            ("/v1/chat/completions", CHAT), ("/v1/chat/completions", CHAT | {"stream": True}),
            ("/v1/chat/completions", {}), ("/v1/nothing", {}),
        ]:  # fmt: skip
            async with client.post(path, json=body) as answer:
                ids.append(answer.headers["x-request-id"])
        async with client.get("/v1/models") as answer:
            ids.append(answer.headers["x-request-id"])
        assert len(set(ids)) == 5
        assert all(each in caplog.text for each in ids[:4])
        for given, kept in [("abc-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("\u00e9", False)]:
            headers = {"x-request-id": given}
            async with client.post("/v1/chat/completions", json=CHAT, headers=headers) as answer:
                assert (answer.headers["x-request-id"] == given) is kept
        raw = await served.raw({})
        raw.writer.write(b"\x00\r\n\r\n")
        assert b"x-request-id: req-" in (await raw.reader.read())
        await raw.close()


async def test_the_official_client_knows_the_id() -> None:
    async with serving(says("x")) as served, served.client() as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        assert answer._request_id
        assert answer._request_id.startswith("req-")


async def test_trace_state_goes_with_the_task() -> None:
    engine = says("x")
    parent, longest = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=" + "x" * 510
    async with serving(engine) as served, aiohttp.ClientSession(served.url) as client:
        for state in ("a=1,b=2", longest, "x" * 513, ""):
            async with client.post(
                "/v1/chat/completions", json=CHAT, headers={"traceparent": parent, "tracestate": state}
            ) as answer:
                assert answer.status == 200
        async with client.post("/v1/chat/completions", json=CHAT, headers={"tracestate": "a=1"}):
            pass
    assert [task.trace for task in engine.tasks] == [f"{parent} a=1,b=2", f"{parent} {longest}", parent, parent, ""]


# Memory


async def test_a_photo_as_a_data_url_passes_by_default() -> None:
    engine = says("x")
    url = "data:image/jpeg;base64," + "A" * 9_000_000
    parts: Any = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with serving(engine) as served, served.client() as client:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert url in engine.tasks[0].body


def test_a_share_of_the_room_is_given_back_whole() -> None:
    room = BodyRoom(10)
    with room.share() as one, room.share() as other:
        one.take(6)
        with pytest.raises(HttpError, match="6 bytes together, of at most 10"):
            other.take(5)
        other.take(4)
        one.give_back(2)
        assert room.free == 2
    assert room.free == 10


async def test_bodies_under_way_have_one_bound_together() -> None:
    engine = hangs()
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 6000}]}
    async with serving(engine, max_body_bytes=8000, max_bodies_bytes=10_000) as served:
        held = await served.raw(body)
        await engine.began.wait()
        async with aiohttp.ClientSession(served.url) as client:
            async with client.post("/v1/chat/completions", json=body) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "overloaded")
                assert int(answer.headers["Retry-After"]) >= 1
            async with client.get("/v1/models") as answer:
                assert answer.status == 200
            await held.close()
            await engine.cancelled.wait()
            engine.script = says("x").script
            while True:  # the first one's bytes are given back a moment after its cancel
                async with client.post("/v1/chat/completions", json=body) as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0)
