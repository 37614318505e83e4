"""The engine ``recorded``: answers from a file, for tests and demos without a model.

A request gets the answer that was recorded for one that asks for the same (`anywire.canonical_body`). Where several
were recorded for it they are given in their order, and the last one again after that. What was recorded as plain text
answers streams and whole answers alike; more than text (tool calls, log probabilities) only the form it was recorded
in. A request without an answer is refused with what was asked, and the nearest one that there is.
"""

from __future__ import annotations

import asyncio
import difflib
import heapq
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import msgspec
import pydantic

from anywire.canonical_body import question_of
from anywire.clock import SystemClock
from anywire.demand import MCP_NEED, read_demand
from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.offers import API_NEED, Offer
from anywire.recorded_answers import RecordedAnswer, key_of, read_answers, request_of

MAX_COMPARED = 1000
"""Recorded requests that a request without an answer is compared with."""
MAX_MEASURED = 20
"""Of those the ones that are compared by more than their letters, which takes milliseconds each."""
MAX_SHOWN = 120
"""Characters of a question, and of a value, in an error."""
MAX_COMPARED_CHARS = 400
DIFFERENCES = 4
"""Members that an error names as different."""


class RecordedConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    file: Path = pydantic.Field(description="File of recorded answers, as `anywire answers record` writes it.")
    pace: Literal["none", "recorded"] = pydantic.Field(
        default="none", description="`recorded`: give each piece as late as it was recorded. `none`: at once."
    )


class RecordedEngine(Engine):
    name: ClassVar[str] = "recorded"
    Config = RecordedConfig
    capabilities = tuple(get_args(Kind))
    config: RecordedConfig

    def __init__(self, config: RecordedConfig) -> None:
        super().__init__(config)
        self.clock = SystemClock()
        self._answers: list[RecordedAnswer] = []
        self._by_key: dict[tuple[str, str, bytes], list[RecordedAnswer]] = {}
        self._given: dict[tuple[tuple[str, str, bytes], bool], int] = {}
        self._status = EngineStatus("starting")

    async def start(self, changed: Callable[[], None]) -> None:
        """Raises `ConfigError` for a file that cannot be read."""
        self._answers = await asyncio.to_thread(read_answers, self.config.file)
        kinds: dict[str, dict[str, None]] = {}
        features: dict[str, dict[str, bool]] = {}
        for each in self._answers:
            self._by_key.setdefault(key_of(each.kind, each.model, each.request), []).append(each)
            kinds.setdefault(each.model, {})[each.kind] = None
            features.setdefault(each.model, {}).update(_features(each))
        offers = [Offer(model, tuple(found), features=features[model]) for model, found in kinds.items()]
        self._status = EngineStatus("ready", tuple(offers))
        changed()

    async def close(self) -> None: ...

    def status(self) -> EngineStatus:
        return self._status

    def resumable(self, task: TaskRequest) -> bool:
        return False

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        request = request_of(task.body)
        if request is None:
            raise InvalidRequest("the body is no JSON object of at most 1 MiB, so nothing is recorded for it")
        answer = self._found(task, request)
        if answer is None:
            told = await asyncio.to_thread(self._nothing, task, request)
            raise InvalidRequest(told, param="model", status=404, detail_code="not_recorded")
        began = self.clock.now()
        for each in answer.deltas:
            if self.config.pace == "recorded":
                wait = began + each.after_ms / 1000 - self.clock.now()
                if wait > 0:
                    await self.clock.sleep(wait)
            yield Delta(each.text, each.extra, each.finish_reason, each.usage)

    def _found(self, task: TaskRequest, request: dict[str, Any]) -> RecordedAnswer | None:
        key = key_of(task.kind, task.model, request)
        fit = [each for each in self._by_key.get(key, ()) if each.is_plain or each.stream == task.stream]
        if not fit:
            return None
        number = self._given.get((key, task.stream), 0)
        self._given[key, task.stream] = number + 1
        return fit[min(number, len(fit) - 1)]

    def _nothing(self, task: TaskRequest, request: dict[str, Any]) -> str:
        """What is told where no answer is recorded."""
        asked = question_in(request)
        file = self.config.file.name
        told = f"no answer is recorded in {file} for this {task.kind} of {task.model!r}: {_short(asked)!r}."
        key = key_of(task.kind, task.model, request)
        if key in self._by_key:
            form = "as a stream" if not task.stream else "whole"
            return f"{told} It is recorded {form} alone, and is more than text: record it in this form too"
        nearest = self._nearest(task, request, asked)
        if nearest is None:
            return f"{told} The file has no answers of that kind"
        differs = "; ".join(_differences(task, request, nearest))
        recorded = _short(question_in(nearest.request))
        return f"{told} The nearest of {len(self._answers)} is {recorded!r}, which differs in {differs}"

    def _nearest(self, task: TaskRequest, request: dict[str, Any], asked: str) -> RecordedAnswer | None:
        matcher = difflib.SequenceMatcher(None, "", asked[:MAX_COMPARED_CHARS], autojunk=False)

        def likeness(other: RecordedAnswer, ratio: Callable[[], float]) -> tuple[float, bool, int]:
            matcher.set_seq1(question_in(other.request)[:MAX_COMPARED_CHARS])
            return ratio(), other.model == task.model, -len(list(_members_that_differ(request, other.request)))

        others = [each for each in self._answers if each.kind == task.kind][:MAX_COMPARED]
        likely = heapq.nlargest(MAX_MEASURED, others, key=lambda each: likeness(each, matcher.quick_ratio))
        return max(likely, key=lambda each: likeness(each, matcher.ratio), default=None)


def _features(answer: RecordedAnswer) -> dict[str, bool]:
    """What only an offer that says so has, and the recorded request needed: servers of tools, and other APIs."""
    needs = read_demand(msgspec.json.encode(answer.request).decode()).needs
    return {need: True for need in needs if need.startswith((MCP_NEED, API_NEED))}


def question_in(request: dict[str, Any]) -> str:
    """What a request asks, in words."""
    found = question_of(request)
    if found is not None:
        return found.text
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else request.get("input", request)
    content = last.get("content", last) if isinstance(last, dict) else last
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def _members_that_differ(request: dict[str, Any], other: dict[str, Any]) -> Iterable[str]:
    return (name for name in sorted(request.keys() | other.keys()) if request.get(name) != other.get(name))


def _differences(task: TaskRequest, request: dict[str, Any], other: RecordedAnswer) -> list[str]:
    found = []
    if other.model != task.model:
        found.append(f"model (recorded: {_short(other.model)!r})")
    for name in _members_that_differ(request, other.request):
        if name in ("messages", "prompt", "input"):
            found.append(name)
        elif name not in other.request:
            found.append(f"{name} (asked: {_shown(request[name])}, recorded: none)")
        else:
            asked = _shown(request[name]) if name in request else "none"
            found.append(f"{name} (asked: {asked}, recorded: {_shown(other.request[name])})")
    more = [f"and {len(found) - DIFFERENCES} more"] if len(found) > DIFFERENCES else []
    return found[:DIFFERENCES] + more


def _shown(value: object) -> str:
    return _short(msgspec.json.encode(value).decode())


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
