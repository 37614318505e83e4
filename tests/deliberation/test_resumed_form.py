"""After a restart members are asked in the form of their models, which the agents have to tell first."""

from __future__ import annotations

from pathlib import Path

from tests.deliberation.deliberation_bench import Council, TimedService, asked, bench, ended
from tests.deliberation.test_running import joined

from anywire.engine import EngineStatus
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire.roles.service_host import ServiceHost
from anywire.testing.doubles import MODEL
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import service_bench
from anywire_service_deliberation.config import DeliberationConfig


class Structured(Council):
    """Its model is asked for scores by a JSON schema."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", (Offer(MODEL, features={"json": True}),))


def scores_asked(engine: Council) -> set[tuple[str, str]]:
    tasks: list[TaskRequest] = [event[3] for event in engine.recorder.named("asked") if event[2] == "score"]
    return {(task.session, task.body) for task in tasks}


async def test_a_score_is_asked_in_the_same_form_though_agents_come_back_later(tmp_path: Path) -> None:
    first, later = Structured(), Structured()
    first.hold("score")
    async with bench(tmp_path, engine=first) as (_, kept):
        await asked(kept)
        await first.all_asked("score", 6)
    assert all("response_format" in body for _, body in scores_asked(first))
    async with service_bench(state=tmp_path, engine=Council(models=("another",))) as served:
        await served.agent.close()
        await expect(served.orchestrator.agents_until(lambda agents: not agents), "no agent is there")
        service = TimedService(DeliberationConfig(folder=tmp_path / "kept"), None)
        served.host = ServiceHost([service], served.orchestrator, served.context)
        await served.host.start()
        run = service.offered.runs.get("lab", "q-1")
        await polled(lambda: len(run._works) == 6, "all scores are under way")
        other = await joined(served, later)
        try:
            assert (await ended(service.offered)).status == "completed"
        finally:
            await other.close()
    assert scores_asked(later) == scores_asked(first)
