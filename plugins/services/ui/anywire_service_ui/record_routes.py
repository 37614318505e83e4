"""Reports of experiments over HTTP: a list for whoever observes, and each report as a page that can do nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from anywire.clock import Clock
from anywire.errors import InvalidRequest
from anywire.route import Request, Response, Route
from anywire_service_ui.records import Records, RecordView
from anywire_service_ui.tickets import Tickets

R = TypeVar("R")


class RecordList(msgspec.Struct, frozen=True, kw_only=True):
    """``folders`` counts those that the settings name."""

    object: str = "list"
    data: list[RecordView]
    folders: int


class ReportPath(msgspec.Struct, frozen=True, kw_only=True):
    """A report can be had at ``path``, once."""

    object: str = "report"
    path: str


POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""A report is somebody else's page: no script runs in it, it is of no origin, and it asks for nothing. What the
``sandbox`` of a frame says holds by this also where the report is opened by itself."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
TEXT = "text/plain; charset=utf-8"

_encode = msgspec.json.Encoder().encode


class RecordHandlers:
    """``folders`` are those of the settings, ``base`` the path below which reports are served once a ticket was had."""

    def __init__(self, folders: Sequence[Path], clock: Clock, base: str) -> None:
        self._records, self._folders, self._base = Records(folders), len(folders), base
        self._tickets: Tickets[str] = Tickets(clock)
        self._reader = ThreadPoolExecutor(1, "records")

    def close(self) -> None:
        """Release the thread that reads. Safe to call twice."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def list(self, request: Request) -> Response:
        found = await self._read(self._records.list)
        return Response(_encode(RecordList(data=found, folders=self._folders)))

    async def open(self, request: Request) -> Response:
        """A path at which the report can be had once, within some seconds."""
        name = request.names.get("id", "")
        if not await self._read(lambda: self._records.has_report(name)):
            raise InvalidRequest(
                f"there is no report of a record {name[:64]!r}: `anywire experiment report RECORD` writes one",
                status=404,
                detail_code="report_not_found",
            )
        return Response(_encode(ReportPath(path=f"{self._base}/{self._tickets.issue(name)}")))

    async def report(self, request: Request) -> Response:
        """The report that a ticket stands for. Whoever has the ticket needs no key."""
        name = self._tickets.take(request.names.get("ticket", ""))
        if name is None:
            return _text(404, "This path has led to a report once. Open the report again in the page.")
        try:
            report = await self._read(lambda: self._records.report(name))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return _text(409, f"The report cannot be read: {why}. `anywire experiment report RECORD` writes it anew.")
        return Response(report, 200, "text/html; charset=utf-8", HEADERS)

    async def _read(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)


def record_routes(handlers: RecordHandlers) -> list[Route]:
    """Those below ``/v1``; `RecordHandlers.report` is served beside the page itself."""
    return [
        Route(
            "GET",
            "/ui/records",
            handlers.list,
            role="observe",
            summary="List records of experiments.",
            gives=RecordList,
        ),
        Route(
            "POST",
            "/ui/records/{id}/report",
            handlers.open,
            role="observe",
            body_limit=1024,
            summary="Give a path at which the report of a record can be had once, within 30 seconds.",
            gives=ReportPath,
        ),
    ]


def _text(status: int, text: str) -> Response:
    return Response(text.encode(errors="replace"), status, TEXT, HEADERS)
