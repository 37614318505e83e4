"""Routes of services in the OpenAI gateway: found, refused, bounded, streamed, whoever asks and whatever they do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from anywire.access import OpenAccess
from anywire.caller import ANYBODY, Caller
from anywire.context import Context
from anywire.errors import ConfigError, InvalidRequest
from anywire.offers import Offer, offers
from anywire.route import EventStream, Request, Response, Route, ServerSentEvent
from anywire.service import Service, ServiceConfig
from anywire.testing.doubles import MODEL
from anywire.testing.patience import expect
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig

PAGE = "http://localhost:3000"


class Events:
    """Server-sent events that go on until they are closed; being cancelled does not close them."""

    def __init__(self, *first: ServerSentEvent, fault: Exception | None = None, ends: bool = True) -> None:
        self._first, self._fault, self._ends = list(first), fault, ends
        self.closed = asyncio.Event()

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> ServerSentEvent:
        if self._first:
            return self._first.pop(0)
        if self._fault is not None:
            raise self._fault
        if not self._ends:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed.set()


@asynccontextmanager
async def serving(tmp_path: Path, *routes: Route, **options: Any) -> AsyncIterator[tuple[Any, aiohttp.ClientSession]]:
    """The gateway with these routes, and a client whose paths begin at the server's root."""
    async with service_bench(state=tmp_path) as bench:
        bench.routes.add(*routes)
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0, **options))
        await gateway.start(bench.context("openai"))
        try:
            async with aiohttp.ClientSession(gateway.address) as client:
                yield bench, client
        finally:
            await gateway.close()


async def echo(request: Request) -> Response:
    names = ",".join(f"{name}={value}" for name, value in request.names.items())
    text = f"{request.method} {request.path} {names} {dict(request.query)} {request.body.decode()}"
    return Response(f"{text} {request.headers.get('x-own')} {request.caller.role}".encode(), 201, "text/plain")


async def test_a_route_is_served_below_both_bases_with_its_names(tmp_path: Path) -> None:
    async with serving(tmp_path, Route("POST", "/boxes/{box}/things/{thing}", echo)) as (_, client):
        for base in ("/v1", "/api/v1"):
            path = f"{base}/boxes/b%201/things/t"
            async with client.post(f"{path}?q=1", data=b"hello", headers={"X-Own": "h"}) as answer:
                assert answer.status == 201
                assert answer.content_type == "text/plain"
                told = "box=b 1,thing=t {'q': '1'} hello h operate"
                assert await answer.text() == f"POST {base}/boxes/b 1/things/t {told}"
        for path in ("/boxes/b/things/t", "/v1/boxes/b/things", "/v1/boxes/a/b/things/t", "/v1/boxes//things/t"):
            async with client.post(path) as answer:
                assert answer.status == 404


async def test_a_route_at_the_root_has_one_place_and_may_let_everybody_in(tmp_path: Path) -> None:
    page = Route("GET", "/page/{file}", echo, role=None, at_root=True)
    async with serving(tmp_path, page, Route("GET", "/page/{file}", echo)) as (bench, client):
        async with client.get("/page/a.js") as answer:
            assert (answer.status, await answer.text()) == (201, "GET /page/a.js file=a.js {}  None use")
        async with client.get("/v1/page/a.js") as answer:
            assert (answer.status, await answer.text()) == (201, "GET /v1/page/a.js file=a.js {}  None operate")
        with pytest.raises(ValueError, match=re.escape("there is a route GET /page/{file} already")):
            bench.routes.add(page)
        bench.routes.add(Route("GET", "/healthz", echo, role=None, at_root=True))
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/v1/healthz")).status == 404


async def test_other_methods_are_told_which_there_are(tmp_path: Path) -> None:
    async with serving(tmp_path, Route("GET", "/x", echo), Route("DELETE", "/x", echo)) as (_, client):
        async with client.put("/v1/x") as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET, DELETE"
        async with client.head("/v1/x") as answer:
            assert answer.status == 201


async def test_paths_without_names_and_the_gateways_own_win(tmp_path: Path) -> None:
    async def newest(request: Request) -> Response:
        return Response(b"newest")

    routes = (Route("GET", "/x/{id}", echo), Route("GET", "/x/newest", newest), Route("GET", "/models", newest))
    async with serving(tmp_path, *routes) as (_, client):
        assert await (await client.get("/v1/x/newest")).text() == "newest"
        assert "id=1" in await (await client.get("/v1/x/1")).text()
        assert (await (await client.get("/v1/models")).json())["object"] == "list"


async def test_routes_that_are_not_where_they_seem_to_be_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (bench, client):
        paths = ("/models", "/tasks/{id}/notes", "/v1/usage", "/v10", "/usage")
        bench.context("accounts").routes.add(*(Route("GET", path, echo) for path in paths))
        bench.context("others").routes.add(Route("GET", "/later", echo))
        told = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert told == [
            "the route GET /models of the service accounts is not served: the gateway has this path itself; "
            "choose another path",
            "the route GET /tasks/{id}/notes of the service accounts is not served: the gateway has this path itself; "
            "choose another path",
            "the route GET /v1/usage of the service accounts is served at /v1/v1/usage: the path of a route is below "
            "/v1, leave that out",
        ]
        assert (await client.get("/v1/v1/usage")).status == 201
        assert (await client.get("/v1/usage")).status == 201


async def test_a_services_failure_at_a_route_is_answered_and_counted(tmp_path: Path) -> None:
    async def breaks(request: Request) -> Response:
        raise ConnectionError("a secret of the service")

    async with serving(tmp_path) as (bench, client):
        bench.context("broken").routes.add(Route("GET", "/x", breaks))
        async with client.get("/v1/x") as answer:
            assert answer.status == 500
            error = (await answer.json())["error"]
            assert (error["code"], "service broken" in error["message"]) == ("plugin_failed", True)
            assert "secret" not in error["message"]
        assert bench.orchestrator.stats()["plugin_failures"] == {"service broken.GET /x": 1}


async def test_a_services_model_has_no_agent(tmp_path: Path) -> None:
    class Echo(Service):
        name = "echo"

        async def start(self, context: Context) -> None: ...
        async def close(self) -> None: ...

        def offers(self) -> tuple[Offer, ...]:
            return offers("echo")

    async with service_bench(Echo(ServiceConfig()), state=tmp_path) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        try:
            async with aiohttp.ClientSession(gateway.address) as client:
                listed = (await (await client.get("/v1/models")).json())["data"]
                assert {each["id"]: each["agents"] for each in listed} == {"echo": 0, MODEL: 1}
                assert (await (await client.get("/v1/models/echo")).json())["agents"] == 0
        finally:
            await gateway.close()


@pytest.mark.parametrize("path", ["/x/{1}", "/x/{a}/{a}"])
async def test_names_that_are_none_are_refused_and_harm_no_other_route(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, Route("GET", "/x", echo)) as (bench, client):
        with pytest.raises(ValueError, match="different names"):
            bench.routes.add(Route("GET", path, echo))
        bench.routes.add(Route("GET", "/late", echo))
        assert (await client.get("/v1/late")).status == 201


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response(b"x", 99999), 500),
        (Response(b"x", 100), 500),
        (Response(b"x", "200"), 500),  # type: ignore[arg-type]
        (Response(b"x", content_type="text/plain\r\nX-Own: 1"), 200),
    ],
)
async def test_an_answer_that_is_no_http_is_answered_all_the_same(
    tmp_path: Path, response: Response, status: int
) -> None:
    async def handler(request: Request) -> Response:
        return response

    async with serving(tmp_path, Route("GET", "/x", handler)) as (_, client), client.get("/v1/x") as answer:
        assert answer.status == status
        assert "X-Own" not in answer.headers


async def test_a_route_that_is_added_later_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as (bench, client):
        assert (await client.get("/v1/late")).status == 404
        bench.routes.add(Route("GET", "/late", echo))
        assert (await client.get("/v1/late")).status == 201


@pytest.mark.parametrize(("role", "status"), [("use", 201), ("observe", 403), ("operate", 403)])
async def test_a_role_is_asked_for_without_keys_too(
    tmp_path: Path, role: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[Caller] = [ANYBODY]
    monkeypatch.setattr(OpenAccess, "caller", lambda self, presented: callers[0])
    async with serving(tmp_path, Route("GET", "/x", echo, role=role)) as (_, client):
        async with client.get("/v1/x") as answer:
            assert answer.status == status
            if status == 403:
                error = (await answer.json())["error"]
                assert (error["code"], answer.headers["x-should-retry"]) == ("forbidden", "false")
        callers[0] = Caller(role=role)
        assert (await client.get("/v1/x")).status == 201


async def test_a_body_over_the_routes_limit_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, Route("POST", "/x", echo, body_limit=10)) as (_, client):
        assert (await client.post("/v1/x", data=b"x" * 10)).status == 201
        assert (await client.post("/v1/x", data=b"x" * 11)).status == 413


async def test_what_a_handler_raises_is_an_error_of_its_own(tmp_path: Path) -> None:
    async def refuses(request: Request) -> Response:
        raise InvalidRequest("not like this", param="q")

    async def breaks(request: Request) -> Response:
        raise ValueError("a secret of the service")

    async def gives_nonsense(request: Request) -> Any:
        return "text"

    routes = [Route("GET", f"/{each.__name__}", each) for each in (refuses, breaks, gives_nonsense)]
    async with serving(tmp_path, *routes) as (_, client):
        async with client.get("/v1/refuses") as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "q"
        for path in ("breaks", "gives_nonsense"):
            async with client.get(f"/v1/{path}") as answer:
                assert answer.status == 500
                assert "secret" not in await answer.text()
        assert (await client.get("/health")).status == 200


async def test_pages_elsewhere_are_asked_about_and_told(tmp_path: Path) -> None:
    async with serving(tmp_path, Route("GET", "/x", echo), Route("PUT", "/x", echo)) as (_, client):
        asking = {"Origin": PAGE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-own"}
        async with client.options("/v1/x", headers=asking) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Access-Control-Allow-Methods"] == "GET, PUT"
            assert answer.headers["Access-Control-Allow-Headers"] == "x-own"
        async with client.get("/v1/x", headers={"Origin": PAGE}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        for method in ("GET", "OPTIONS"):
            async with client.request(method, "/v1/x", headers={"Origin": "http://evil.example"}) as answer:
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers


async def test_events_are_streamed_and_end(tmp_path: Path) -> None:
    events = Events(ServerSentEvent("one\ntwo", "kind\nforged: x", "7"), ServerSentEvent(""))

    async def handle(request: Request) -> EventStream:
        return EventStream(events, {"x-own": "h", "Content-Length": "3"})

    async with serving(tmp_path, Route("GET", "/x", handle)) as (_, client):
        async with client.get("/v1/x") as answer:
            assert answer.content_type == "text/event-stream"
            assert answer.headers["x-own"] == "h"
            text = await answer.text()
        assert text == ": begin\n\nevent: kind forged: x\nid: 7\ndata: one\ndata: two\n\ndata: \n\n: end\n\n"
        assert events.closed.is_set()
        assert (await client.get("/health")).status == 200, "the connection goes on"


async def test_events_that_break_off_say_so(tmp_path: Path) -> None:
    async def handle(request: Request) -> EventStream:
        return EventStream(Events(ServerSentEvent("1"), fault=ConfigError("no more")))

    async with serving(tmp_path, Route("GET", "/x", handle)) as (_, client):
        text = await (await client.get("/v1/x")).text()
        assert text.startswith(": begin\n\ndata: 1\n\nevent: error\ndata: ")
        assert "no more" in text


async def test_events_are_closed_when_their_client_goes_away(tmp_path: Path) -> None:
    events = Events(ServerSentEvent("1"), ends=False)

    async def handle(request: Request) -> EventStream:
        return EventStream(events)

    async with serving(tmp_path, Route("GET", "/x", handle)) as (_, client):
        answer = await client.get("/v1/x")
        await expect(answer.content.readuntil(b"data: 1\n\n"), "the first event")
        answer.close()
        await expect(events.closed.wait(), "the events are closed")
