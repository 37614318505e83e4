"""The description of the API: it is OpenAPI 3.1, tells of everything that is served, and changes with that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pydantic
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.integration.gateway_serving import Served, says, serving
from tests.integration.known_keys import KnownKeys, bearer
from tests.responses.conversing import conversing

from anywire.caller import ROLES
from anywire.events import EVENTS
from anywire.offers import Offer
from anywire.route import Request, Response, Route
from anywire_gateway_openai import headers, request_headers
from anywire_gateway_openai.endpoint_table import BASES
from anywire_gateway_openai.errors import CLIENT_GONE, STATUS
from anywire_gateway_openai.openapi import told_headers
from anywire_gateway_openai.openapi.document import document
from anywire_gateway_openai.openapi.form import form_of
from anywire_gateway_openai.openapi.schemas import Schemas

JSON = dict[str, Any]


async def asked(served: Served, path: str = "/openapi.json", **sent: str) -> tuple[int, JSON, Any]:
    async with aiohttp.ClientSession(served.url) as http, http.get(path, headers=sent) as answer:
        return answer.status, json.loads(await answer.read() or b"{}"), answer.headers


def operations(told: JSON) -> dict[tuple[str, str], JSON]:
    return {(method.upper(), path): each for path, of in told["paths"].items() for method, each in of.items()}


async def test_the_document_is_valid_openapi(tmp_path: Path) -> None:
    async with conversing(tmp_path, says("x")) as at:
        status, told, sent = await asked(at.served)
        assert (status, sent["content-type"]) == (200, "application/json")
        OpenAPIV31SpecValidator(told).validate()
        for path in ("/v1/openapi.json", "/api/v1/openapi.json"):
            assert (await asked(at.served, path))[1] == told
        assert told["openapi"].startswith("3.1.")
        ids = [each["operationId"] for each in operations(told).values()]
        assert len(ids) == len(set(ids))
        assert all(each["summary"] for each in operations(told).values())


async def test_every_endpoint_is_told_once_with_its_role(tmp_path: Path) -> None:
    async with conversing(tmp_path, says("x"), KnownKeys(root="operate")) as at:
        endpoints = at.served.gateway.endpoints
        _, told, _ = await asked(at.served, **bearer("root"))
    found = operations(told)
    left = {(each.method, each.path) for each in endpoints} - found.keys()
    # What is not told of is the same at another path.
    for method, path in left:
        base = next(each for each in reversed(BASES) if f"{path}/".startswith(f"{each}/"))
        rest = path.removeprefix(base)
        assert (method, rest or "/") in found or (method, BASES[0] + rest) in found, f"{method} {path} is told nowhere"
    roles = {(each.method, each.path): each.role for each in endpoints}
    for key, operation in found.items():
        role = roles[key]
        assert role is None or role in ROLES
        assert operation["security"] == (
            [{name: [role]} for name in ("bearer", "x-api-key", "api-key")] if role is not None else []
        ), key
        assert ("401" in operation["responses"]) == ("403" in operation["responses"])
        assert role is None or "401" in operation["responses"]


async def test_without_keys_none_is_needed() -> None:
    async with serving(says("x")) as served:
        _, told, _ = await asked(served)
    assert {} in operations(told)["GET", "/v1/models"]["security"]


async def test_every_endpoint_of_the_gateway_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    async with conversing(tmp_path, says("x")) as at:
        for each in at.served.gateway.endpoints:
            where = f"{each.method} {each.path}"
            assert each.summary, f"{where}: the handler needs a docstring, or the route a summary"
            if each.route is None:
                assert form_of(each.handler) is not None, f"{where}: the handler needs @described(Form(…))"
        forms = [each.form for each in at.served.gateway.endpoints]
    kinds = [
        kind
        for form in forms
        for kind in (form.takes, form.gives, form.events, form.lines, form.fault, *form.also.values())
    ]
    assert Schemas(kind for kind in kinds if kind is not None).left_out == []


async def test_every_error_and_event_is_told_of(tmp_path: Path) -> None:
    async with serving(says("x")) as served:
        _, told, _ = await asked(served)
    found = operations(told)
    chat = found["POST", "/v1/chat/completions"]["responses"]
    for cls, status in STATUS.items():
        if status != CLIENT_GONE:
            assert str(status) in chat, cls.__name__
            response = told["components"]["responses"][chat[str(status)]["$ref"].rpartition("/")[2]]
            assert cls.code == "error" or f"`{cls.code}`" in response["description"]
    events = found["GET", "/v1/events"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    one_of = events["properties"]["data"]["contentSchema"]["anyOf"]
    assert one_of[0]["discriminator"]["mapping"].keys() == EVENTS.keys()


def test_every_header_is_told_of() -> None:
    read = {str(name) for name, _, _ in request_headers._READERS} | {"tracestate", "x-request-id"}
    assert told_headers.OF_REQUESTS.keys() == read
    assert told_headers.meanings_of(request_headers).keys() == read
    meant = told_headers.meanings_of(headers)
    assert meant.keys() == told_headers.answer_headers().keys()
    assert all(each["description"] for each in told_headers.answer_headers().values())


async def test_what_is_refused_is_told_with_the_reason() -> None:
    async with serving(says("x")) as served:
        _, told, _ = await asked(served)
    schema = operations(told)["POST", "/v1/responses"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["prompt"]["type"] == "null"
    assert "no prompts are kept here" in schema["properties"]["prompt"]["description"]


async def test_it_is_asked_for_again_only_when_it_has_changed() -> None:
    async with serving(says("x")) as served:
        _, first, sent = await asked(served)
        for tag in (sent["ETag"], f'"other", W/{sent["ETag"]}'):
            status, nothing, again = await asked(served, **{"If-None-Match": tag})
            assert (status, nothing, again["ETag"]) == (304, {}, sent["ETag"])
        served.context.routes.add(Route("GET", "/notes/{id}", _note, summary="Tell a note.", query={"wide": "All."}))
        status, then, others = await asked(served, **{"If-None-Match": sent["ETag"]})
        assert (status, others["ETag"] != sent["ETag"]) == (200, True)
    new = operations(then)["GET", "/v1/notes/{id}"]
    assert new["summary"] == "Tell a note."
    assert [each["name"] for each in new["parameters"][:2]] == ["id", "wide"]
    assert ("GET", "/v1/notes/{id}") not in operations(first)
    assert ("GET", "/api/v1/notes/{id}") not in operations(then)


async def _note(request: Request) -> Response:
    return Response(b"{}")


class Noted(msgspec.Struct):
    text: str


class Error(pydantic.BaseModel):
    """Named like one of the gateway's."""

    why: list[int]


async def test_types_of_services_may_be_pydantics_and_do_no_harm() -> None:
    async with serving(says("x")) as served:
        served.context.routes.add(
            Route("POST", "/a", _note, takes=Noted, gives=(Noted, Error)),
            Route("POST", "/b", _note, takes=object(), gives=[1, 2]),
            Route("PUT", "/c", _note),
        )
        status, told, _ = await asked(served)
        assert status == 200
    OpenAPIV31SpecValidator(told).validate()
    found, schemas = operations(told), told["components"]["schemas"]
    one, other = found["POST", "/v1/a"]["responses"]["2XX"]["content"]["application/json"]["schema"]["anyOf"]
    assert schemas[one["$ref"].rpartition("/")[2]]["properties"].keys() == {"text"}
    assert schemas[other["$ref"].rpartition("/")[2]]["properties"].keys() == {"why"}
    assert schemas["Error"]["properties"].keys() == {"error"}, "the gateway's own"
    assert found["POST", "/v1/b"]["requestBody"]["content"]["application/json"]["schema"] == {}
    assert found["PUT", "/v1/c"]["requestBody"]["required"] is False


def test_a_document_of_nothing() -> None:
    told = document([], BASES, "1", needs_key=True)
    assert told["paths"] == {}
    OpenAPIV31SpecValidator(told).validate()


async def test_models_are_told_with_what_others_call_it(tmp_path: Path) -> None:
    engine = says("x")
    engine.offers = (
        Offer("a", ("chat",), {"tools": True}, context=4096, digest="sha256:1", owner="lab"),
        Offer("b"),
    )
    async with serving(engine) as served, served.client() as client:
        _, told, _ = await asked(served, "/v1/models")
        a, b = told["data"]
        assert (a["context_length"], a["max_model_len"], a["digest"]) == (4096, 4096, "sha256:1")
        assert (a["owned_by"], a["kinds"], a["features"], a["state"]) == ("lab", ["chat"], {"tools": True}, "ready")
        assert (b["context_length"], b["max_model_len"], b["digest"], b["agents"]) == (None, None, None, 1)
        listed = [each async for each in client.models.list()]
        assert [each.id for each in listed] == ["a", "b"]
        assert (await client.models.retrieve("a")).owned_by == "lab"
        assert (await client.models.retrieve("a")).model_extra == {
            name: value for name, value in a.items() if name not in ("id", "object", "created", "owned_by")
        }


def test_a_digest_is_told_where_all_agents_have_the_same() -> None:
    from anywire_gateway_openai.catalogue import CatalogueHandlers, _Offered

    handlers = object.__new__(CatalogueHandlers)
    handlers._created = 0
    for digests, told in ((("x", "x"), "x"), (("x", "y"), None), (("x", ""), None), (("",), None)):
        offered = [_Offered(Offer("m", digest=each), ("chat",), True) for each in digests]
        assert handlers._model("m", offered)["digest"] == told


@pytest.mark.parametrize("path", ["/v1/models", "/v1/agents", "/v1/stats", "/v1/tasks", "/health", "/version", "/"])
async def test_answers_hold_what_is_told_of_them_and_nothing_else(path: str) -> None:
    """Members that the description lacks would be found by nobody."""
    async with serving(says("x")) as served:
        _, told, _ = await asked(served)
        _, found, _ = await asked(served, path)
    schema = operations(told)["GET", path]["responses"]["200"]["content"]["application/json"]["schema"]
    check_members(found, schema, told["components"]["schemas"], path)


def check_members(value: Any, schema: JSON, schemas: JSON, where: str) -> None:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict) and "properties" in schema:
        assert value.keys() <= schema["properties"].keys(), f"{where}: {value.keys() - schema['properties'].keys()}"
        for name, each in value.items():
            check_members(each, schema["properties"][name], schemas, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for each in value:
            check_members(each, schema["items"], schemas, f"{where}[]")
