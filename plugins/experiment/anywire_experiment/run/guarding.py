"""The guard of the processes that an event loop has started (`anywire_experiment.run.guard`): a process of its own,
which is there as long as any of them is.

Only a process can end others after this one was killed: no code of it runs then any more. A kernel's signal to each
child (``PR_SET_PDEATHSIG``) would end what this process has started, and not what that has started in its turn.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from weakref import WeakKeyDictionary


class Guard:
    """Get it with `guarded`, and give each hold back with `release`."""

    def __init__(self) -> None:
        self.holds = 0
        self._starting = asyncio.create_task(_started())

    async def started(self) -> None:
        await asyncio.shield(self._starting)

    def watch(self, pid: int) -> None:
        """End this process, the leader of a session, should this one be gone."""
        self._say(f"+{pid}\n")

    async def release(self, pid: int = 0) -> None:
        """Give a hold back; the process has ended, 0 where none was started. The last one ends the guard."""
        if pid:
            self._say(f"-{pid}\n")
        self.holds -= 1
        if self.holds:
            return
        loop = asyncio.get_running_loop()
        if _guards.get(loop) is self:
            del _guards[loop]
        try:
            process = await asyncio.shield(self._starting)
        except OSError:
            return  # it was never there
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    def _say(self, line: str) -> None:
        process = self._starting.result()
        assert process.stdin is not None
        process.stdin.write(line.encode())


_guards: WeakKeyDictionary[asyncio.AbstractEventLoop, Guard] = WeakKeyDictionary()


async def guarded() -> Guard:
    """The guard of this event loop, started unless it is there, with one more hold."""
    loop = asyncio.get_running_loop()
    guard = _guards.get(loop)
    if guard is None:
        guard = _guards[loop] = Guard()
    guard.holds += 1
    try:
        await guard.started()
    except BaseException:
        await guard.release()
        raise
    return guard


async def _started() -> Process:
    # In a session of its own: whoever ends the runner's group does not end what is to outlive it.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "anywire_experiment.run.guard"),
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
    )
