"""Deliberations in a browser: asked, followed while they go on, shown with their evidence, cancelled."""

from __future__ import annotations

from pathlib import Path

from tests.deliberation.front_bench import Double, degraded, submitted, update
from tests.integration.gateway_serving import says
from tests.ui.browsers import Page
from tests.ui.viewer import HOSTILE, MARKS, viewing

from anywire.context import Context
from anywire.service import Service, ServiceConfig
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_deliberation.routes import deliberation_routes

pytestmark = MARKS


class Kept(Service):
    """Serves what ``double`` keeps, as the service of that name does."""

    name = "deliberation"
    Config = ServiceConfig

    def __init__(self, double: Double) -> None:
        super().__init__(ServiceConfig())
        self.double = double

    async def start(self, context: Context) -> None:
        library = Library.load()
        context.routes.add(*deliberation_routes(self.double, library.roles, library.rubrics))

    async def close(self) -> None: ...

    @property
    def offered(self) -> Double:
        return self.double


async def test_a_question_is_asked_and_followed_to_its_end(tab: Page, tmp_path: Path) -> None:
    double = Double()
    async with viewing(tab, tmp_path, says("x"), services=[Kept(double)]) as viewer:
        await viewer.open("deliberations")
        await viewer.shows("None is kept.")
        await viewer.until("return document.querySelector('[name=role]').options.length > 2", "the roles")
        await viewer.put("task", f"Reverse a list {HOSTILE}")
        await viewer.put("role", "DEV")
        await viewer.put("members", "4")
        await viewer.press("Ask")
        await viewer.shows(f"Reverse a list {HOSTILE}")
        assert double.asked == [{"task": f"Reverse a list {HOSTILE}", "rounds": 1, "members": 4, "role": "DEV"}]

        work = {"work": f"proposal/0/{HOSTILE}", "agent": "agent-1", "transport": "dds", "seconds": 0.25}
        await double.say(update(1, "stage", status="generating", round=0), update(2, "answered", **work))
        await viewer.shows(f"proposal/0/{HOSTILE} is answered by agent-1 over dds in 250 ms", ".news")
        name = next(iter(double.kept))
        ended = update(3, "ended", status="degraded", winner="member-2", reason="")
        await double.say(ended, ends=degraded(name, text=HOSTILE))
        await viewer.shows("degraded: member-3: no critique (agent_lost: it went). member-2 wins")
        await viewer.has_no_markup()


async def test_the_evidence_of_a_ranking_is_shown(tab: Page, tmp_path: Path) -> None:
    double = Double()
    double.kept["q 1"] = degraded("q 1", text=HOSTILE)
    double.said = [update(1, "ended", status="degraded", winner="member-2", reason="")]
    async with viewing(tab, tmp_path, says("x"), services=[Kept(double)]) as viewer:
        await viewer.open("deliberations")
        await viewer.shows("degraded")
        await viewer.looks_well("deliberations")
        link = "return document.querySelector('tbody a').getAttribute('href')"
        await viewer.open((await viewer.run(link)).removeprefix("#/"))
        await viewer.shows("member-2 wins")
        ranked = await viewer.run(
            "return [...document.querySelectorAll('.winner > *')].map((each) => each.textContent)"
        )
        assert ranked[:2] == ["1", "member-2"]
        assert "5.00" in ranked
        await viewer.press("member-2 (DEV), rank 1")
        for text in (
            HOSTILE,
            "lint: failed; no tests",
            "It copies.",
            "member-1: 5.00 (clarity 5)",
            "agent_lost: it went",
        ):
            await viewer.until("return document.querySelector('main').textContent.includes(arguments[0])", text, text)
        await viewer.looks_well("deliberation")


async def test_one_that_goes_on_is_cancelled(tab: Page, tmp_path: Path) -> None:
    double = Double()
    double.kept["q-1"] = submitted("q-1")
    async with viewing(tab, tmp_path, says("x"), services=[Kept(double)]) as viewer:
        await viewer.open("deliberations/q-1")
        await viewer.press("Cancel it")
        await viewer.shows("cancelled: cancelled by DELETE")
        assert double.cancelled == ["q-1"]
        assert not await viewer.run(
            "return [...document.querySelectorAll('button')].find("
            "each => each.textContent === 'Cancel it').checkVisibility()"
        )
        await viewer.nothing_went_wrong()


async def test_without_the_service_the_view_says_what_to_do(tab: Page, tmp_path: Path) -> None:
    async with viewing(tab, tmp_path, says("x")) as viewer:
        await viewer.open("deliberations")
        await viewer.shows("Install anywire-service-deliberation")
        await viewer.looks_well("deliberations-none")
