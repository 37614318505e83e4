"""What becomes of the processes of models: they are started, tell of themselves, are stopped, fail and start again.

What a process tells comes from the task that has started it, in order, and last of all `Course.gone`. What no longer
fits the state of its model is passed over.
"""

from __future__ import annotations

from anywire.errors import AnywireError
from anywire_engine_models.host.effects import End, Launch
from anywire_engine_models.host.refusals import did_not_start, hangs, has_failed, was_stopped
from anywire_engine_models.host.resident import LONG_LIFE, Resident
from anywire_engine_models.host.roster import Roster
from anywire_engine_models.host.server import Device, Exit

ASKED, REQUESTED, AUTOSTART = "asked to", "its first task", "autostart"


class Course:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    # What is decided

    def launch(self, resident: Resident, now: float) -> None:
        """Start its process. Its memory is free."""
        reason = _why_it_starts(resident)
        resident.live = resident.model
        resident.exit = None
        resident.device_reason = ""
        resident.began_at = now
        resident.starts += 1
        self._roster.loads += 1
        resident.swapped = resident.evicts_since is not None
        self._roster.swaps += resident.swapped
        resident.wanted_since = None
        self._roster.move(resident, "starting", reason)
        self._roster.effects.append(Launch(resident.model))

    def stop(self, resident: Resident, reason: str) -> None:
        """Stop its process, or its start."""
        self._roster.move(resident, "stopping", reason)
        self._roster.effects.append(End(resident.name))

    def evict(self, resident: Resident, claim: Resident, now: float) -> None:
        """Stop it for the sake of ``claim``. Requests that wait for it are served when it is its turn again."""
        resident.evictions += 1
        if claim.evicts_since is None:
            claim.evicts_since = now
        if resident.is_awaited:
            resident.want(now)
        self.stop(resident, f"makes room for {claim.name}")

    # What its process tells

    def placed(self, name: str, device: Device, now: float) -> None:
        """A device was chosen."""
        if (resident := self._starting(name)) is not None:
            resident.device, resident.device_reason = device.name, device.reason
            resident.pid, resident.progress = 0, 0.0
            self._roster.tell_news(resident)

    def spawned(self, name: str, pid: int, now: float) -> None:
        if (resident := self._starting(name)) is not None:
            resident.pid = pid
            self._roster.tell_news(resident)

    def progressed(self, name: str, part: float, now: float) -> None:
        if (resident := self._starting(name)) is not None:
            resident.progress = part
            self._roster.tell_news(resident)

    def ready(self, name: str, pid: int, address: str, now: float) -> None:
        if (resident := self._starting(name)) is None:
            return
        resident.pid, resident.address, resident.progress = pid, address, 1.0
        resident.load_seconds = now - resident.began_at
        resident.running_since = resident.used_at = now
        resident.owes = bool(resident.queue)
        if resident.queue or resident.swapped:
            turn = self._roster.settings.turn
            resident.turn_until, resident.work_until = now + turn, now + max(turn, resident.load_seconds)
        else:
            resident.turn_until = resident.work_until = 0.0
        if resident.evicts_since is not None:
            self._roster.swap_seconds += now - resident.evicts_since
        resident.want_nothing()
        self._roster.move(resident, "running", resident.reason)
        self._roster.answer(resident, resident.starters)

    def failed(self, name: str, ended: Exit, now: float) -> None:
        """It did not start."""
        if (resident := self._starting(name)) is not None:
            self._crash(resident, ended, now, has_run=False)

    def ended(self, name: str, ended: Exit, now: float) -> None:
        """It ran, and has ended by itself."""
        resident = self._roster.residents.get(name)
        if resident is not None and resident.state == "running":
            self._crash(resident, ended, now, has_run=True)

    def hangs(self, name: str, reason: str, now: float) -> None:
        """It does not end. Whoever waits for that is told, and waits no more."""
        resident = self._roster.residents.get(name)
        if resident is None or resident.live is None:
            return
        resident.hangs, resident.reason = True, reason
        self._roster.tell_news(resident)
        self._roster.fail(resident.stoppers, lambda: hangs(resident))

    def gone(self, name: str, now: float) -> None:
        """Nothing of it is left."""
        resident = self._roster.residents.get(name)
        if resident is None or resident.live is None:
            return
        if resident.state in ("starting", "running"):
            self._crash(resident, Exit("its launcher has ended without a word"), now, has_run=False)
        resident.live, resident.hangs = None, False
        resident.forget_process()
        if resident.state == "stopping":
            self._roster.move(resident, "stopped", resident.reason)
        elif resident.stoppers:
            self._roster.move(resident, "stopped", ASKED)
        self._roster.answer(resident, resident.stoppers)
        if resident.removed:
            self._roster.drop(resident)

    def _starting(self, name: str) -> Resident | None:
        resident = self._roster.residents.get(name)
        return resident if resident is not None and resident.state == "starting" else None

    def _crash(self, resident: Resident, ended: Exit, now: float, *, has_run: bool) -> None:
        lived = now - resident.running_since
        resident.failures = 1 if has_run and lived > LONG_LIFE else resident.failures + 1
        resident.exit = ended
        resident.not_before = now + resident.delay()
        starts_again = (
            resident.model.restart == "on-failure"
            and resident.failures <= resident.model.max_restarts
            and (has_run or bool(resident.keep))
            and not (resident.removed or self._roster.is_closing)
        )
        if resident.evicts_since is not None:
            self._roster.swap_seconds += now - resident.evicts_since
        resident.want_nothing()
        if starts_again:
            resident.keep = "restart"
            resident.want(now)
        resident.forget_process()
        self._roster.move(resident, "crashed", ended.reason)

        def error() -> AnywireError:
            return has_failed(resident, now)

        self._roster.fail(resident.starters, lambda: did_not_start(resident, now))
        if not (starts_again and resident.model.on_demand):
            self._roster.fail(resident.queue, error)

    def refuse(self, resident: Resident, refusal: AnywireError) -> None:
        """It cannot be started, so nobody waits for that."""
        resident.want_nothing()
        if resident.live is None:
            resident.reason = refusal.message
            self._roster.tell_news(resident)

    def fail_waiting(self, resident: Resident, reason: str) -> None:
        """It is stopped: whoever waits for it is told."""
        self._roster.fail([*resident.starters, *resident.queue], lambda: was_stopped(resident, reason))


def _why_it_starts(resident: Resident) -> str:
    if resident.keep == "restart" and not resident.starters:
        why = f" ({resident.exit.reason})" if resident.exit else ""
        return f"restart {resident.failures} of at most {resident.model.max_restarts}{why}"
    if resident.starters:
        return ASKED
    if resident.keep == "autostart" and not resident.queue:
        return AUTOSTART
    return REQUESTED
