"""Existing clients of the llama.cpp DDS service: in C, looking into their reader without a pause, several at once, each
with the configuration file of its own Cyclone DDS."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.c_peers.toolchain import UNICAST, WARNINGS, needs_toolchain
from tests.integration.gateway_serving import ScriptedEngine, says, serving
from tests.integration.llama_processes import ClientProcess
from tests.long_form import SOAK, examples
from tests.patience import PATIENCE

from anywire.engine import Delta
from anywire.messages import TaskRequest
from anywire.offers import offers
from anywire_dds.llama_text import mended_request, with_request_id
from anywire_dds.llama_types import (
    REQUEST_TOPIC,
    ChatCompletionResponse,
    pack,
    unpack,
)
from anywire_gateway_llama_dds import LlamaDdsGateway, LlamaDdsGatewayConfig

SOURCES = Path(__file__).parents[1] / "c_peers"
IDL = Path(__file__).parents[2] / "idl" / "LlamaDDS.idl"
CLIENTS = 4
REQUESTS = 50 if SOAK else 10
"""Of each client."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c_client")
    subprocess.run(["idlc", "-o", str(folder), str(IDL)], check=True)
    program = folder / "client"
    sources = [SOURCES / "client.c", folder / "LlamaDDS.c"]
    subprocess.run(["gcc", *WARNINGS, f"-I{folder}", "-o", program, *sources, "-lddsc"], check=True)
    return program


@pytest.fixture
def own_file(tmp_path: Path) -> str:
    """As existing set-ups export it: a file, whose root names the schema."""
    file = tmp_path / "cyclonedds.xml"
    root = (
        "<CycloneDDS xmlns='https://cdds.io/config' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' "
        "xsi:schemaLocation='https://cdds.io/config https://raw.githubusercontent.com/eclipse-cyclonedds/cyclonedds/"
        "master/etc/cyclonedds.xsd'>"
    )
    file.write_text("<?xml version='1.0' encoding='UTF-8' ?>\n" + UNICAST.replace("<CycloneDDS>", root))
    return file.as_uri()


HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "llama-dds.md"


@pytest.mark.parametrize("number", range(2))
async def test_the_how_to_s_examples_answer_what_a_client_has_built_in(dds_domain: int, number: int) -> None:
    """With a model that has the name of the default engine's."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", HOW_TO.read_text(), flags=re.MULTILINE | re.DOTALL)
    examples = [yaml.safe_load(block)["gateways"]["llama_dds"] for block in blocks if "models:" in block]
    engine = says("hello")
    engine.offers = offers("SmolLM2-135M-Instruct")
    async with serving(engine) as served:
        here = {"domain": dds_domain, "interface": "127.0.0.1"}
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(**examples[number] | here))
        await front.start(served.context)
        client: ClientProcess = await ClientProcess.start("client", dds_domain)
        await client.served()
        for model in ("llama-3-8b", "default", ""):
            client.ask(model or "none", model=model)
            assert (await client.answer(model or "none"))[-1]["content"] == "hello"
        await client.end()
        await front.close()


def says_the_prompt() -> ScriptedEngine:
    """A word at a time."""

    async def script(task: TaskRequest) -> AsyncGenerator[Delta, None]:
        for word in json.loads(task.body)["messages"][-1]["content"].split(" "):
            yield Delta(f"{word} ")
            await asyncio.sleep(0.002)

    return ScriptedEngine(script)


@asynccontextmanager
async def gateway(domain: int) -> AsyncIterator[ScriptedEngine]:
    engine = says_the_prompt()
    async with serving(engine) as served:
        # As it is by default; the clients use no multicast.
        front = LlamaDdsGateway(LlamaDdsGatewayConfig(domain=domain, models={"*": "m"}))
        await front.start(served.context)
        try:
            yield engine
        finally:
            await front.close()


async def answers(program: Path, own_file: str, *arguments: Any) -> list[list[str]]:
    """What the client tells of each request: id, reason, responses, text."""
    process = await asyncio.create_subprocess_exec(
        program,
        *(os.fsencode(str(each)) for each in arguments),
        env={**os.environ, "CYCLONEDDS_URI": own_file},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [line.split("\t") for line in out.decode(errors="surrogateescape").splitlines()]


@asynccontextmanager
async def busy_host() -> AsyncIterator[None]:
    """Every core has something else to do."""
    burning = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            await process.wait()


@needs_toolchain
@pytest.mark.timeout(600)
async def test_no_final_is_lost_to_clients_that_look_without_a_pause(
    program: Path, dds_domain: int, own_file: str
) -> None:
    async with gateway(dds_domain) as engine, busy_host():
        prompt = " ".join(f"word{number}" for number in range(8))
        asked = await asyncio.gather(
            *(
                answers(program, own_file, dds_domain, f"client-{name}", REQUESTS, 2 * PATIENCE, "both", prompt)
                for name in range(CLIENTS)
            )
        )
    assert [(each[0], each[1]) for client in asked for each in client] == [
        (f"client-{name}-{number}", "stop") for name in range(CLIENTS) for number in range(REQUESTS)
    ]
    assert len(engine.tasks) == CLIENTS * REQUESTS


@needs_toolchain
async def test_bytes_that_are_no_text_are_answered(program: Path, dds_domain: int, own_file: str) -> None:
    odd = b"a \xc3( \xff \xe2\x82 b \xc3\xa9".decode(errors="surrogateescape")
    async with gateway(dds_domain):
        for mode in ("whole", "stream"):
            ((_, reason, _, text),) = await answers(program, own_file, dds_domain, "plain", 1, PATIENCE, mode, odd)
            assert (reason, text) == ("stop", "a ?( ? ?? b é ")
        name = f"name{odd.split()[2]}"
        ((request_id, reason, _, text),) = await answers(program, own_file, dds_domain, name, 1, PATIENCE, "whole", "x")
        assert (request_id, reason, text) == (f"{name}-0", "stop", "x ")


raw_text = st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"x"))


def written(request_id: bytes, model: bytes, messages: list[tuple[bytes, bytes]], stops: list[bytes]) -> bytes:
    """The sample of a request as C writes it (CDR, little endian), which asks nobody what the texts are."""
    data = bytearray()

    def number(value: int) -> None:
        data.extend(bytes(-len(data) % 4) + value.to_bytes(4, "little"))

    def text(raw: bytes) -> None:
        number(len(raw) + 1)
        data.extend(raw + b"\0")

    text(request_id)
    text(model)
    number(len(messages))
    for message in messages:
        for each in message:
            text(each)
    number(int.from_bytes(struct.pack(">f", 0.7)))
    number(2**32 - 1)
    data.append(1)
    number(1)
    number(int.from_bytes(struct.pack(">f", 0.5)))
    number(1)
    number(1)
    number(len(stops))
    for each in stops:
        text(each)
    return b"\0\1\0\0" + bytes(data) + bytes(-len(data) % 4)


@settings(max_examples=examples(100))
@given(raw_text, raw_text, st.lists(st.tuples(raw_text, raw_text), max_size=3), st.lists(raw_text, max_size=2))
def test_only_what_is_no_text_is_changed(
    request_id: bytes, model: bytes, messages: list[tuple[bytes, bytes]], stops: list[bytes]
) -> None:
    mended, raw_id = mended_request(written(request_id, model, messages, stops))
    assert raw_id == request_id
    request = unpack(REQUEST_TOPIC, mended)
    said = [request.request_id, request.model]
    for each in request.messages:
        said += [each.role, each.content]
    for text, raw in zip([*said, *request.stop], [request_id, model, *itertools.chain(*messages), *stops], strict=True):
        assert len(text.encode()) == len(raw)
        try:
            assert text == raw.decode()
        except UnicodeDecodeError:
            assert "?" in text
    assert (request.max_tokens, request.stream, request.top_p, request.n) == (-1, True, [0.5], [1])
    assert request.temperature == pytest.approx(0.7)
    said_again = ChatCompletionResponse(request.request_id, "m", "x", "stop", True, 1, 1)
    response = with_request_id(pack(said_again), request_id)
    assert response[8 : 9 + len(request_id)] == request_id + b"\0"
    assert len(response) == len(pack(said_again))


@settings(max_examples=examples(200))
@given(st.binary(max_size=64))
def test_any_bytes_are_mended_or_refused(data: bytes) -> None:
    try:
        mended, _ = mended_request(data)
    except ValueError:
        return
    assert len(mended) == len(data)
