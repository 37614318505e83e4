"""What is counted of tasks as they end: their times, tokens, waits and errors.

The names are those of OpenTelemetry's semantic conventions for generative AI where these have one, as Prometheus spells
them. Every label has a bounded number of values, whatever clients and agents make up (`BoundedNames`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from anywire.events import TaskEnded
from anywire.measures.families import AnyFamily, BoundedNames, Family
from anywire.measures.histogram import Histogram
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
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._names_tenants = names_tenants
        self._tenant_tasks: Counter[tuple[str, str]] = Counter()
        self._tenant_tokens: Counter[tuple[str, str]] = Counter()
        self._tenant_waits: dict[str, list[float]] = {}

    def add(self, task: TaskEnded, model: str) -> None:
        """Count a task that has ended, under the name ``model``."""
        model, transport = self._models(model), self._transports(task.transport)
        error = self._codes(task.error) if task.error else ""
        labels = (OPERATION.get(task.kind, task.kind), model, transport, error, PROVIDER)
        stages, span = task.stages, sampled_ids(task.trace) if task.trace else None
        duration = (task.at_ns - stages.received) * 1e-9
        self._duration.observe(labels, duration, span)
        wait = ((stages.selected or task.at_ns) - stages.received) * 1e-9
        self._wait.observe((urgency(task.priority),), wait, span)
        output = task.tokens or task.deltas
        self._tokens[model, "input"] += task.prompt_tokens
        self._tokens[model, "output"] += output
        if self._names_tenants:
            self._add_tenant(self._tenants(task.tenant), error, task.prompt_tokens, output, wait)
        if error:
            self._failed[task.origin, error] += 1
            return
        for stage, ms in stages.spans_ms().items():
            self._stages.observe((stage, transport), max(0.0, ms * 1e-3), span)  # an agent tells some of them
        if not task.stream or not task.first_ms:
            return
        first = task.first_ms * 1e-3
        self._first.observe(labels, first, span)
        if task.deltas > 1:
            self._per_token.observe(labels, (duration - first) / (task.deltas - 1), span)

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
            list(self._tokens.items()),
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
