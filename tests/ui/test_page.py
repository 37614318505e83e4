"""The page in a real browser: it shows the fleet, its queue and its tasks as they change, and nothing goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.ui.browsers import DESK, PHONE, Page, browsing, needs_browser
from tests.ui.page_fleets import HOSTILE, PageFleet, page_fleet

from reserved import free_port

pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
pytestmark = [needs_browser, pytest.mark.timeout(240)]

FOR_EVER = 3_600_000
IS_OLD = "return document.querySelector('#newer').checkVisibility()"
UPGRADED = """
const before = window.fetch;
const other = JSON.stringify({ services: [], records: 0, page: "another one" });
window.fetch = (url, ...more) =>
  url.endsWith("/v1/ui/parts") ? Promise.resolve(new Response(other)) : before(url, ...more);
"""
OPEN_LINK_IS_SEEN = """
const link = document.querySelector("nav [aria-current=page]").getBoundingClientRect();
return link.left >= 0 && link.right <= innerWidth
"""
TITLES = "return [...document.querySelectorAll('tbody a')].map(each => each.title)"
LONG = "long-" + 195 * "x"
SLOW = {"name": "synthetic", "models": ["slow", HOSTILE], "itl": FOR_EVER}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageFleet]:
    agents = [{"id": "quick", "count": 3, "slots": 2}, {"id": "slow-one", "engine": SLOW, "slots": 8}]
    agents.append({"id": "long-one", "engine": {"name": "synthetic", "models": [LONG]}})
    with page_fleet(tmp_path_factory.mktemp("fleet"), agents=agents) as running:
        yield running


@pytest.fixture(scope="module")
def browser(fleet: PageFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(fleet.url, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The open page. At the end its console holds no fault."""
    browser.show()
    yield browser
    assert browser.faults() == []


def row(page: Page, agent: str) -> list[str]:
    """The cells of an agent's row."""
    found: list[str] = page.ask(
        """const link = [...document.querySelectorAll("tbody th a")].find(each => each.textContent === arguments[0]);
        return link ? [...link.closest("tr").children].map(each => each.textContent) : []""",
        agent,
    )
    return found


def test_it_shows_the_fleet_and_asks_nobody_else(page: Page, fleet: PageFleet) -> None:
    page.asked()
    page.open()
    page.until_text("live", "#connection")
    page.until(lambda: len(page.texts("tbody th a")) == 5, "five agents")
    assert page.ask("return document.querySelectorAll('svg.fleet .node').length") == 5
    assert page.ask("return document.querySelectorAll('svg.fleet line.link.t-memory').length") == 5
    assert page.text(".legend") == "memory: 5 agents"
    assert "role operate" in page.text("#who")
    assert [each for each in page.asked() if each.startswith("http") and not each.startswith(f"{fleet.url}/")] == []


def test_what_happens_is_shown_as_it_happens(page: Page, fleet: PageFleet) -> None:
    page.open("fleet/slow-one")
    page.until(lambda: row(page, "slow-one"), "the agent")
    with ExitStack() as streams:
        for _ in range(3):
            streams.enter_context(fleet.streaming(model="slow"))
        page.until(lambda: row(page, "slow-one")[2] == "3 / 8", "three slots in use")
    page.until(lambda: row(page, "slow-one")[2] == "0 / 8", "no slot in use")
    page.type("#order-reason", HOSTILE)
    page.ask("[...document.querySelectorAll('button')].find(each => each.textContent === 'Drain').click()")
    page.until(lambda: row(page, "slow-one")[1] == "drained", "drained")
    page.until_text(HOSTILE, "[aria-labelledby=unwell]")
    (health,) = [each["health"] for each in fleet.agents() if each["id"] == "slow-one"]
    assert (health["order"], health["reason"]) == ("drained", HOSTILE)
    page.ask("[...document.querySelectorAll('button')].find(each => each.textContent === 'Restore').click()")
    page.until(lambda: row(page, "slow-one")[1] == "ready", "ready again")


def test_the_queue_is_shown_by_class_tenant_and_model(page: Page, fleet: PageFleet) -> None:
    page.open("queue")
    with ExitStack() as streams:
        for priority, tenant in ((3, "lab"), (-2, HOSTILE), (3, "lab")):
            headers = {"x-anywire-tenant": tenant, "x-anywire-priority": str(priority)}
            streams.enter_context(fleet.streaming(model=HOSTILE, headers=headers))
        page.until(lambda: sorted(page.texts("[aria-label='By tenant'] tbody th")) == [HOSTILE, "lab"], "both tenants")
        assert page.texts("[aria-label='By class'] tbody th") == ["3", "-2"]
        assert page.texts("[aria-label='By model'] tbody th") == [HOSTILE]
        counts = "[aria-label='By class'] tbody tr:first-child td"
        page.until(lambda: page.texts(counts)[1:4] == ["0", "0", "2"], "two that run")
    assert page.ask("return document.querySelectorAll('main img').length") == 0
    assert page.driver.title == "Queue · Anywire"


def test_a_task_that_runs_is_followed_and_cancelled(page: Page, fleet: PageFleet) -> None:
    with fleet.streaming(model="slow") as task:
        page.open("tasks")
        page.until(lambda: page.ask("return [...document.querySelectorAll('tbody a')].map(each => each.title)"), "rows")
        page.ask("[...document.querySelectorAll('tbody a')].find(each => each.title === arguments[0]).click()", task)
        page.until_text("chose slow-one for slow")
        page.until(lambda: "Waited in the queue" in page.texts(".waterfall th"), "its stages")
        page.ask(
            "[...document.querySelectorAll('button')].find(each => each.textContent === 'Follow its text').click()"
        )
        page.until_text("Its text from now on:")
        page.click("button.danger")
        page.until_text("cancelled", ".badge")
    assert "cancelled" in page.texts("[aria-label=Attempts] tbody td")[-1]
    page.until(
        lambda: page.ask("return document.querySelector('button.danger').disabled"), "it can be cancelled no more"
    )


def test_a_task_that_ended_before_is_explained(page: Page, fleet: PageFleet) -> None:
    task = fleet.chat("a question").headers["x-anywire-task"]
    page.open(f"tasks/{task}")
    page.until_text("answered", ".badge")
    titles = ["Taken in", "Waited in the queue", "Given to the transport", "Wire to the agent", "Waited at the agent"]
    assert page.texts(".waterfall tbody th")[:5] == titles
    assert page.texts("[aria-label=Attempts] tbody td")[0].startswith("quick")
    page.open("tasks/nothing")
    page.until_text("there is no task")
    assert page.faults("404") == []


def test_it_is_there_again_when_its_server_is(page: Page, tmp_path: Path) -> None:
    port = free_port()
    with page_fleet(tmp_path / "first", agents=[{"id": "first"}], server={"port": port}) as fleet:
        own = Page(page.driver, fleet.url)
        own.open()
        own.until(lambda: own.texts("tbody th a") == ["first"], "the agent")
    own.until_text("not connected", "#connection")
    with page_fleet(tmp_path / "second", agents=[{"id": "second"}], server={"port": port}) as fleet:
        own.until_text("live", "#connection")
        own.until(lambda: "second" in own.texts("tbody th a"), "the agent of the new server")
        task = fleet.chat().headers["x-anywire-task"]
        own.go("tasks")
        own.until(lambda: task in own.ask(TITLES), "its task")
        page.driver.get("about:blank")
    assert page.faults("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET") == []


def test_a_view_opened_without_the_server_is_whole_once_that_is_back(page: Page, tmp_path: Path) -> None:
    port = free_port()
    with page_fleet(tmp_path / "first", server={"port": port}) as fleet:
        own = Page(page.driver, fleet.url)
        own.open()
        own.until_text("live", "#connection")
    own.until_text("not connected", "#connection")
    own.go("models")
    own.until_text("The server does not answer.")
    assert not own.ask(IS_OLD)
    own.ask(UPGRADED)
    with page_fleet(tmp_path / "second", server={"port": port}):
        own.until(lambda: "synthetic" in own.texts("main tbody th"), "the models of the new server")
        assert "does not answer" not in own.text()
        own.go("keys")
        own.until_text("Nobody needs a key here")
        own.until(lambda: own.ask(IS_OLD), "that the server has another version of the page")
        own.click("#reload")
        own.until_text("live", "#connection")
        own.until_text("Nobody needs a key here")
        assert not own.ask(IS_OLD)
        page.driver.get("about:blank")
    assert page.faults("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET") == []


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_is_wider_than_the_screen(page: Page, fleet: PageFleet, size: tuple[int, int]) -> None:
    page.show(size)
    task = fleet.chat(model=LONG).headers["x-anywire-task"]
    page.open()
    page.until_text("live", "#connection")
    views = page.ask("return [...document.querySelectorAll('nav a')].map(each => each.dataset.view)")
    assert {"fleet", "queue", "tasks"} <= set(views)
    for view in (*views, "fleet/slow-one", f"tasks/{task}"):
        page.go(view)
        page.until(lambda: page.texts("main h1"), view)
        if view.startswith("tasks/"):
            page.until_text("chose long-one")
        assert not page.overflows(), view
        assert page.ask(OPEN_LINK_IS_SEEN), view


def test_light_and_dark_follow_the_system_until_chosen(page: Page) -> None:
    page.open("queue")
    ground = "return getComputedStyle(document.body).backgroundColor"
    page.until(lambda: page.texts("main h1"), "the view")
    light = page.ask(ground)
    page.show(scheme="dark")
    dark = page.ask(ground)
    assert light != dark
    page.click("#theme")
    assert (page.text("#theme"), page.ask(ground)) == ("Theme: light", light)
    page.open("queue")
    page.until(lambda: page.texts("main h1"), "the view")
    assert page.ask(ground) == light
    page.click("#theme")
    page.click("#theme")
    assert (page.text("#theme"), page.ask(ground)) == ("Theme: system", dark)


def test_it_is_used_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    def focused() -> Any:
        return page.ask("return document.activeElement.id || document.activeElement.textContent")

    page.open("queue")
    page.until(lambda: page.texts("main h1"), "the view")
    page.driver.find_element("css selector", "body").send_keys(Keys.TAB)
    page.until(lambda: "Skip" in focused(), "the way past the navigation")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert focused() == "content"
    assert page.driver.current_url.endswith("#/queue")
    link = page.driver.find_element("css selector", "nav a[data-view=tasks]")
    link.send_keys(Keys.ENTER)
    page.until_text("Tasks", "main h1")
    assert page.texts("nav [aria-current=page]") == ["Tasks"]
    page.until(lambda: focused() == "content", "the focus on the content")
