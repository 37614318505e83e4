"""Services that stand after failure: when they are asked, what their answer is, and whatever goes wrong in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anywire import events
from anywire.caller import Caller
from anywire.context import Context
from anywire.engine import Delta
from anywire.errors import (
    AnywireError,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    NoAgent,
    ShuttingDown,
    TaskCancelled,
)
from anywire.service import Answered, Service, ServiceConfig
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script, ScriptedEngine
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench

FAILS = Script("x", 3, fail_after=0).body()


class After(Service):
    """Answers after failure what the test's function gives."""

    def __init__(
        self, name: str, function: Callable[[str, Submission, AnywireError], Any], timeout: float = 20
    ) -> None:
        super().__init__(ServiceConfig())
        self.name, self.after_failure_timeout = name, timeout  # type: ignore[misc]
        self.function = function
        self.asked: list[AnywireError] = []

    async def start(self, context: Context) -> None: ...
    async def close(self) -> None: ...

    async def after_failure(self, task_id: str, submission: Submission, error: AnywireError) -> Answered | None:
        self.asked.append(error)
        answer: Any = self.function(task_id, submission, error)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return] # nonsense too


def gives(*deltas: Delta) -> Callable[..., Answered | None]:
    return lambda *_: deltas[0] if len(deltas) == 1 else deltas


async def forever(*_: object) -> None:
    await asyncio.Event().wait()


async def ended(bench: ServiceBench, body: str = FAILS, **settings: Any) -> tuple[str, dict[str, str]]:
    stream = bench.submit(body, **settings)
    texts: list[str] = []
    while (chunk := await expect(anext(stream, None), "the next chunk of an answer")) is not None:
        texts += chunk.deltas
    return "".join(texts), dict(stream.notes)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_whose_attempts_have_failed_is_answered_in_place_of_its_error(
    tmp_path: Path, stream: bool
) -> None:
    service = After("rescue", gives(Delta("from "), Delta("documents", "", "stop", '{"total_tokens":2}')))
    async with service_bench(service, state=tmp_path) as bench:
        told: list[events.TaskEnded] = []
        stop = bench.orchestrator.events.subscribe("test", told.append, events.TaskEnded)
        assert await ended(bench, stream=stream) == ("from documents", {"fallback": "rescue"})
        assert [each.code for each in service.asked] == ["engine_failed"]
        assert (told[0].error, told[0].attempts) == ("", 1)
        assert bench.orchestrator.stats()["tasks"] == {"running": 0, "queued": 0, "ended": {"answered": 1}}
        stop()


async def test_services_are_asked_in_order_and_one_that_fails_is_passed_over(tmp_path: Path) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("broken")

    services = [
        After("none", gives_none),
        After("raises", raises),
        After("nonsense", lambda *_: "text"),
        After("empty", lambda *_: ()),
        After("hangs", forever, timeout=0.01),
        After("answers", gives(Delta("found"))),
        After("later", gives(Delta("not asked"))),
    ]
    async with service_bench(*services, state=tmp_path) as bench:
        assert await ended(bench) == ("found", {"fallback": "answers"})
        assert [len(each.asked) for each in services] == [1] * 6 + [0]
        failures = bench.orchestrator.boundary.failures
        assert {name: failures[name] for name in failures} == {
            f"service {name}.after_failure": 1 for name in ("raises", "nonsense", "empty", "hangs")
        }


def gives_none(*_: object) -> None:
    return None


async def test_without_an_answer_the_task_ends_with_its_own_error_once(tmp_path: Path) -> None:
    service = After("none", gives_none)
    async with service_bench(service, state=tmp_path) as bench:
        with pytest.raises(EngineFailed, match="the script says so"):
            await ended(bench)
        assert len(service.asked) == 1
        assert bench.orchestrator.stats()["tasks"]["ended"] == {"engine_failed": 1}
        assert await ended(bench, Script("y").body()) == (Script("y").text(), {})


async def test_it_is_asked_when_nobody_serves_the_model_any_more(tmp_path: Path) -> None:
    service = After("rescue", gives(Delta("alone")))
    async with service_bench(service, state=tmp_path, agent_wait=0.01) as bench:
        await bench.agent.close()
        assert await ended(bench) == ("alone", {"fallback": "rescue"})
        assert isinstance(service.asked[0], NoAgent)


async def test_a_stream_that_has_shown_text_and_a_request_at_fault_are_not_asked_about(tmp_path: Path) -> None:
    service = After("rescue", gives(Delta("never")))
    async with service_bench(service, state=tmp_path) as bench:
        with pytest.raises(EngineFailed):
            await ended(bench, Script("x", 3, fail_after=2).body(), stream=True)
        with pytest.raises(InvalidRequest):
            await ended(bench, "no script")
        assert not service.asked


async def test_a_task_that_is_cancelled_out_of_time_or_shut_down_meanwhile_ends_so(tmp_path: Path) -> None:
    stopped = asyncio.Event()
    asked = asyncio.Event()

    async def hangs(*_: object) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    service = After("hangs", hangs)
    async with service_bench(service, state=tmp_path) as bench:

        async def begun(**fields: Any) -> Any:
            asked.clear()
            stopped.clear()
            stream = bench.orchestrator.submit(Submission("chat", MODEL, FAILS, **fields))
            await expect(asked.wait(), "the service is asked")
            (view,) = bench.orchestrator.tasks()
            assert (view.place, view.why) == ("held", "service hangs")
            return stream

        stream = await begun()
        stream.cancel("the test")
        with pytest.raises(TaskCancelled):
            await stream.result()
        await expect(stopped.wait(), "the service is stopped")
        stream = await begun(deadline_s=0.2)
        with pytest.raises(DeadlineExceeded):
            await expect(stream.result(), "its deadline")
        await expect(stopped.wait(), "the service is stopped")
        stream = await begun()
        bench.orchestrator.close_gate()
        with pytest.raises(ShuttingDown):
            await stream.result()
        await expect(stopped.wait(), "the service is stopped")
        assert not bench.orchestrator.waiting


async def test_notes_are_bounded_and_say_nothing_of_what_gateways_say(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(state=tmp_path, engine=engine) as bench:
        context = bench.context("mine")
        stream = bench.submit(Script("held", 1, hold_after=0).body(), caller=Caller("k"))
        context.note(stream.task_id, "cache", "hit")
        context.note(stream.task_id, "cache", "miss")
        assert stream.notes == {"cache": "miss"}
        context.note("no-task", "cache", "hit")
        for name, value in (("Cache", "x"), ("agent", "x"), ("a\r\nb", "x"), ("", "x"), ("a", "x\n"), ("a", "x" * 257)):
            with pytest.raises(ValueError, match="note"):
                context.note(stream.task_id, name, value)
        for number in range(7):
            context.note(stream.task_id, f"n{number}", "")
        with pytest.raises(ValueError, match="at most 8"):
            context.note(stream.task_id, "n7", "")
        stream.cancel("done")
