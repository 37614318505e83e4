"""The tasks that clients of the predecessor may ask for after they have ended."""

from __future__ import annotations

import time
from collections import OrderedDict

import msgspec

from anywire.caller import Caller

KEPT = 1000
KEPT_CHARS = 8 * 1024 * 1024
"""Characters of all texts that are kept."""


class Record(msgspec.Struct):
    """Times in seconds since 1970, as in the predecessor."""

    task_id: str
    task_type: str
    caller: Caller
    created_at: float = msgspec.field(default_factory=time.time)
    completed_at: float | None = None
    status: str = "running"
    response: str = ""
    error: str | None = None


class Finished:
    """The newest that have ended, within two bounds."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._chars = 0

    def add(self, record: Record, status: str, response: str = "", error: str | None = None) -> None:
        record.status, record.response, record.error = status, response, error
        record.completed_at = time.time()
        self._records[record.task_id] = record
        self._chars += len(response)
        while len(self._records) > KEPT or (self._chars > KEPT_CHARS and len(self._records) > 1):
            _, oldest = self._records.popitem(last=False)
            self._chars -= len(oldest.response)

    def get(self, task_id: str, caller: Caller) -> Record | None:
        record = self._records.get(task_id)
        return record if record is not None and _may_see(caller, record) else None

    def of(self, caller: Caller) -> list[Record]:
        return [record for record in self._records.values() if _may_see(caller, record)]


def _may_see(caller: Caller, record: Record) -> bool:
    return caller.has_role("operate") or (caller.tenant, caller.id) == (record.caller.tenant, record.caller.id)
