"""What is counted of tasks as they end: their times, tokens, waits and errors.

The names are those of OpenTelemetry's semantic conventions for generative AI where these have one, as Prometheus spells
them. Every label has a bounded number of values, whatever clients and agents make up (`BoundedNames`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from anywire.events import TaskEnded
from anywire.measures.families import AnyFamily, BoundedNames, Family
from anywire.measures.histogram import MOST_SERIES, Histogram, Series
from anywire.stages import SPANS
from anywire.tracing import sampled_ids

OPERATION = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
"""What the conventions call a kind of task."""
LABELS = ("gen_ai_operation_name", "gen_ai_request_model", "transport", "error_type", "gen_ai_provider_name")
PROVIDER = "anywire"

MOST_MODELS = 200
MOST_TENANTS = 200
MOST_TRANSPORTS = 20
MOST_CODES = 100
"""Different values of a label; further ones are `anywire.measures.families.OTHER`."""

# OpenTelemetry's bounds, in seconds, with finer ones before them: a fast path would end in their first bucket.
DURATION = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48,
            40.96, 81.92)  # fmt: skip
FIRST_TOKEN = (0.0005, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
STAGE = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0)
WAIT = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def urgency(priority: int) -> str:
    """The class of a priority, for a label."""
    return "normal" if not priority else "high" if priority > 0 else "low"


class _Sort:
    """What is counted of tasks that are alike in kind, model, transport and error, with names as labels have them.
    ``tokens`` are those of the model, of prompts and answers. ``stages`` are the times from each stage to the next,
    empty before the first answer that had reached all."""

    __slots__ = ("duration", "error", "first", "labels", "per_token", "stages", "tokens", "transport")

    def __init__(self, labels: tuple[str, ...], duration: Series, tokens: list[int]) -> None:
        self.labels, self.transport, self.error = labels, labels[2], labels[3]
        self.duration, self.tokens = duration, tokens
        self.first: Series | None = None
        self.per_token: Series | None = None
        self.stages: tuple[Series, ...] = ()


class TaskMeasures:
    """``names_tenants``: count by tenant too."""

    def __init__(self, names_tenants: bool = False) -> None:
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds", "From a task's submission to its end.", LABELS, DURATION
        )
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From submission to the first token of a stream.",
            LABELS,
            FIRST_TOKEN,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of a stream after its first.",
            LABELS,
            PER_TOKEN,
        )
        self._wait = Histogram(
            "anywire_queue_wait_seconds",
            "From a task's submission to the sending of its last attempt, or to its end where it was not sent.",
            ("urgency",),
            WAIT,
        )
        self._stages = Histogram(
            "anywire_stage_seconds",
            "Time of answered tasks between two stages.",
            ("stage", "transport"),
            STAGE,
        )
        self._models, self._tenants = BoundedNames(MOST_MODELS), BoundedNames(MOST_TENANTS)
        self._transports, self._codes = BoundedNames(MOST_TRANSPORTS), BoundedNames(MOST_CODES)
        self._failed: Counter[tuple[str, str]] = Counter()
        """Tasks that ended with an error, by who failed and the code."""
        self._tokens: dict[str, list[int]] = {}
        """By model: tokens of prompts, and of answers."""
        self._sorts: dict[tuple[str, str, str, str], _Sort] = {}
        """By kind, model, transport and error as tasks have them: what was looked up for one is there for the next."""
        self._names_tenants = names_tenants
        self._tenant_tasks: Counter[tuple[str, str]] = Counter()
        self._tenant_tokens: Counter[tuple[str, str]] = Counter()
        self._tenant_waits: dict[str, list[float]] = {}

    def add(self, task: TaskEnded, model: str) -> None:
        """Count a task that has ended, under the name ``model``."""
        sort = self._sorts.get((task.kind, model, task.transport, task.error)) or self._sort(task, model)
        stages, span = task.stages, sampled_ids(task.trace) if task.trace else None
        duration = (task.at_ns - stages.received) * 1e-9
        sort.duration.observe(duration, span)
        wait = ((stages.selected or task.at_ns) - stages.received) * 1e-9
        self._wait.observe((urgency(task.priority),), wait, span)
        output = task.tokens or task.deltas
        sort.tokens[0] += task.prompt_tokens
        sort.tokens[1] += output
        if self._names_tenants:
            self._add_tenant(self._tenants(task.tenant), sort.error, task.prompt_tokens, output, wait)
        if sort.error:
            self._failed[task.origin, sort.error] += 1
            return
        self._add_stages(task, sort, span)
        if not task.stream or not task.first_ms:
            return
        first = task.first_ms * 1e-3
        if sort.first is None:
            sort.first = self._first.series(sort.labels)
        sort.first.observe(first, span)
        if task.deltas > 1:
            if sort.per_token is None:
                sort.per_token = self._per_token.series(sort.labels)
            sort.per_token.observe((duration - first) / (task.deltas - 1), span)

    def _sort(self, task: TaskEnded, model: str) -> _Sort:
        """What is counted of tasks like this one. Kept for the next, where there is room: clients and agents make names
        up."""
        key = (task.kind, model, task.transport, task.error)
        model, transport = self._models(model), self._transports(task.transport)
        error = self._codes(task.error) if task.error else ""
        labels = (OPERATION.get(task.kind, task.kind), model, transport, error, PROVIDER)
        sort = _Sort(labels, self._duration.series(labels), self._tokens.setdefault(model, [0, 0]))
        if len(self._sorts) < MOST_SERIES:
            self._sorts[key] = sort
        return sort

    def _add_stages(self, task: TaskEnded, sort: _Sort, span: tuple[str, str] | None) -> None:
        """Count the times of an answer between two stages."""
        whole = task.stages.whole() if span is None else None
        if whole is None:
            for stage, ms in task.stages.spans_ms().items():
                # An agent tells some of them.
                self._stages.observe((stage, sort.transport), max(0.0, ms * 1e-3), span)
            return
        if not sort.stages:
            sort.stages = tuple([self._stages.series((stage, sort.transport)) for stage in SPANS])
        before = whole[0]
        # `Series.observe` for each of them; this is done for every task.
        for series, at in zip(sort.stages, whole[1:], strict=True):
            seconds = (at - before) * 1e-9 if at > before else 0.0
            series.counts[bisect_left(STAGE, seconds)] += 1
            series.sum += seconds
            before = at

    def _add_tenant(self, tenant: str, error: str, prompt_tokens: int, tokens: int, wait: float) -> None:
        self._tenant_tasks[tenant, error or "answered"] += 1
        self._tenant_tokens[tenant, "input"] += prompt_tokens
        self._tenant_tokens[tenant, "output"] += tokens
        waits = self._tenant_waits.setdefault(tenant, [0, 0.0])
        waits[0] += 1
        waits[1] += wait

    def families(self) -> Iterator[AnyFamily]:
        yield from (
            self._duration.family(),
            self._first.family(),
            self._per_token.family(),
            self._wait.family(),
            self._stages.family(),
        )
        yield Family(
            "anywire_tokens",
            "Tokens of prompts (input) and of answers (output), by model. Pieces of text where an engine counts none.",
            "counter",
            ("gen_ai_request_model", "gen_ai_token_type"),
            [
                ((model, of), number)
                for model, counts in self._tokens.items()
                for of, number in zip(("input", "output"), counts, strict=True)
            ],
        )
        yield Family(
            "anywire_task_errors",
            "Tasks that ended with an error, by who failed.",
            "counter",
            ("origin", "error"),
            list(self._failed.items()),
        )
        if self._names_tenants:
            yield from self._of_tenants()

    def _of_tenants(self) -> Iterator[AnyFamily]:
        yield Family(
            "anywire_tenant_tasks",
            "Tasks ended, by tenant and how: answered, or an error.",
            "counter",
            ("tenant", "outcome"),
            list(self._tenant_tasks.items()),
        )
        yield Family(
            "anywire_tenant_tokens",
            "Tokens of prompts (input) and of answers (output), by tenant.",
            "counter",
            ("tenant", "gen_ai_token_type"),
            list(self._tenant_tokens.items()),
        )
        yield Family(
            "anywire_tenant_queue_wait_seconds",
            "Waits of each tenant's tasks, as in anywire_queue_wait_seconds.",
            "summary",
            ("tenant",),
            [((tenant,), seconds) for tenant, (_, seconds) in self._tenant_waits.items()],
            [((tenant,), int(count)) for tenant, (count, _) in self._tenant_waits.items()],
        )
