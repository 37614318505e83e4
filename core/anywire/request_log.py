"""The log's line for each request: who was asked what, how it ended and how long it took.

A line is written for every request, so it is made with as little work as possible: its text at once, and what formats
of objects want of it (`RequestRecord.fields`) only where one asks.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from anywire.task_stream import TaskStream

log = logging.getLogger(__name__)

MAX_SHOWN = 256
"""Characters shown of what a client has chosen."""
STATEMENT = "%s %s%s"

Told = tuple[tuple[str, object], ...]


class RequestRecord(logging.LogRecord):
    """A record of the standard library's `logging`, without the look at the calling frames that a record costs
    otherwise: what never changes of it comes from ``fixed``."""

    unlimited = False
    """See `anywire.log_lines.RepeatLimit`."""

    def __init__(self, fixed: dict[str, Any], level: int, what: str, outcome: int | str, told: Told) -> None:
        own = self.__dict__
        own.update(fixed)
        self.created = now = time.time()
        self.msecs = float(int(now % 1 * 1000))
        self.relativeCreated = fixed["relativeCreated"] + (now - fixed["created"]) * 1000
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.args = (what, outcome, _words(told))
        self._told = (("request", what), ("status", outcome), *told)

    @property
    def fields(self) -> dict[str, object]:
        """What it tells, by name."""
        return {name: value for name, value in self._told if value != ""}


class RequestLog:
    """Writes the lines of one gateway, at level info. Nothing is written unless ``wanted``. Make it in the process and
    the thread that use it."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        record = log.makeRecord(log.name, logging.INFO, __file__, 0, STATEMENT, (), None, RequestLog.add.__name__)
        self._fixed = dict(record.__dict__) | {"taskName": None}

    def add(
        self,
        what: str,
        outcome: int | str,
        began: float,
        *,
        task: TaskStream | None = None,
        model: str = "",
        first: float = 0.0,
        error: str = "",
        client: str = "",
        request_id: str = "",
        trace: str = "",
        important: bool = True,
    ) -> None:
        """Write a line now, as the request ends.

        ``what`` was asked for, such as ``POST /v1/chat/completions``, and ended with ``outcome``, such as the status.
        ``model`` is the one that was asked for; the ``task`` may know a nearer one.
        ``began`` and ``first`` (when the first piece of a stream was there; 0 without) are of `time.perf_counter`.
        ``error`` is the error's code, ``client`` the address of a client that is to be told. With ``important`` false
        the level is debug. ``trace`` is the one that is kept of it (`anywire.tracing`). Where a request has no ``task``
        its line is limited as any other is (`anywire.log_lines.RepeatLimit`).
        """
        level = logging.INFO if important else logging.DEBUG
        if not self._wanted or not log.isEnabledFor(level):
            return
        total_ms = round((time.perf_counter() - began) * 1e3, 1)
        first_ms = round((first - began) * 1e3, 1) if first else ""
        agent = transport = task_id = ""
        queued_ms: float | str = ""
        if task is not None:
            model, agent, transport, task_id = task.model or model, task.agent_id, task.transport, task.task_id
            stages = task.stages
            if stages.sent:
                queued_ms = round((stages.sent - stages.received) / 1e6, 1)
        told = (
            ("model", model[:MAX_SHOWN]),
            ("agent", agent),
            ("transport", transport),
            ("task", task_id),
            ("queued_ms", queued_ms),
            ("first_ms", first_ms),
            ("total_ms", total_ms),
            ("error", error),
            ("client", client),
            ("request_id", request_id[:MAX_SHOWN]),
            ("trace", trace[3:35]),
        )
        record = RequestRecord(self._fixed, level, what[:MAX_SHOWN], outcome, told)
        if task is not None:
            record.unlimited = True
        log.handle(record)


def _words(told: Told) -> str:
    """All that is not empty, as ``name=value`` with a space before each: a value is quoted where it is no word."""
    text = ""
    for name, value in told:
        if value != "":
            word = str(value)
            if " " in word or '"' in word or "=" in word:
                word = json.dumps(word, ensure_ascii=False)
            text += f" {name}={word}"
    return text
