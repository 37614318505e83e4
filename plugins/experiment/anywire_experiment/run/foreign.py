"""A system that is not Anywire's as the subject of a cell: its program, and its companions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from anywire.errors import AnywireError
from anywire_experiment.load.openai_http import HttpTarget
from anywire_experiment.load.target import Question, chat
from anywire_experiment.plan.arms import Arm
from anywire_experiment.plan.programs import filled
from anywire_experiment.plan.systems import SYSTEM, ForeignSystem
from anywire_experiment.plan.workload import Workload
from anywire_experiment.run.managed import Died, Managed
from anywire_experiment.run.program import ProgramProcess
from anywire_experiment.run.readiness import tries
from anywire_experiment.run.subject import Subject

_TRY = 30.0
"""Seconds that one try of a first request may take."""


class Foreign(Subject):
    """Ready once it answers a request. Nothing is known of what happens inside of it."""

    def __init__(
        self,
        arm: Arm,
        system: ForeignSystem,
        model: str,
        folder: Path,
        private: Path,
        cpus: Sequence[int],
        died: Died,
    ) -> None:
        """``model`` is asked for in the first request; empty for the first that it offers."""
        super().__init__(arm, folder, private, cpus, None, died)
        self._model = model
        self._base_url = self._filled(system.base_url)
        self._headers = {name: self._filled(text) for name, text in system.headers.items()}
        self._program: ProgramProcess | None = None
        if system.program is not None:
            log = folder / "logs" / f"{SYSTEM}.log"
            self._program = ProgramProcess(SYSTEM, system.program, self._places, cpus, log, died)

    @property
    def own(self) -> Mapping[str, Managed]:
        return {SYSTEM: self._program} if self._program is not None else {}

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def _start(self) -> None:
        if self._program is not None:
            (self._folder / f"{SYSTEM}.json").write_bytes(self._program.told())
            await self._program.begin(self._private / SYSTEM)
        self.url = self._base_url
        async for _ in tries():
            if await self._is_answered():
                return

    async def _is_answered(self) -> bool:
        target = HttpTarget(self.url, self.headers)
        try:
            model = self._model or await target.first_model()
            body = chat(model, [{"role": "user", "content": "Ready?"}], Workload(requests=1), 1, self.arm.request)
            answer = await target.ask(Question(model, body, False, 0, _TRY, 6))
        except (AnywireError, OSError, ValueError, LookupError, TypeError) as error:
            self.trouble = str(error)
            return False
        finally:
            await target.close()
        self.trouble = f"the first request: {answer.outcome if answer.outcome != 'ok' else 'an answer without text'}"
        return answer.outcome == "ok" and bool(answer.text)

    def _filled(self, text: str) -> str:
        return filled(text, self._places.get(SYSTEM, {}), lambda name, what: self._places[name][what])
