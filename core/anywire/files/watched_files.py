"""Files that are read again when they change: keys, certificates, admitted identities."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path

log = logging.getLogger(__name__)

STEP_MS, DEBOUNCE_MS = 100, 500
"""A change is told so many milliseconds after the last one, at the latest so many after the first."""
UNTOLD_MS = 5_000
"""Milliseconds after which a change counts that nothing has told of, as those on network file systems."""

_Mark = tuple[int, int, int] | None


class WatchedFiles:
    """Calls ``changed`` on the event loop whenever one of ``paths`` has another content, mode or owner, has come or
    gone. A file may be replaced, also behind a symbolic link. What ``changed`` raises is logged.

    The first comparison is with the files as they are at the constructor: construct, read the files, `start`, and no
    change is missed.
    """

    def __init__(self, paths: Iterable[Path], changed: Callable[[], object]) -> None:
        self._paths, self._changed = [path.absolute() for path in paths], changed
        self._marks = self._look()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch. Call it on the event loop, once."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop to watch; ``changed`` is not called any more. Safe to call twice, and without `start`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        names = ", ".join(map(str, self._paths))
        try:
            try:
                while True:
                    await self._follow(polling=False)
            except (OSError, RuntimeError, ExceptionGroup) as error:
                # Too many watches, or a file system that has none.
                log.warning("nothing tells of changes of %s, so they are looked for: %s", names, error)
                while True:
                    await self._follow(polling=True)
        except Exception as error:
            log.error("changes of %s count only after a restart: %s", names, error)

    async def _follow(self, *, polling: bool) -> None:
        """Compare whenever something has changed; return when other folders are to be watched."""
        from watchfiles import awatch

        folders = self._folders()
        changes = awatch(
            *folders,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            rust_timeout=DEBOUNCE_MS if polling else UNTOLD_MS,
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=DEBOUNCE_MS,
            recursive=False,
            ignore_permission_denied=True,
        )
        async with aclosing(changes):
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)  # it watches from now on
            self._compare()
            await first
            self._compare()
            while self._folders() == folders:
                await anext(changes)
                self._compare()

    def _folders(self) -> dict[str, tuple[int, int]]:
        """What to watch, with device and number: a file that is replaced is another file, and one behind a link changes
        elsewhere. Where a folder is missing, it is the one in which it will appear."""
        found = {}
        for folder in (each for path in self._paths for each in (path.parent, Path(os.path.realpath(path)).parent)):
            while not folder.is_dir():
                folder = folder.parent
            status = folder.stat()
            found[str(folder)] = status.st_dev, status.st_ino
        return found

    def _compare(self) -> None:
        marks = self._look()
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._changed()
        except Exception:
            log.exception("a change of %s is not heeded", ", ".join(map(str, self._paths)))

    def _look(self) -> list[_Mark]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> _Mark:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size
