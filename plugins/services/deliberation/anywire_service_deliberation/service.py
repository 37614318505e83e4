"""The service ``deliberation``: many agents on one question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from anywire.context import Context
from anywire.engine import Delta
from anywire.metric import Metric
from anywire.offers import Offer
from anywire.service import Service
from anywire.submission import Submission
from anywire_service_deliberation.answering import answer
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.request import MODEL
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_deliberation.routes import deliberation_routes
from anywire_service_deliberation.shipped_checks import checks_of
from anywire_service_deliberation.store import Place
from anywire_service_deliberation.stores import make_store

OWNER = "anywire"


class DeliberationService(Service):
    """Runs deliberations as ordinary tasks of the pipeline; see `anywire_service_deliberation.offered.Deliberations`.

    A deliberation is kept before its id is told. One that has not ended when the process does goes on in the next one:
    what was answered is not asked again. It offers the model ``deliberate``, and ``deliberate:ROLE`` for each role,
    whose answer is the winner's text. A store has one process at a time; another one begins once that has ended.
    """

    name = "deliberation"
    Config = DeliberationConfig

    config: DeliberationConfig

    def __init__(self, config: DeliberationConfig) -> None:
        super().__init__(config)
        self._kept: KeptDeliberations | None = None
        self._offers: tuple[Offer, ...] = ()

    @property
    def offered(self) -> Any:
        return self._kept

    async def start(self, context: Context) -> None:
        config = self.config
        library = Library.load(config.roles, config.rubrics)
        folder = config.folder.expanduser() if config.folder is not None else context.state_folder
        place = Place(folder.absolute(), config.max_kept)
        store = make_store(config.store.name, config.store.options, place, f"services.{self.name}.store")
        models = [MODEL, *(f"{MODEL}:{role.name}" for role in library.roles.values())]
        self._offers = tuple(Offer(model, kinds=("chat",), owner=OWNER) for model in models)
        checks = checks_of(config.checks, f"services.{self.name}.checks")
        self._kept = KeptDeliberations(context, store, config, library, checks)
        context.routes.add(*deliberation_routes(self._kept, library.roles, library.rubrics))
        # Last: what is resumed asks for the models that are offered once this has returned.
        await self._kept.start()

    def gate_closed(self) -> None:
        if self._kept is not None:
            self._kept.stop()

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()

    def offers(self) -> tuple[Offer, ...]:
        return self._offers

    def answer(self, task_id: str, submission: Submission) -> AsyncIterator[Delta]:
        assert self._kept is not None
        return answer(self._kept, task_id, submission)

    def metrics(self) -> Iterable[Metric]:
        if self._kept is None:
            return
        text = "1 while this orchestrator has the deliberations, 0 while another one has them."
        yield Metric("active", text, float(self._kept.is_open))
        runs = self._kept.runs
        yield Metric("running_deliberations", "Deliberations that are under way.", runs.running)
        for status, count in runs.ended.items():
            text = "Deliberations that have ended since the start, by how they did."
            yield Metric("ended_deliberations", text, count, {"status": status}, counter=True)
