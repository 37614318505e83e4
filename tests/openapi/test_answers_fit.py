"""Requests that schemathesis makes of the API's description: none fails in the server, and every answer is one that the
description tells of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import jsonschema
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.long_form import SOAK, TIMES, examples
from tests.patience import PATIENCE
from tests.responses.conversing import House, conversing

from anywire.builtin.synthetic import SyntheticConfig, SyntheticEngine

EXAMPLES = {GenerationMode.POSITIVE: 8, GenerationMode.NEGATIVE: 4}
"""Of each operation, of each of the two kinds: bodies that fit the description, and bodies that do not."""
ENDLESS = {("GET", "/v1/events"), ("GET", "/v1/tasks/{id}/follow")}
"""Streams that go on as long as the server, or the task."""
THERE = {
    "/v1/models/{id}": "m",
    "/v1/agents/{id}/restore": "agent-1",
    "/v1/agents/{id}/commands/{name}": "agent-1",
}
"""Names in paths that are there. Half of the requests have them. None by which an agent would be lost to the others."""
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FAULTS = (500, 501, 502)
"""Of a server. That there is no time or no room left may be told to requests that ask for next to nothing."""


def engine() -> SyntheticEngine:
    return SyntheticEngine(SyntheticConfig(models=["m"], length=5))


async def described(at: House) -> dict[str, Any]:
    async with at.http.get("/openapi.json") as answer:
        told: dict[str, Any] = await answer.json()
        return told


def operations(told: dict[str, Any]) -> Iterator[Any]:
    for found in schemathesis.openapi.from_dict(told).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if (operation.method.upper(), operation.path) not in ENDLESS:
            yield operation


def check(operation: Any, url: str, mode: GenerationMode, count: int) -> None:
    """Make requests for one operation, each with all checks. Runs beside the event loop."""

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), pick=hypothesis.strategies.integers(0, 9))
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=not SOAK,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def one(case: Any, pick: int) -> None:
        if pick < 5 and operation.path in THERE:
            case.path_parameters["id"] = THERE[operation.path]
        # A model that is there, or else most requests would end before they begin.
        if pick % 2 and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "m"
        answer = case.call(base_url=url, timeout=PATIENCE)
        assert answer.status_code not in FAULTS, f"{case.as_curl_command()}\n{answer.text}"
        case.validate_response(answer, checks=CHECKS)

    one()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
async def test_answers_fit_the_description(tmp_path: Path, mode: GenerationMode) -> None:
    positive = mode is GenerationMode.POSITIVE
    async with conversing(tmp_path, engine(), timeout=250.0 * TIMES) as at:
        told = await described(at)
        tried = 0
        for operation in operations(told):
            if not positive and not operation.body:
                continue
            try:
                await asyncio.to_thread(check, operation, at.served.url, mode, examples(EXAMPLES[mode]))
            except hypothesis.errors.Unsatisfiable:
                assert not positive  # whatever is sent fits
                continue
            tried += 1
        assert tried >= (15 if positive else 3)


STREAMED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/chat/completions_stream": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "once"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9},
}


@pytest.mark.parametrize("path", STREAMED)
async def test_events_fit_the_description(tmp_path: Path, path: str) -> None:
    async with conversing(tmp_path, engine()) as at:
        told = await described(at)
        body = STREAMED[path] | {"model": "m", "stream": True}
        async with at.http.post(path, json=body) as answer:
            assert answer.content_type == "text/event-stream"
            events = data_of(await answer.text())
    operation = told["paths"][path]["post"]
    schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["properties"]["data"]
    content = schema if "contentSchema" in schema else schema["anyOf"][1]
    validator = jsonschema.Draft202012Validator(content["contentSchema"] | {"components": told["components"]})
    assert len(events) >= 5
    for each in events:
        if each != "[DONE]":
            validator.validate(json.loads(each))


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_lines_fit_the_description(tmp_path: Path, path: str) -> None:
    async with conversing(tmp_path, engine()) as at:
        told = await described(at)
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "prompt": "hello"}
        async with at.http.post(path, json=body) as answer:
            lines = (await answer.text()).splitlines()
    schema = told["paths"][path]["post"]["responses"]["200"]["content"][answer.content_type]["x-line-schema"]
    validator = jsonschema.Draft202012Validator(schema | {"components": told["components"]})
    assert len(lines) >= 5
    for each in lines:
        validator.validate(json.loads(each))


async def test_events_of_the_pipeline_fit_the_description(tmp_path: Path) -> None:
    async with conversing(tmp_path, engine()) as at:
        told = await described(at)
        schema = told["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
        data = schema["properties"]["data"]["contentSchema"]
        validator = jsonschema.Draft202012Validator(data | {"components": told["components"]})
        async with at.http.get("/v1/events", timeout=aiohttp.ClientTimeout(PATIENCE)) as events:
            await events.content.readuntil(b":\n\n")
            await at.client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
            seen: set[str] = set()
            while "task.ended" not in seen:
                for each in data_of((await events.content.readuntil(b"\n\n")).decode()):
                    event = json.loads(each)
                    validator.validate(event)
                    seen.add(event["type"])
    assert seen >= {"task.admitted", "task.dispatched", "attempt.sent", "task.ended"}


def data_of(text: str) -> list[str]:
    """The data of each event."""
    lines = (line for event in text.split("\n\n") for line in event.split("\n"))
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


async def test_a_name_in_a_path_may_hold_a_line_break() -> None:
    async with conversing(None, engine()) as at:
        async with at.http.get("/v1/models/a%0Ab") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
        async with at.http.get("/api/blobs/a%0Ab") as answer:
            assert (answer.status, type((await answer.json())["error"])) == (400, str)
