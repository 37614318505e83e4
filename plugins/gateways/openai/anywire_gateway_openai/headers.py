"""The ``x-anywire-*`` headers of an answer.

| header | meaning |
|---|---|
| ``x-request-id`` | id of the request, in the log too: the client's own, or a new one |
| ``x-anywire-task`` | id of the task, for ``tasks/{id}`` |
| ``x-anywire-agent`` | id of the agent that answers |
| ``x-anywire-transport`` | transport over which it does |
| ``x-anywire-attempts`` | number of the attempt that answers |
| ``x-anywire-model`` | model that answers: one of those that the request names, or of `pipeline.fallbacks` |
| ``x-anywire-stages`` | of a whole answer: milliseconds between the stages, in the syntax of ``Server-Timing`` |
| ``x-anywire-decision`` | where ``x-anywire-explain`` asks for it: how the agent was chosen, as JSON |
| ``location`` | of a 202: where the answer of the background task will be |
| ``x-anywire-replayed`` | ``true``: the answer is that of an earlier request with the same ``idempotency-key`` |
| ``x-anywire-trace`` | id of the trace that is kept of the request (service ``opentelemetry``) |
| ``x-anywire-ignored`` | what was sent and has no effect: ``priority``, ``policy``, members of a response |
| ``x-anywire-estimated`` | ``true``: what is told of the tokens of a prompt is no count of a tokenizer |
| ``x-anywire-cache`` | where the service `cache` runs: ``hit`` for an answer that was kept, ``miss`` for a new one |
| ``x-anywire-cache-similarity`` | of a hit by meaning: how like the kept question is, up to 1 |
| ``x-anywire-fallback`` | no model could answer: the service that has answered in its place |
| ``x-anywire-origin`` | of an error: ``client``, ``pipeline``, ``transport``, ``agent`` or ``engine``, where it arose |
| ``x-should-retry`` | of an error: ``false`` where trying again would end the same way |
| ``retry-after`` | of an error: whole seconds after which trying again makes sense |
| ``retry-after-ms`` | the same in milliseconds, where the error says when: OpenAI's clients go by it |
"""

from __future__ import annotations

import re
from itertools import repeat
from operator import sub, truediv

import msgspec

from anywire.background import BackgroundTask
from anywire.context import TaskRecord
from anywire.stages import SPANS, Stages
from anywire.task_stream import TaskStream

DECISION = "x-anywire-decision"
MAX_DECISION_CHARS = 4096
"""Clients and proxies bound all headers of an answer to some 8 KiB."""

_UNPRINTABLE = re.compile(r"[^\x21-\x7e ]")
_EVERY_STAGE = ", ".join(f"{name};dur=%.3f" for name in SPANS)


def answer_headers(task: TaskStream | BackgroundTask, not_followed: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What is known of a task when its answer begins. Where that begins with progress, its agent is not known yet.
    ``not_followed`` are members of the request that the answer shows no sign of."""
    headers = [("x-anywire-task", task.task_id)]
    if task.agent_id:
        headers += [
            ("x-anywire-transport", header_text(task.transport)),
            ("x-anywire-agent", header_text(task.agent_id)),
            ("x-anywire-attempts", str(task.attempts)),
            ("x-anywire-model", header_text(task.model)),
        ]
    if task.ignored or not_followed:
        headers.append(("x-anywire-ignored", ", ".join((*task.ignored, *not_followed))))
    if isinstance(task, TaskStream):
        headers += [(f"x-anywire-{name}", header_text(value)) for name, value in task.notes.items()]
    return headers


def decision_header(record: TaskRecord | None) -> list[tuple[str, str]]:
    """The newest choice of an agent, without what would make the header too long; none where nothing is known of it."""
    if record is None or not record.decisions:
        return []
    told = msgspec.to_builtins(record.decisions[-1])
    for member in ("", "considered", "scores", "left_out"):
        told.pop(member, None)
        text = msgspec.json.encode(told).decode()
        if len(text) <= MAX_DECISION_CHARS:
            break
    return [(DECISION, header_text(text))]


def header_text(text: str) -> str:
    """``text`` with whatever a header cannot hold replaced: ids come from other machines."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def stages_text(stages: Stages) -> str:
    """Stage times in the syntax of ``Server-Timing``: ``received-admitted;dur=0.012, …``, in milliseconds."""
    whole = stages.whole()
    if whole is not None:
        return _EVERY_STAGE % tuple(map(truediv, map(sub, whole[1:], whole), repeat(1e6)))
    return ", ".join([f"{name};dur={span:.3f}" for name, span in stages.spans_ms().items()])
