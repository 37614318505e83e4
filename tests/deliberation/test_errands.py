"""One piece of work as a task: how long its prompt is, and what becomes of a refusal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.deliberation.acted import SUBMITTED, question, work
from tests.deliberation.deliberation_bench import Council, asked, bench, ended, kind_of

from anywire import errors
from anywire.caller import ANYBODY
from anywire.context import Context
from anywire.engine import Delta, EngineStatus
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.testing.doubles import MODEL
from anywire_service_deliberation.effects import Ask
from anywire_service_deliberation.errands import CHARS_PER_TOKEN, MAX_MESSAGE_CHARS, MESSAGE_TOKENS, Errand, Failed
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.served_models import ServedModels

CRITERIA = [
    {
        "name": name,
        "description": "What a reader, who has not seen the task, can say of it at once. " * 4,
        "anchors": {"1": "It is not so at all, and nothing of it can be used. " * 3, "5": "It is so throughout. " * 3},
    }
    for name in ("clarity", "truth", "depth")
]
"""A rubric that is far longer than the shipped ones."""


class Talkative(Council):
    """Writes more than its context has room for."""

    def __init__(self, context: int, features: dict[str, bool]) -> None:
        super().__init__()
        self._offer = Offer(MODEL, features=features, context=context)

    def status(self) -> EngineStatus:
        return EngineStatus("ready", (self._offer,))

    def _text(self, member: str, kind: str, does: str, body: str) -> str:
        return super()._text(member, kind, does, body) if kind == "score" else f"{member} says more. " * 1000


@pytest.mark.parametrize("features", [{}, {"json": True}])
async def test_a_prompt_fits_into_the_context_and_fills_it(tmp_path: Path, features: dict[str, bool]) -> None:
    context = 3000
    engine = Talkative(context, features)
    async with bench(tmp_path, engine=engine) as (_, kept):
        await asked(kept, members=2, max_tokens=500, rubric={"criteria": CRITERIA}, synthesis=True)
        await ended(kept)
    kinds = set()
    for _, _, kind, task in engine.recorder.named("asked"):
        body = msgspec.json.decode(task.body)
        tokens = context - body["max_tokens"] - MESSAGE_TOKENS * len(body["messages"])
        size = sum(len(message["content"]) for message in body["messages"])
        assert size <= CHARS_PER_TOKEN * tokens, kind
        if kind != "proposal":
            assert size >= 0.95 * CHARS_PER_TOKEN * tokens, kind
        kinds.add(kind_of(task.body))
    assert kinds >= {"proposal", "critique", "revision"}


class Refusing:
    """A pipeline that refuses everything, and knows no offers."""

    closing = False

    def __init__(self, error: errors.AnywireError) -> None:
        self._error = error

    def offers(self, *_: Any) -> Sequence[Offer]:
        return ()

    def submit(self, *_: Any) -> Any:
        raise self._error


async def test_who_shuts_down_elsewhere_is_replaced() -> None:
    """An orchestrator below this one, which itself goes on."""
    state = Deliberation(question(), "generating", SUBMITTED, SUBMITTED + 300)
    asks = Ask(work("proposal/0/member-1"), 1, (), SUBMITTED + 100)
    context = Refusing(errors.ShuttingDown("it shuts down"))
    served = cast("ServedModels", context)
    made = [cast("Context", context), served, (), lambda: SUBMITTED, state, asks, "", ()]
    errand = Errand(*made, patient=False)  # type: ignore[arg-type]
    errand.submit(ANYBODY)
    outcome = await errand.outcome(ANYBODY)
    assert isinstance(outcome, Failed)
    assert outcome.again
    context.closing = True
    errand = Errand(*made, patient=False)  # type: ignore[arg-type]
    errand.submit(ANYBODY)
    assert await errand.outcome(ANYBODY) is None


async def test_an_error_is_kept_within_bounds(tmp_path: Path) -> None:
    class Loud(Council):
        async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
            if task.body:
                raise errors.EngineFailed("x" * 1_000_000)
            yield Delta("")

    async with bench(tmp_path, engine=Loud()) as (_, kept):
        await asked(kept)
        state = await ended(kept)
    assert state.status == "failed"
    failed = [*state.failures.values(), *(each for tries in state.retried.values() for each in tries)]
    assert {len(each.message) for each in failed} == {MAX_MESSAGE_CHARS}
