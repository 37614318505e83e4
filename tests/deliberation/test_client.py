"""The Python client: what it asks, what it goes on through, what it raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deliberation.front_bench import Double, degraded, front, submitted, update
from tests.long_form import examples

from anywire.errors import AnywireError, ConfigError, InvalidRequest, Unauthenticated
from anywire.not_understood import NotUnderstood
from anywire.route import ServerSentEvent
from anywire.testing.patience import PATIENCE, expect, polled
from anywire_gateway_openai.service_routes import encoded
from anywire_service_deliberation.client import DeliberationClient
from anywire_service_deliberation.event_source import MAX_EVENT_BYTES, read_events
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.viewed import whole
from reserved import free_port


async def test_a_question_is_asked_and_its_end_waited_for(tmp_path: Path) -> None:
    async with front(tmp_path) as served, served.client() as client:
        asking = asyncio.create_task(client.deliberate("Reverse a list.", members=3, rubric="clean-code"))
        await polled(lambda: served.double.waits, "the client waits")
        (name,) = served.double.kept
        assert served.double.asked == [{"id": name, "task": "Reverse a list.", "members": 3, "rubric": "clean-code"}]
        await served.double.say(ends=degraded(name))
        state = await expect(asking, "the end")
        assert (state.status, state.winner, state.answer) == ("degraded", "member-2", "[].reverse()")
        assert state.proposals[1].versions[1].checks[0].message == "no tests"


async def test_everything_that_the_api_has_can_be_asked(tmp_path: Path) -> None:
    async with front(tmp_path) as served, served.client() as client:
        assert await client.submit("?", id="q-1") == "q-1"
        assert await client.submit("?", id="q-1") == "q-1"
        assert [each.id for each in await client.list(status="submitted", role="DEV")] == ["q-1"]
        assert (await client.get("q-1")).status == "submitted"
        assert (await client.cancel("q-1")).status == "cancelled"
        await client.put_council("code", [{"model": "a"}], role="DEV")
        assert [each.members for each in await client.councils()] == [({"model": "a"},)]
        await client.delete_council("code")
        assert "clean-code" in [each.name for each in await client.rubrics()]
        assert "DEV" in [each.name for each in await client.roles()]
        assert (await client.statistics())["deliberations"] == 1


async def test_a_refusal_is_an_error_with_its_member(tmp_path: Path) -> None:
    async with front(tmp_path) as served, served.client() as client:
        with pytest.raises(InvalidRequest, match="no rubric") as refused:
            await client.submit("?", rubric="none")
        assert (refused.value.param, refused.value.status) == ("rubric", 400)
        with pytest.raises(InvalidRequest) as unknown:
            await client.get("nope")
        assert (unknown.value.status, unknown.value.detail_code) == (404, "deliberation_not_found")


async def test_updates_are_read_to_the_end(tmp_path: Path) -> None:
    async with front(tmp_path) as served, served.client() as client:
        await served.double.say(*(update(number, "asked", text="a\u2028b\n\rc") for number in (1, 2)), ends=submitted())
        seen = []
        async with aclosing(client.events("q-1", after=1)) as updates:
            seen.append(await expect(anext(updates), "an update"))
            await served.double.say(update(3, "ended", status="degraded"), ends=degraded())
            seen += [each async for each in updates]
        assert seen == served.double.said[1:]


# Servers that go


class Steps:
    """Answers each request by the next of its steps; what it was asked is kept."""

    def __init__(self, *steps: Callable[[httpx.Request], httpx.Response] | Exception) -> None:
        self.steps, self.requests = list(steps), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step(request)


class Sleeper:
    """A clock whose sleeps take no time but that of the clock."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, list[float]()

    def now(self) -> float:
        return self.time

    def now_ns(self) -> int:
        return round(self.time * 1e9)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(0, callback, *args)

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)
        self.time += delay


def told(state: object) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(200, content=msgspec.json.encode(state))


def refused(status: int, code: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, json={"error": {"message": "no", "code": code}})


def against(steps: Steps, sleeper: Sleeper) -> DeliberationClient:
    http = httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(steps))
    return DeliberationClient(http=http, patience=5.0, clock=sleeper)


ENDED = whole(degraded(), "/v1/deliberations")
GOING_ON = whole(submitted(), "/v1/deliberations")
GONE = httpx.ConnectError("refused")


async def test_a_server_that_was_never_there_is_told_at_once() -> None:
    sleeper = Sleeper()
    with pytest.raises(httpx.ConnectError):
        await against(Steps(GONE), sleeper).submit("?")
    assert not sleeper.slept


async def test_a_server_that_is_restarted_is_waited_for() -> None:
    away = (GONE, refused(503, "shutting_down"), lambda request: httpx.Response(502, text="<html>of a proxy"))
    sleeper, steps = Sleeper(), Steps(told(GOING_ON), *away, told(GOING_ON), told(ENDED))
    assert (await against(steps, sleeper).wait("q-1")).is_final
    assert len(steps.requests) == 6
    assert all(request.headers["prefer"] == "wait=30" for request in steps.requests)
    assert sleeper.slept == [0.1, 0.1, 0.2, 0.4, 0.2], "a server that does not wait is not asked at once again"


async def test_a_real_server_is_restarted_under_a_client(tmp_path: Path) -> None:
    port, double = free_port(), Double()
    seen: list[Update] = []

    async def follow(client: DeliberationClient) -> None:
        async for each in client.events("q-1"):
            seen.append(each)

    async with DeliberationClient(f"http://127.0.0.1:{port}", patience=PATIENCE) as client:
        async with front(tmp_path, double, port):
            asking = asyncio.create_task(client.deliberate("?", id="q-1"))
            await polled(lambda: double.waits, "the client waits")
            following = asyncio.create_task(follow(client))
            await double.say(update(1, "stage", status="generating"))
            await polled(lambda: seen, "the first update is there")
        async with front(tmp_path, double, port):
            await polled(lambda: len(double.waits) > 1 and double.readers, "the client is back")
            assert not asking.done()
            await double.say(update(2, "ended", status="degraded"), ends=degraded())
            assert (await expect(asking, "the end")).winner == "member-2"
            await expect(following, "the updates end")
    assert [each.number for each in seen] == [1, 2]
    assert len(double.asked) == 1


async def test_a_server_that_stays_away_is_given_up() -> None:
    sleeper, steps = Sleeper(), Steps(told(GOING_ON), *[GONE] * 100)
    with pytest.raises(httpx.ConnectError):
        await against(steps, sleeper).wait("q-1")
    assert 4 < sleeper.time <= 5.2


async def test_a_question_that_may_not_have_arrived_is_sent_again_with_its_id() -> None:
    steps = Steps(told(GOING_ON), httpx.ReadTimeout("silent"), told(GOING_ON))
    client = against(steps, Sleeper())
    await client.get("q-1")
    await client.submit("?")
    first, second = (json.loads(request.content) for request in steps.requests[1:])
    assert first == second
    assert first["id"].startswith("d-")
    assert len(first["id"]) > 20


def events(*updates: Update, cut: bool = False) -> Callable[[httpx.Request], httpx.Response]:
    text = b"".join(
        encoded(ServerSentEvent(msgspec.json.encode(each).decode(), each.name, str(each.number))) for each in updates
    )
    return lambda request: httpx.Response(
        200, content=text + (b"event: stage\nid: 99\ndata: {" if cut else b": end\n\n")
    )


async def test_updates_go_on_after_the_last_one_when_their_stream_breaks_off() -> None:
    first, second, last = (
        update(1, "stage", status="generating"),
        update(2, "asked"),
        update(3, "ended", status="failed"),
    )
    steps = Steps(events(first, cut=True), told(GOING_ON), events(first, second), told(GOING_ON), events(second, last))
    seen = [each async for each in against(steps, Sleeper()).events("q-1")]
    assert seen == [first, second, last], "each once"
    streams = [request for request in steps.requests if request.url.path.endswith("/events")]
    assert [request.headers.get("last-event-id") for request in streams] == [None, "1", "2"]


async def test_a_server_without_a_stream_is_not_asked_in_a_hurry() -> None:
    sleeper, empty = Sleeper(), events()
    ending = (events(update(1, "asked")), told(GOING_ON), events(update(2, "ended", status="failed")))
    steps = Steps(*[step for _ in range(6) for step in (empty, told(GOING_ON))], *ending)
    assert [each.number async for each in against(steps, sleeper).events("q-1")] == [1, 2]
    assert sleeper.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 0.1]


async def test_updates_of_one_that_has_ended_end_though_no_update_says_so() -> None:
    steps = Steps(events(update(1, "asked")), told(ENDED), events())
    seen = [each.number async for each in against(steps, Sleeper()).events("q-1")]
    assert seen == [1]


@pytest.mark.parametrize(
    ("step", "kind", "says"),
    [
        (refused(404, "not_found"), ConfigError, "configure the service deliberation"),
        (refused(401, "invalid_api_key"), Unauthenticated, "ANYWIRE_API_KEY"),
        (refused(409, "council_in_use"), InvalidRequest, "no"),
        (lambda request: httpx.Response(502, text="<html>"), NotUnderstood, "502"),
        (lambda request: httpx.Response(200, text="<html>"), NotUnderstood, "no answer of this version"),
        (lambda request: httpx.Response(200, json={"id": 7}), NotUnderstood, "id"),
        (lambda request: httpx.Response(500, json=[[[]]]), NotUnderstood, "500"),
    ],
)
async def test_what_a_server_answers_instead_is_an_error(
    step: Callable[[httpx.Request], httpx.Response], kind: type[AnywireError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await against(Steps(step), Sleeper()).submit("?")


async def test_an_error_in_a_stream_is_raised() -> None:
    text = b'event: error\ndata: {"error": {"message": "the key counts no more", "code": "invalid_api_key"}}\n\n'
    steps = Steps(lambda request: httpx.Response(200, content=text))
    with pytest.raises(AnywireError, match="counts no more"):
        await anext(against(steps, Sleeper()).events("q-1"))


# Events


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
written = st.builds(
    ServerSentEvent,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")),
    printable,
    printable,
)


@given(st.lists(written, max_size=5), st.data())
@settings(max_examples=examples(40))
async def test_events_are_read_as_the_gateway_writes_them(said: list[ServerSentEvent], data: st.DataObject) -> None:
    text = b": begin\n\n" + b"".join(map(encoded, said)) + b": end\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))

    async def chunks() -> AsyncIterator[bytes]:
        for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            yield text[begin:end]

    assert [each async for each in read_events(chunks())] == said


async def test_events_of_other_servers_are_read() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"\r\ndata:1\r\ndata: 2\r\nid: 7\r\nretry: 5\r\nnonsense\r\n\r\nevent: none\r\n\r\ndata: cut"

    assert [each async for each in read_events(chunks())] == [ServerSentEvent("1\n2", "", "7")]


async def test_an_event_without_an_end_is_bounded() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"data: " + b"x" * 100_000 + b"\n"

    with pytest.raises(ValueError, match=str(MAX_EVENT_BYTES)):
        await anext(read_events(chunks()))
