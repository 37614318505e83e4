"""Services beside an orchestrator: what they answer, stand before, offer and serve, and whatever goes wrong in them."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from anywire import events
from anywire.caller import Caller
from anywire.context import Context
from anywire.engine import Delta
from anywire.errors import (
    AnywireError,
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    ModelStopped,
    PluginFailed,
    QueueFull,
    ReaderStalled,
    ShuttingDown,
    TaskCancelled,
)
from anywire.files.state_folders import state_root
from anywire.hookspecs import hookimpl
from anywire.messages import Chunk
from anywire.offers import Offer, offers
from anywire.plugins import Plugins
from anywire.roles import service_host
from anywire.roles.context import OrchestratorContext
from anywire.route import EventStream, Request, Response, Route, ServerSentEvent
from anywire.service import Answered, Service, ServiceConfig
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script, ScriptedEngine
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench


class Scripted(Service):
    """Offers ``echo`` and answers with what the test's generator gives."""

    name = "scripted"
    offered_models: tuple[Offer, ...] = offers("echo")

    def __init__(self, script: Callable[[str, Submission], AsyncIterator[Delta]] | None = None) -> None:
        super().__init__(ServiceConfig())
        self.script = script
        self.told: list[str] = []
        self.began, self.closed = asyncio.Event(), asyncio.Event()

    async def start(self, context: Context) -> None:
        self.context = context
        self.told.append("start")

    async def close(self) -> None:
        self.told.append("close")

    def gate_closed(self) -> None:
        self.told.append("gate")

    @property
    def offered(self) -> Any:
        return self

    def offers(self) -> tuple[Offer, ...]:
        return self.offered_models

    async def answer(self, task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        assert self.script is not None
        self.began.set()
        try:
            async for delta in self.script(task_id, submission):
                yield delta
        finally:
            self.closed.set()


class Before(Service):
    """Answers before dispatch what the test's function gives."""

    def __init__(self, name: str, function: Callable[[str, Submission], Any], timeout: float = 20.0) -> None:
        super().__init__(ServiceConfig())
        self.name, self.before_timeout = name, timeout  # type: ignore[misc]
        self.function = function
        self.asked = 0

    async def start(self, context: Context) -> None: ...
    async def close(self) -> None: ...

    async def before(self, task_id: str, submission: Submission) -> Answered | None:
        self.asked += 1
        answer: Any = self.function(task_id, submission)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return] # nonsense too


def says(*texts: str) -> Callable[[str, Submission], AsyncIterator[Delta]]:
    async def script(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        for text in texts:
            yield Delta(text)

    return script


async def forever(*_: object) -> Any:
    await asyncio.Event().wait()


def why(bench: ServiceBench) -> list[tuple[str, str]]:
    return [(task.place, task.why) for task in bench.orchestrator.tasks()]


# Names and routes


class Routing(Service):
    """Adds the test's routes."""

    name = "routing"

    def __init__(self, *routes: Route) -> None:
        super().__init__(ServiceConfig())
        self.routes = routes

    async def start(self, context: Context) -> None:
        context.routes.add(*self.routes)

    async def close(self) -> None: ...


async def test_one_class_under_two_names_is_two_services(tmp_path: Path) -> None:
    class Registers:
        @hookimpl
        def anywire_register(self, kind: str) -> dict[str, type] | None:
            return {"one": Simple, "two": Simple} if kind == "services" else None

    class Simple(Service):
        name = "simple"

        async def start(self, context: Context) -> None:
            self.folder = context.state_folder

        async def close(self) -> None: ...

        @property
        def offered(self) -> Any:
            return self

    plugins = Plugins()
    plugins.manager.register(Registers())
    both = [plugins.create("services", name, {}) for name in ("one", "two")]
    async with service_bench(*both, state=tmp_path) as bench:
        assert [bench.host.get(name) for name in ("one", "two")] == both
        assert [each.folder for each in both] == [tmp_path / "one", tmp_path / "two"]


async def test_a_route_that_fails_is_its_services_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Events:
        def __aiter__(self) -> Events:
            return self

        async def __anext__(self) -> ServerSentEvent:
            raise RuntimeError("no event")

        async def aclose(self) -> None:
            raise RuntimeError("no end")

    async def breaks(request: Request) -> Response:
        raise ConnectionError("a secret of the service")

    async def gives_nonsense(request: Request) -> Any:
        return "text"

    async def refuses(request: Request) -> Response:
        raise InvalidRequest("not like this")

    async def streams(request: Request) -> EventStream:
        return EventStream(Events(), {"x-own": "h"})

    handlers = (breaks, gives_nonsense, refuses, streams)
    service = Routing(*(Route("GET", f"/{each.__name__}", each) for each in handlers))
    async with service_bench(service, state=tmp_path) as bench:
        assert {route.service for route in bench.routes.all()} == {"routing"}
        for path in ("/breaks", "/gives_nonsense"):
            answer = await bench.call("GET", path)
            assert isinstance(answer, PluginFailed)
            assert "service routing" in str(answer)
            assert "secret" not in str(answer)
        assert isinstance(await bench.call("GET", "/refuses"), InvalidRequest)
        stream = await bench.call("GET", "/streams")
        assert isinstance(stream, EventStream)
        assert stream.headers == {"x-own": "h"}
        with pytest.raises(PluginFailed):
            await anext(stream.events)
        await stream.events.aclose()  # type: ignore[attr-defined]
        assert bench.orchestrator.boundary.failures == {
            "service routing.GET /breaks": 1,
            "service routing.GET /gives_nonsense": 1,
            "service routing.GET /streams": 2,
        }
    assert "service routing.GET /breaks raised ConnectionError: a secret of the service" in caplog.text


# Models of a service


async def test_a_service_answers_tasks_for_its_models_and_no_slot_is_used(tmp_path: Path) -> None:
    async with service_bench(Scripted(says("a", "b")), state=tmp_path) as bench:
        for stream in (False, True):
            assert await bench.ask("{}", model="echo", stream=stream) == "ab"
        assert await bench.ask() == Script("task").text(), "an agent's model goes to the agent"
        (agent,) = bench.orchestrator.agents()
        assert agent.completed == 1
        context = bench.context("x")
        assert sorted(context.models()) == ["echo", MODEL]
        assert [name for name, _ in context.offers()["echo"]] == ["service scripted"]
        assert [name for name, _ in context.offers()[MODEL]] == ["agent"]


async def test_a_reader_that_pauses_pauses_the_service(tmp_path: Path) -> None:
    given = 0
    full = asyncio.Event()

    async def many(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        nonlocal given
        for _ in range(100):
            given += 1
            if given == 5:
                full.set()
            yield Delta("x")

    async with service_bench(Scripted(many), state=tmp_path, window=4) as bench:
        stream = bench.submit("{}", model="echo", stream=True)
        await expect(full.wait(), "the window is full")
        for _ in range(50):
            await asyncio.sleep(0)
        assert given == 5
        assert (await expect(stream.result(), "the whole answer")).deltas == ("x" * 100,)


async def test_a_reader_that_never_reads_ends_its_stream(tmp_path: Path) -> None:
    service = Scripted(says(*"x" * 100))
    async with service_bench(service, state=tmp_path, window=2, reader_timeout=0.05) as bench:
        stream = bench.submit("{}", model="echo", stream=True)
        await expect(service.closed.wait(), "the generator is closed")
        with pytest.raises(ReaderStalled):
            await stream.result()


async def test_cancelling_a_task_closes_its_generator_and_ends_its_children(tmp_path: Path) -> None:
    engine = ScriptedEngine()

    async def asks(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        child = service.context.submit(
            Submission("chat", MODEL, Script("child", hold_after=0).body(), caller=submission.caller, parent=task_id)
        )
        yield Delta((await child.result()).deltas[0])

    service = Scripted(asks)
    async with service_bench(service, state=tmp_path, engine=engine) as bench:
        stream = bench.submit("{}", model="echo")
        await engine.recorder.until(lambda: engine.recorder.named("holding"), "the child runs")
        parent, child = bench.orchestrator.tasks()
        assert (parent.place, child.parent) == ("running", parent.task_id)
        assert bench.orchestrator.cancel(stream.task_id)
        with pytest.raises(TaskCancelled):
            await stream.result()
        await expect(service.closed.wait(), "the generator is closed")
        await engine.recorder.until(lambda: engine.recorder.named("cancelled"), "the child is cancelled")
        assert not bench.orchestrator.tasks()


async def test_children_of_a_task_that_was_answered_go_on(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(Scripted(says("a")), state=tmp_path, engine=engine) as bench:
        parent = bench.submit("{}", model="echo")
        child = bench.submit(Script("child", 2).body(), parent=parent.task_id)
        assert (await expect(parent.result(), "the answer")).deltas == ("a",)
        assert (await expect(child.result(), "the child's answer")).deltas == (Script("child", 2).text(),)


@pytest.mark.parametrize(
    ("fault", "error"), [(ValueError("no"), PluginFailed), (QueueFull("full"), QueueFull), (3, PluginFailed)]
)
async def test_what_a_service_does_wrong_ends_that_task_alone(tmp_path: Path, fault: Any, error: type) -> None:
    async def script(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        yield Delta("begun")
        if isinstance(fault, Exception):
            raise fault
        yield fault

    async with service_bench(Scripted(script), state=tmp_path) as bench:
        for stream in (False, True):
            with pytest.raises(error):
                await bench.ask("{}", model="echo", stream=stream)
        counted = bench.orchestrator.boundary.failures["service scripted.answer"]
        assert counted == (0 if error is QueueFull else 2)
        assert await bench.ask() == Script("task").text()


async def test_a_deadline_ends_what_a_service_answers(tmp_path: Path) -> None:
    async def hangs(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        await forever()
        yield Delta()

    service = Scripted(hangs)
    async with service_bench(service, state=tmp_path, deadline=0.05) as bench:
        with pytest.raises(DeadlineExceeded, match="service scripted"):
            await bench.ask("{}", model="echo")
        await expect(service.closed.wait(), "the generator is closed")


async def test_a_models_offer_bounds_what_it_is_asked(tmp_path: Path) -> None:
    async def hangs(task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        await forever()
        yield Delta()

    service = Scripted(hangs)
    service.offered_models = (Offer("echo", ("chat",), slots=1), Offer("off", state="stopped"))
    async with service_bench(service, state=tmp_path) as bench:
        stream = bench.submit("{}", model="echo")
        with pytest.raises(QueueFull, match="1 tasks"):
            bench.submit("{}", model="echo")
        with pytest.raises(InvalidRequest, match="embedding"):
            bench.submit("{}", model="echo", kind="embedding")
        with pytest.raises(ModelStopped):
            bench.submit("{}", model="off")
        await expect(service.began.wait(), "it answers")
        stream.cancel("enough")
        await bench.orchestrator.services.close()
        bench.submit("{}", model="echo").cancel("enough")


# Before dispatch


async def test_the_first_answer_before_dispatch_counts(tmp_path: Path) -> None:
    none = Before("none", lambda *_: None)
    cache = Before("cache", lambda *_: Delta("kept", finish_reason="stop"))
    never = Before("never", lambda *_: Delta("other"))
    async with service_bench(none, cache, never, state=tmp_path) as bench:
        for stream in (False, True):
            assert await bench.ask(stream=stream) == "kept"
        assert (none.asked, cache.asked, never.asked) == (2, 2, 0)
        assert bench.orchestrator.agents()[0].completed == 0


async def test_an_answer_before_dispatch_may_have_several_deltas(tmp_path: Path) -> None:
    answer = (Delta("a"), Delta("b", '[{"index":0,"delta":{"content":"b"}}]'), Delta("c", "", "length", "{}"))
    service = Before("cache", lambda *_: answer)
    async with service_bench(service, state=tmp_path) as bench:
        chunks = [chunk async for chunk in bench.submit(stream=True)]
        assert [(chunk.seq, chunk.deltas, chunk.extra, chunk.final) for chunk in chunks] == [
            (0, ("a",), "", False),
            (1, ("b",), answer[1].extra, False),
            (2, ("c",), "", True),
        ]
        whole = await bench.submit().result()
        for final in (chunks[-1], whole):
            assert (final.finish_reason, final.usage) == ("length", "{}")
        assert (whole.deltas, whole.extra) == (("abc",), answer[1].extra)


@pytest.mark.parametrize("wrong", ["raises", "is late", "gives nonsense", "is cancelled"])
async def test_a_service_that_fails_before_dispatch_is_passed_over(tmp_path: Path, wrong: str) -> None:
    async def raises(*_: object) -> Delta:
        raise ValueError("no")

    async def cancelled(*_: object) -> Delta:
        raise asyncio.CancelledError

    function = {"raises": raises, "is late": forever, "gives nonsense": lambda *_: 3, "is cancelled": cancelled}[wrong]
    first = Before("first", function, timeout=0.05 if wrong == "is late" else 20.0)
    second = Before("second", lambda *_: None)
    async with service_bench(first, second, state=tmp_path) as bench:
        assert await bench.ask() == Script("task").text()
        assert second.asked == 1
        assert bench.orchestrator.boundary.failures["service first.before"] == 1


async def test_a_task_is_held_meanwhile_counts_as_waiting_and_can_be_cancelled(tmp_path: Path) -> None:
    service = Before("slow", forever)
    held: list[str] = []
    async with service_bench(service, state=tmp_path) as bench:
        bench.orchestrator.events.subscribe("test", lambda event: held.append(event.why), events.TaskHeld)
        stream = bench.submit()
        assert why(bench) == [("held", "service slow")]
        assert held == ["service slow"]
        assert bench.orchestrator.waiting == 1
        bench.orchestrator.capacity_changed()
        assert why(bench) == [("held", "service slow")], "what frees a slot does not release it"
        stream.cancel("enough")
        with pytest.raises(TaskCancelled):
            await stream.result()
        assert bench.orchestrator.waiting == 0


async def test_the_gate_ends_what_a_service_stands_before(tmp_path: Path) -> None:
    async with service_bench(Before("slow", forever), state=tmp_path) as bench:
        stream = bench.submit()
        bench.orchestrator.close_gate()
        with pytest.raises(ShuttingDown):
            await stream.result()


# Its life


async def test_it_is_told_the_gate_before_its_close(tmp_path: Path) -> None:
    service = Scripted()
    async with service_bench(service, state=tmp_path) as bench:
        assert bench.host.get("scripted") is service
        assert bench.host.get("nobody") is None
    assert service.told == ["start", "gate", "close"]
    assert bench.host.get("scripted") is None


async def test_it_is_told_when_the_others_have_started_too(tmp_path: Path) -> None:
    seen: list[object] = []

    class Early(Scripted):
        name = "early"
        offered_models = ()

        def all_started(self) -> None:
            seen.append(self.context.services.get("scripted"))
            raise RuntimeError("its own failure")

    later = Scripted()
    async with service_bench(Early(), later, state=tmp_path) as bench:
        assert seen == [later]
        assert bench.orchestrator.boundary.failures == {"service early.all_started": 1}


async def test_one_that_cannot_start_is_named_and_all_that_began_are_closed(tmp_path: Path) -> None:
    first, second = Scripted(), Scripted()
    second.name = "second"  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"second cannot start.*scripted and second both offer the model 'echo'"):
        async with service_bench(first, second, state=tmp_path):
            pass
    assert first.told[-1] == second.told[-1] == "close"


async def test_one_that_hangs_in_close_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_host, "CLOSE_TIMEOUT", 0.01)
    service, last = Scripted(), Before("last", lambda *_: None)
    last.close = forever  # type: ignore[method-assign]
    async with service_bench(service, last, state=tmp_path):
        pass
    assert service.told[-1] == "close"


async def test_one_whose_close_is_no_coroutine_keeps_nobody_from_closing(tmp_path: Path) -> None:
    first, last = Scripted(), Before("last", lambda *_: None)
    last.close = lambda: None  # type: ignore[method-assign, assignment, return-value]
    async with service_bench(first, last, state=tmp_path) as bench:
        pass
    assert first.told[-1] == "close"
    assert bench.orchestrator.boundary.failures["service last.close"] == 1


@pytest.mark.parametrize("model", ["\x1b[31mred", "x" * 257])
async def test_one_that_offers_what_is_no_name_cannot_start(tmp_path: Path, model: str) -> None:
    service = Scripted()
    service.offers = lambda: (Offer(model),)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="a name that is empty, too long or not printable"):
        async with service_bench(service, state=tmp_path):
            pass


# What it is given


async def test_a_state_folder_is_its_own_and_private(tmp_path: Path) -> None:
    service = Scripted()
    async with service_bench(service, state=tmp_path / "fleet"):
        folder = service.context.state_folder
    assert folder == tmp_path / "fleet" / "scripted"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_state_is_kept_below_the_fleet() -> None:
    class Transport:
        class config:  # noqa: N801
            fleet = "a/b"

    transport: Any = Transport()
    assert state_root([transport], {"XDG_STATE_HOME": "/state"}) == Path("/state/anywire/a%2Fb")
    assert state_root([], {"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/anywire/default"


async def test_a_task_is_followed_beside_its_reader_by_who_may(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(state=tmp_path, engine=engine) as bench:
        context: Context = OrchestratorContext(bench.orchestrator)
        owner = Caller("key-1", "tenant")
        stream = bench.submit(Script("f", 3).body(), stream=True, caller=owner)
        for stranger in (Caller("key-2", "other"), Caller("key-3")):
            assert context.tasks(stranger) == []
            with pytest.raises(InvalidRequest):
                context.follow(stream.task_id, stranger)
        (view,) = context.tasks(owner)
        assert (view.task_id, view.model, view.caller) == (stream.task_id, MODEL, owner)
        followed = context.follow(stream.task_id, owner)
        read = (await expect(stream.result(), "the answer")).deltas
        texts = [text async for chunk in followed for text in chunk.deltas]
        assert "".join(texts) == read[0] == Script("f", 3).text()
        with pytest.raises(InvalidRequest):
            context.follow(stream.task_id, owner)


async def test_a_follower_sees_the_error_and_a_slow_one_misses_chunks(tmp_path: Path) -> None:
    async with service_bench(state=tmp_path) as bench:
        stream = bench.submit(Script("f", 2000, fail_after=1999).body(), stream=True)
        followed = bench.orchestrator.follow(stream.task_id)
        with pytest.raises(AnywireError):
            await expect(stream.result(), "the end")
        assert 0 < await count_to_the_error(followed) <= 1024


async def count_to_the_error(chunks: AsyncIterator[Chunk]) -> int:
    seen = 0
    try:
        async for _ in chunks:
            seen += 1
    except AnywireError:
        return seen
    raise AssertionError("it ended without the error")
