"""The log's line for each request: who was asked what, how it ended and how long it took."""

from __future__ import annotations

import json
import logging
import time

from anywire.task_stream import TaskStream

log = logging.getLogger(__name__)

MAX_SHOWN = 256
"""Characters shown of what a client has chosen."""


class RequestLog:
    """Writes the lines of one gateway, at level info. Nothing is written unless ``wanted``."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

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
        ended = time.perf_counter()
        told: dict[str, object] = {"request": what[:MAX_SHOWN], "status": outcome, "model": model[:MAX_SHOWN]}
        if task is not None:
            told |= {
                "model": task.model or told["model"],
                "agent": task.agent_id,
                "transport": task.transport,
                "task": task.task_id,
            }
            stages = task.stages
            if stages.sent:
                told["queued_ms"] = round((stages.sent - stages.received) / 1e6, 1)
        if first:
            told["first_ms"] = round((first - began) * 1e3, 1)
        told |= {
            "total_ms": round((ended - began) * 1e3, 1),
            "error": error,
            "client": client,
            "request_id": request_id[:MAX_SHOWN],
            "trace": trace[3:35],
        }
        told = {name: value for name, value in told.items() if value != ""}
        rest = " ".join(f"{name}={_word(value)}" for name, value in told.items() if name not in ("request", "status"))
        extra = {"fields": told, "unlimited": task is not None}
        log.log(level, "%s %s %s", told["request"], outcome, rest, extra=extra)


def _word(value: object) -> str:
    """A value as one word: quoted where it is none."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(each in text for each in ' "=') else text
