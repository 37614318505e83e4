"""The tables of deliberations in their file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from anywire.errors import PluginFailed
from anywire.files.database_file import DatabaseFile
from anywire_service_deliberation.database_form import FORM
from anywire_service_deliberation.offered import Council
from anywire_service_deliberation.question import Question, Rubric
from anywire_service_deliberation.record import Answer, Deliberation, Failure

log = logging.getLogger(__name__)

_PARTS: dict[str, type[Answer | Failure]] = {"answers": Answer, "failures": Failure, "late": Answer}
"""Members of a `Deliberation` that only grow: each of their entries is a row, written once."""
_NO_QUESTION = Question("", "", (), {}, Rubric("", ()))
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_COLUMNS = "number, id, question, state"
LOG_PAGES = 16_384
"""Pages of 4 KiB in the write-ahead log from which on the one who writes makes a checkpoint itself, and holds up what
comes after it: where writes never pause, the log would grow for ever."""


class _Known(NamedTuple):
    """The number of a deliberation, and how many entries of each part are kept."""

    number: int
    counts: dict[str, int]


class Tables(DatabaseFile):
    """What is in the file. All raise `sqlite3.Error` when the disk does not do what it should; nothing has changed
    then."""

    form = FORM

    def __init__(self, folder: Path, *, reader: bool = False) -> None:
        super().__init__(folder, reader=reader)
        self._known: dict[tuple[str, str], _Known] = {}
        """Of deliberations under way, by tenant and id; what is missing is looked up. Each statement gives the
        interpreter away, and a busy event loop gives it back late."""

    # Deliberations

    def open(self) -> bool:
        """As `DatabaseFile.open`. A write is not synced: `anywire_service_deliberation.checkpoints` does that later."""
        if not super().open():
            return False
        if not self._reader:
            self._run(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        return True

    def add(self, tenant: str, state: Deliberation) -> Deliberation:
        """Keep a new one; the one that is there when the tenant has that id, and it has not expired by then."""
        number = self._insert(tenant, state)
        if number is None:
            found = self.get(tenant, state.question.id)
            known = self._look_up(tenant, state.question.id)
            if found is None or known is None:
                raise PluginFailed(f"what is kept of the deliberation {state.question.id} is damaged: use another id")
            if not 0 < found.expires <= state.submitted:
                return found
            self.remove([known.number])
            number = self._insert(tenant, state)
            assert number is not None
        self._known[tenant, state.question.id] = _Known(number, dict.fromkeys(_PARTS, 0))
        return state

    def keep(self, tenant: str, state: Deliberation) -> None:
        """Keep this newer state: what has come is added, the rest replaced."""
        key = (tenant, state.question.id)
        known = self._known.get(key) or self._look_up(*key)
        if known is None:
            return
        rows = []
        for part in _PARTS:
            entries: dict[str, Answer | Failure] = getattr(state, part)
            new = islice(entries.items(), known.counts[part], None)
            rows += [
                (known.number, part, at, work, _encode(entry))
                for at, (work, entry) in enumerate(new, known.counts[part])
            ]
        if rows:
            self._run_many("INSERT INTO works VALUES (?, ?, ?, ?, ?)", rows)
        self._run(
            "UPDATE deliberations SET status = ?, ended = ?, expires = ?, state = ? WHERE number = ?",
            state.status,
            state.ended,
            state.expires,
            _rest(state),
            known.number,
        )
        if state.is_final:
            self._known.pop(key, None)
        else:
            self._known[key] = _Known(known.number, {part: len(getattr(state, part)) for part in _PARTS})

    def get(self, tenant: str | None, question_id: str) -> Deliberation | None:
        """Of any tenant, the newest, when ``tenant`` is None."""
        where, values = (
            ("id = ?", [question_id]) if tenant is None else ("id = ? AND tenant = ?", [question_id, tenant])
        )
        rows = self._rows(f"SELECT {_COLUMNS} FROM deliberations WHERE {where} ORDER BY number DESC LIMIT 1", *values)
        return next(self._read(rows), None)

    def listed(self, tenant: str | None, status: str, role: str, limit: int) -> list[int]:
        """The numbers of these, the newest first."""
        conditions: dict[str, Any] = {}
        if tenant is not None:
            conditions["tenant = ?"] = tenant
        if status:
            conditions["status = ?"] = status
        if role:
            conditions["instr(roles, ?) > 0"] = f"\n{role}\n"
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._rows(
            f"SELECT number FROM deliberations {where} ORDER BY submitted DESC, number DESC LIMIT ?",
            *conditions.values(),
            limit,
        )
        return [number for (number,) in rows]

    def without_texts(self, numbers: Sequence[int]) -> list[Deliberation]:
        """Those that are still there of these numbers, in their order. The texts of their answers are empty."""
        found = []
        for number in numbers:
            for state in self._read(self._rows(f"SELECT {_COLUMNS} FROM deliberations WHERE number = ?", number)):
                parts = {part: _untold(getattr(state, part)) for part in ("answers", "late")}
                found.append(msgspec.structs.replace(state, **parts))
        return found

    def unfinished(self) -> list[Deliberation]:
        """The oldest first."""
        return list(self._read(self._rows(f"SELECT {_COLUMNS} FROM deliberations WHERE ended = 0 ORDER BY number")))

    def expired(self, now: float, most: int) -> list[int]:
        """The numbers of those that have expired, and of more than ``most`` that have ended the oldest of the tenants
        that have the most."""
        rows = [*self._rows("SELECT number FROM deliberations WHERE ended > 0 AND expires <= ?", now)]
        ((count,),) = self._rows("SELECT COUNT(*) FROM deliberations WHERE ended > 0")
        if count > most:
            rows += self._rows(
                "SELECT number FROM (SELECT number, ended, ROW_NUMBER() OVER "
                "(PARTITION BY tenant ORDER BY ended DESC, number DESC) AS place FROM deliberations WHERE ended > 0) "
                "ORDER BY place, ended DESC LIMIT -1 OFFSET ?",
                most,
            )
        return list(dict.fromkeys(number for (number,) in rows))

    def remove(self, numbers: Sequence[int]) -> None:
        rows = [(number,) for number in numbers]
        self._run_many("DELETE FROM works WHERE deliberation = ?", rows)
        self._run_many("DELETE FROM deliberations WHERE number = ?", rows)

    # Councils

    def councils(self) -> list[tuple[str, Council]]:
        """Each with its tenant. One that cannot be read is left out."""
        found = []
        for tenant, name, data in self._rows("SELECT tenant, name, data FROM councils ORDER BY tenant, name"):
            try:
                found.append((tenant, msgspec.json.decode(data, type=Council)))
            except _UNREADABLE as error:
                log.error("the council %s cannot be read: what is kept of it is damaged: %s", name, error)
        return found

    def put_council(self, tenant: str, council: Council) -> None:
        self._run("INSERT OR REPLACE INTO councils VALUES (?, ?, ?)", tenant, council.name, _encode(council))

    def delete_council(self, tenant: str, name: str) -> bool:
        found = bool(self._rows("SELECT 1 FROM councils WHERE tenant = ? AND name = ?", tenant, name))
        self._run("DELETE FROM councils WHERE tenant = ? AND name = ?", tenant, name)
        return found

    # Inside

    def _insert(self, tenant: str, state: Deliberation) -> int | None:
        """The number of a new one; None where the tenant has that id."""
        added = self._rows(
            "INSERT INTO deliberations (tenant, id, status, roles, submitted, ended, expires, question, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING number",
            tenant,
            state.question.id,
            state.status,
            "".join(f"\n{name}\n" for name in dict.fromkeys(member.role for member in state.question.members)),
            state.submitted,
            state.ended,
            state.expires,
            _encode(state.question),
            _rest(state),
        )
        return added[0][0] if added else None

    def _forget(self) -> None:
        self._known.clear()

    def _look_up(self, tenant: str, question_id: str) -> _Known | None:
        """What is kept of one."""
        for (number,) in self._rows(
            "SELECT number FROM deliberations WHERE tenant = ? AND id = ?", tenant, question_id
        ):
            counts = self._rows("SELECT part, COUNT(*) FROM works WHERE deliberation = ? GROUP BY part", number)
            return _Known(number, dict.fromkeys(_PARTS, 0) | dict(counts))
        return None

    def _read(self, rows: Iterable[Any]) -> Iterator[Deliberation]:
        """Those that can be read. One that cannot is left out, and is there until it is removed by hand."""
        for number, question_id, question, state in rows:
            parts: dict[str, dict[str, Answer | Failure]] = {part: {} for part in _PARTS}
            works = self._rows(
                "SELECT part, work, data FROM works WHERE deliberation = ? ORDER BY part, number", number
            )
            try:
                for part, work, data in works:
                    parts[part][work] = msgspec.json.decode(data, type=_PARTS[part])
                rest = msgspec.json.decode(state, type=Deliberation)
                asked = msgspec.json.decode(question, type=Question)
            except (*_UNREADABLE, KeyError) as error:
                log.error("the deliberation %s cannot be read: what is kept of it is damaged: %s", question_id, error)
                continue
            yield msgspec.structs.replace(rest, question=asked, **parts)


def _untold(answers: dict[str, Answer]) -> dict[str, Answer]:
    return {work: msgspec.structs.replace(answer, text="") for work, answer in answers.items()}


def _rest(state: Deliberation) -> bytes:
    """What is written anew with each state."""
    return _encode(msgspec.structs.replace(state, question=_NO_QUESTION, answers={}, failures={}, late={}))
