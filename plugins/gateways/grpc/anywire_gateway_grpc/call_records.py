"""How calls go: counted for whoever measures, and a line of the log for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from time import perf_counter

import grpc

from anywire.metric import Metric
from anywire.request_log import RequestLog

Status = grpc.StatusCode

REFUSED = frozenset((Status.UNAUTHENTICATED, Status.PERMISSION_DENIED, Status.RESOURCE_EXHAUSTED))
"""Statuses whose line names the client."""
ASKING = ("Deliberate", "DeliberateForBacklogReview", "StreamDeliberation", "Orchestrate", "ExecuteDeliberation",
          "ExecuteBacklogReviewDeliberation")  # fmt: skip
"""Methods that ask a question: their lines are written at level info, as are those of calls that fail."""


class CallRecords:
    """``wanted`` says whether there are lines. Methods are named without their package
    (``OrchestratorService/GetStatus``), so that older clients count as others do."""

    def __init__(self, wanted: bool) -> None:
        self._log = RequestLog(wanted)
        self._ended: Counter[tuple[str, str]] = Counter()
        """By method and status."""
        self._seconds: dict[str, float] = {}
        self.open: Counter[str] = Counter()
        """Calls under way, by method."""

    def begin(self, method: str) -> float:
        """When it began, as `end` wants to know it."""
        self.open[method] += 1
        return perf_counter()

    def end(
        self,
        method: str,
        began: float,
        code: grpc.StatusCode,
        *,
        error: str = "",
        client: str = "",
        question_id: str = "",
    ) -> None:
        """``error`` is the error's code, ``question_id`` the deliberation that was asked for."""
        self.open[method] -= 1
        self._ended[method, code.name] += 1
        self._seconds[method] = self._seconds.get(method, 0.0) + perf_counter() - began
        failed = code not in (Status.OK, Status.CANCELLED)
        self._log.add(
            f"gRPC {method}",
            code.name,
            began,
            error=error,
            client=client if code in REFUSED else "",
            request_id=question_id,
            important=failed or method.rpartition("/")[2] in ASKING,
        )

    def metrics(self) -> Iterator[Metric]:
        for (method, code), count in self._ended.items():
            text = "Calls that have ended, by method and status."
            yield Metric("calls", text, count, {"method": method, "code": code}, counter=True)
        for method, seconds in self._seconds.items():
            yield Metric("call_seconds", "Seconds that ended calls took.", seconds, {"method": method}, counter=True)
        for method, count in self.open.items():
            yield Metric("open_calls", "Calls under way now.", count, {"method": method})


def method_of(path: str) -> str:
    """The method of a call's path (``/package.Service/Method``) without the package."""
    service, _, method = path.removeprefix("/").partition("/")
    return f"{service.rpartition('.')[2]}/{method}"
