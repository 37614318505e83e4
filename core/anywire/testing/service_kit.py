"""The conformance kit for services: what `anywire.service` asks of every one, as tests.

class TestMine(ServiceConformance):
    service = "mine"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

from anywire.engine import Delta
from anywire.errors import AnywireError, EngineFailed, PluginFailed, ShuttingDown
from anywire.messages import Kind
from anywire.offers import Offer
from anywire.plugins import Plugins
from anywire.route import EventStream, Response
from anywire.service import Service
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.patience import expect
from anywire.testing.service_bench import ServiceBench, service_bench

BODIES = ("{}", "[]", "null", '{"messages": 3}', '{"messages": [{"role": "user", "content": "hello"}], "stream": true}')


@pytest.mark.asyncio
class ServiceConformance:
    """Subclass it and name the service: ``service = "mine"``."""

    service: str
    """Its name in a configuration: that of its entry point, or in the hook ``anywire_register``."""
    options: ClassVar[dict[str, Any]] = {}
    """Its options, as a configuration has them: ``options = {"size": 3}``."""
    plugins: tuple[str, ...] = ()
    """Modules, or paths of ``.py`` files, with the hook that names it, where it is not installed:
    ``plugins = ("my_module",)``."""

    def make(self) -> Service:
        plugins = Plugins()
        for source in self.plugins:
            plugins.add(source)
        made: Service = plugins.create("services", self.service, self.options)
        return made

    @asynccontextmanager
    async def running(self, state: Path) -> AsyncIterator[tuple[Service, ServiceBench]]:
        """A new one beside an orchestrator. Fails when the service did something against its contract."""
        service = self.make()
        async with service_bench(service, state=state) as bench:
            yield service, bench
        wrong = {name: count for name, count in bench.orchestrator.boundary.failures.items() if "service" in name}
        assert not wrong, f"the service broke its contract: {wrong}"

    async def test_it_closes_without_having_started_and_twice(self) -> None:
        service = self.make()
        await expect(service.close(), "close returns")
        await expect(service.close(), "a second close returns")

    async def test_nothing_is_left_after_its_end(self, tmp_path: Path) -> None:
        before = asyncio.all_tasks()
        async with self.running(tmp_path) as (_, bench):
            await _ask(bench)
        await asyncio.sleep(0)  # callbacks of what has ended
        left = [task for task in asyncio.all_tasks() - before if not task.done() and not task.cancelling()]
        assert not left, f"these tasks go on after close: {left}"
        assert not bench.orchestrator.events.wanted, "it subscribes to events after close"

    async def test_it_starts_again_with_the_state_it_has_kept(self, tmp_path: Path) -> None:
        for _ in range(2):
            async with self.running(tmp_path) as (_, bench):
                await _ask(bench)

    async def test_tasks_of_agents_are_answered_beside_it(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (_, bench):
            for stream in (False, True):
                for _ in range(3):
                    assert await bench.ask(Script("t", 3).body(), stream=stream) == Script("t", 3).text()

    async def test_before_is_quick_and_raises_for_nothing(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (service, bench):
            for number, body in enumerate(BODIES):
                for kind in get_args(Kind):
                    began = time.monotonic()
                    answer = await expect(
                        service.before(f"no-task-{number}", Submission(kind, MODEL, body)), "before returns"
                    )
                    assert _is_answer(answer)
                    assert time.monotonic() - began < service.before_timeout
            assert bench.orchestrator.waiting == 0

    async def test_after_failure_is_quick_and_raises_for_nothing(self, tmp_path: Path) -> None:
        error = EngineFailed("the kit says so")
        async with self.running(tmp_path) as (service, bench):
            for number, body in enumerate(BODIES):
                for kind in get_args(Kind):
                    began = time.monotonic()
                    asked = service.after_failure(f"no-task-{number}", Submission(kind, MODEL, body), error)
                    assert _is_answer(await expect(asked, "after_failure returns"))
                    assert time.monotonic() - began < service.after_failure_timeout
            assert bench.orchestrator.waiting == 0

    async def test_a_task_that_fails_ends_with_its_error_or_with_an_answer_that_is_marked(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (service, bench):
            for stream in (False, True):
                task = bench.submit(Script("fails", 2, fail_after=0).body(), stream=stream)
                try:
                    await expect(task.result(), "the task has ended")
                except EngineFailed:
                    assert "fallback" not in task.notes
                else:
                    assert task.notes["fallback"] == service.name

    async def test_its_offers_are_offers_and_do_not_change(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (service, _):
            offers = service.offers()
            assert isinstance(offers, tuple)
            assert all(isinstance(each, Offer) for each in offers)
            assert len({each.model for each in offers}) == len(offers), "a model is offered twice"
            assert service.offers() == offers

    async def test_it_answers_the_models_that_it_offers(self, tmp_path: Path) -> None:
        body = '{"messages": [{"role": "user", "content": "hello"}]}'
        async with self.running(tmp_path) as (service, bench):
            for offer in service.offers():
                for stream in (False, True):
                    kind = offer.kinds[0] if offer.kinds else "chat"
                    try:
                        await bench.ask(body, model=offer.model, kind=kind, stream=stream)
                    except PluginFailed:
                        raise
                    except AnywireError:
                        continue  # an answer too: it may need what is not here

    async def test_an_answer_that_is_cancelled_ends_with_its_children(self, tmp_path: Path) -> None:
        body = '{"messages": [{"role": "user", "content": "hello"}]}'
        async with self.running(tmp_path) as (service, bench):
            for offer in service.offers():
                stream = bench.submit(body, model=offer.model, stream=True)
                await asyncio.sleep(0)
                stream.cancel("the test cancels it")
                with suppress(AnywireError):
                    await expect(stream.result(), "the task has ended")
                assert not bench.orchestrator.tasks(), "a task that it made goes on"

    async def test_its_routes_answer_or_say_why_not(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (_, bench):
            for route in bench.routes.all():
                assert route.summary, f"{route.method} {route.path} has no summary"
                answer = await bench.call(route.method, route.path, route=route)
                assert isinstance(answer, Response | EventStream | AnywireError), answer
                if isinstance(answer, EventStream) and hasattr(answer.events, "aclose"):
                    await expect(answer.events.aclose(), "the events close")

    async def test_the_gate_is_told_before_the_end(self, tmp_path: Path) -> None:
        async with self.running(tmp_path) as (_, bench):
            bench.orchestrator.close_gate()
            bench.host.gate_closed()
            with pytest.raises(ShuttingDown):
                bench.submit()


def _is_answer(answer: object) -> bool:
    """Whether it is what a service may give in place of an agent's answer: deltas, or None for none."""
    deltas = answer if isinstance(answer, tuple) else (answer,)
    return answer is None or (bool(deltas) and all(isinstance(each, Delta) for each in deltas))


async def _ask(bench: ServiceBench) -> None:
    assert await bench.ask(Script("t").body()) == Script("t").text()
