"""The subjects that events and requests have, the streams that keep them, and the durable consumers of them."""

from __future__ import annotations

from typing import NamedTuple

AGENT_REQUESTS = "agent.requests"
ANSWER_COMPLETED = "agent.response.completed"
ANSWER_FAILED = "agent.response.failed"
COLLECTED_COMPLETED = "orchestration.deliberation.completed"
COLLECTED_FAILED = "orchestration.deliberation.failed"
TASK_DISPATCHED = "orchestration.task.dispatched"
DELIBERATION_COMPLETED = "deliberation.completed"
DELIBERATION_FAILED = "deliberation.failed"
TASK_COMPLETED = "task.completed"
TASK_FAILED = "task.failed"
DEAD_LETTER = "deadletter"
SUBMIT = "anywire.submit"
"""With the kind after it: ``anywire.submit.chat``."""
SUBMITTED_COMPLETED = "anywire.submitted.completed"
SUBMITTED_FAILED = "anywire.submitted.failed"

COMPLETED_DURABLE = "deliberation-collector-completed-v2"
FAILED_DURABLE = "deliberation-collector-failed-v2"
COLLECTOR_GROUP = "deliberation-collector"


class Stream(NamedTuple):
    """``work_queue``: a message is gone once somebody has acknowledged it."""

    name: str
    subjects: tuple[str, ...]
    work_queue: bool = False


STREAMS = (
    Stream("AGENT_RESPONSES", ("agent.response.>",)),
    Stream("ORCHESTRATION", ("orchestration.>",)),
    Stream("DELIBERATIONS", ("deliberation.>",)),
    Stream("TASKS", ("task.completed", "task.failed")),
    Stream("AGENT_REQUESTS", (AGENT_REQUESTS,), work_queue=True),
    Stream("DEADLETTER", (DEAD_LETTER,)),
    Stream("ANYWIRE_SUBMISSIONS", (f"{SUBMIT}.*",), work_queue=True),
    Stream("ANYWIRE_SUBMITTED", ("anywire.submitted.>",)),
)
"""Those that are made where nobody has made one for their subjects."""
