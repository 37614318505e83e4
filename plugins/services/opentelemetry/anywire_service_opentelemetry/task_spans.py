"""The spans of a task, made of what was noted of it and of the event that tells its end.

    chat llama                   the task: from its receipt to its end
    ├── queue                    once for each time that it waited
    ├── attempt 1                links: the attempts before, which it repeats or overtakes
    └── attempt 2
        ├── wire                 the request on its way to the agent
        ├── agent wait           a slot, or a model that loads
        ├── engine               from its beginning to the last piece of the answer
        └── wire                 the last piece on its way back

Only the attempt whose answer was given has spans below it: an agent tells its times with the end of an answer. They are
of the agent's clock where both processes run on one machine. Where they do not, the way there and the way back are
taken to be equally long, and `anywire.clock` says ``estimated``.
"""

from __future__ import annotations

from collections.abc import Iterator

from anywire.events import AttemptEnded, TaskEnded
from anywire.measures.task_measures import OPERATION, PROVIDER
from anywire.stages import Stages
from anywire_service_opentelemetry import names
from anywire_service_opentelemetry.ids import new_span_id
from anywire_service_opentelemetry.open_task import OpenAttempt, OpenTask
from anywire_service_opentelemetry.span import Attributes, Span, SpanEvent, SpanKind, SpanLink, Value


def task_spans(task: OpenTask, ended: TaskEnded) -> Iterator[Span]:
    """The task's own span, those of its waits, and those below the attempt that was answered."""
    task.wait_ends(ended.at_ns, {})
    for wait in task.waits:
        yield _below(task, task.span_id, "queue", "internal", wait.began_ns, wait.ended_ns, wait.attributes)
    answered = _answered(task, ended)
    if answered is not None:
        yield from _agent_spans(task, answered, ended)
    offset = task.offset_ns
    yield Span(
        task.trace_id,
        task.span_id,
        task.parent,
        f"{OPERATION.get(ended.kind, ended.kind)} {ended.model}",
        "server" if task.is_root else "internal",
        ended.stages.received + offset,
        max(ended.at_ns, ended.stages.received) + offset,
        _of_task(task, ended),
        ended.error,
        ended.message if task.content else "",  # an engine may quote the request
        task.state,
        events=task.events,
    )


def attempt_span(task: OpenTask, attempt: OpenAttempt, ended: AttemptEnded) -> Span:
    """The span of an attempt that has ended."""
    offset = task.offset_ns
    events = []
    if ended.first_ms:
        events.append(SpanEvent("first token", attempt.began_ns + int(ended.first_ms * 1e6) + offset, {}))
    links = [
        SpanLink(task.trace_id, other.span_id, {names.LINK: "retry" if _was_over(other, attempt) else "hedge"})
        for other in attempt.others
        if other.is_sent
    ]
    attributes: dict[str, Value] = {
        names.TASK: ended.task_id,
        names.ATTEMPT: attempt.number,
        names.AGENT: ended.agent_id,
        names.TRANSPORT: ended.transport,
    }
    if ended.tokens:
        attributes[names.OUTPUT_TOKENS] = ended.tokens
    if ended.error:
        attributes[names.ERROR_TYPE] = ended.error
        attributes[names.ORIGIN] = ended.origin
    return Span(
        task.trace_id,
        attempt.span_id,
        task.span_id,
        f"attempt {attempt.number}",
        "client",
        attempt.began_ns + offset,
        max(ended.at_ns, attempt.began_ns) + offset,
        attributes,
        ended.error,
        "",
        task.state,
        events=events,
        links=links,
    )


def _was_over(other: OpenAttempt, attempt: OpenAttempt) -> bool:
    """Whether ``attempt`` began after ``other``, and not beside it."""
    return 0 < other.ended_ns <= attempt.began_ns


def _answered(task: OpenTask, ended: TaskEnded) -> OpenAttempt | None:
    """The attempt whose answer was given."""
    if ended.error or not ended.stages.agent_received:
        return None
    found = [
        each for each in task.attempts.values() if each.ended_ns and not each.error and each.agent_id == ended.agent_id
    ]
    return found[-1] if found else None


def _agent_spans(task: OpenTask, attempt: OpenAttempt, ended: TaskEnded) -> Iterator[Span]:
    """What an answered attempt consists of."""
    stages, agent = ended.stages, ended.agent_id
    shift, clock = _shift(stages)
    told: Attributes = clock
    # Whatever an agent says of its times: they lie between those of the orchestrator.
    received = _between(stages.sent, stages.agent_received + shift, stages.delivered)
    started = received
    if stages.engine_started:
        started = _between(received, stages.engine_started + shift, stages.delivered)
    last = _between(started, stages.last_chunk + shift, stages.delivered)
    parent, transport = attempt.span_id, {names.TRANSPORT: ended.transport}
    yield _below(task, parent, "wire", "internal", stages.sent, received, {**transport, **told})
    if started > received:
        yield _below(task, parent, "agent wait", "internal", received, started, told, agent)
    of_engine: dict[str, Value] = {
        names.OPERATION_NAME: OPERATION.get(ended.kind, ended.kind),
        names.PROVIDER_NAME: PROVIDER,
        names.REQUEST_MODEL: ended.model,
        names.AGENT: agent,
        **told,
    }
    engine = _below(task, parent, "engine", "internal", started, last, of_engine, agent)
    if stages.first_chunk:
        at = _between(started, stages.first_chunk + shift, last) + task.offset_ns
        engine = engine._replace(events=(SpanEvent("first token", at, {}),))
    yield engine
    yield _below(task, parent, "wire", "internal", last, stages.delivered, {**transport, **told})


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _shift(stages: Stages) -> tuple[int, Attributes]:
    """What is added to the agent's times so that they are of the orchestrator's clock, and how that is known."""
    if stages.comparable:
        return 0, {}
    on_wire = (stages.delivered - stages.sent) - (stages.last_chunk - stages.agent_received)
    return stages.sent + max(0, on_wire) // 2 - stages.agent_received, {names.CLOCK: "estimated"}


def _below(
    task: OpenTask,
    parent: str,
    name: str,
    kind: SpanKind,
    start: int,
    end: int,
    attributes: Attributes,
    agent: str = "",
) -> Span:
    """A span from one monotonic time to another one."""
    offset = task.offset_ns
    return Span(
        task.trace_id,
        new_span_id(),
        parent,
        name,
        kind,
        start + offset,
        max(start, end) + offset,
        attributes,
        state=task.state,
        agent=agent,
    )


def _of_task(task: OpenTask, ended: TaskEnded) -> Attributes:
    told: dict[str, Value] = {
        names.OPERATION_NAME: OPERATION.get(ended.kind, ended.kind),
        names.PROVIDER_NAME: PROVIDER,
        names.REQUEST_MODEL: ended.model,
        names.REQUEST_STREAM: ended.stream,
        names.TASK: ended.task_id,
        names.ATTEMPTS: ended.attempts,
        names.PRIORITY: ended.priority,
    }
    more: dict[str, Value] = {
        names.CONVERSATION: ended.session,
        names.PARENT: ended.parent,
        names.TENANT: ended.tenant,
        names.AGENT: ended.agent_id,
        names.TRANSPORT: ended.transport,
        names.INPUT_TOKENS: ended.prompt_tokens,
        names.OUTPUT_TOKENS: ended.tokens or ended.deltas,
        names.FIRST_CHUNK: ended.first_ms / 1e3 if ended.stream else 0.0,
        names.ERROR_TYPE: ended.error,
        names.ORIGIN: ended.origin,
        names.INPUT_MESSAGES: task.content,
    }
    return told | {name: value for name, value in more.items() if value}
