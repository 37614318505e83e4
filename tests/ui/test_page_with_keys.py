"""The page where keys are on: signing in and out, what a role may not do, and a key that is revoked."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ui.browsers import Page, browsing, needs_browser
from tests.ui.page_fleets import PageFleet, page_fleet

from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from reserved import free_ports

pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
pytestmark = [needs_browser, pytest.mark.timeout(240)]
REFUSED = ("401", "403")


class Keyed:
    """A fleet with keys of each role, the file that they are in, and the transport by which agents join."""

    def __init__(self, fleet: PageFleet, file: Path, keys: dict[str, str], wire: dict[str, Any]) -> None:
        self.fleet, self.file, self.keys, self.wire = fleet, file, keys, wire


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("fleet")
    file, keys = folder / "keys.json", {}
    for role in ("use", "observe", "operate"):
        key = new_key()
        add_key(file, record_of(key, label=role, role=role, tenant=role))
        keys[role] = str(key)
    wire = {"zeromq": {"agent_addresses": [f"tcp://127.0.0.1:{port}" for port in free_ports(3)]}}
    agents = [{"id": "one"}, {"id": "two"}]
    with page_fleet(folder, key=keys["operate"], access={"keys": str(file)}, transports=wire, agents=agents) as fleet:
        yield Keyed(fleet, file, keys, wire)


@pytest.fixture(scope="module")
def browser(keyed: Keyed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(keyed.fleet.url, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A tab that is not signed in."""
    browser.open()
    browser.ask("sessionStorage.clear()")
    browser.open()
    browser.until_text("Sign in", "main h1")
    yield browser
    assert browser.faults(*REFUSED) == []


def sign_in(page: Page, key: str) -> None:
    page.type("#key", key)
    page.click("button[type=submit]")


def test_a_key_lets_in_and_signing_out_forgets_it(page: Page, keyed: Keyed) -> None:
    sign_in(page, "aw-nonsense")
    page.until(lambda: page.text("#key-fault"), "why not")
    sign_in(page, "ключ")  # which no header can hold
    page.until_text("This is no key", "#key-fault")
    sign_in(page, keyed.keys["operate"])
    page.until_text("role operate", "#who")
    page.until_text("live", "#connection")
    page.until(lambda: page.texts("tbody th a"), "the agents")
    page.click("#sign-out")
    page.until_text("Sign in", "main h1")
    assert page.ask("return sessionStorage.length") == 0
    page.open()
    page.until_text("Sign in", "main h1")


def test_a_role_sees_what_it_may_and_why_not_the_rest(page: Page, keyed: Keyed) -> None:
    sign_in(page, keyed.keys["use"])
    page.until_text("This is for the role observe; you have use.")
    assert "for the role observe" in page.texts("nav [data-view=fleet]")[0]
    page.go("queue")
    page.until_text("Queue", "main h1")
    assert "Your own tasks" in page.text()
    page.click("#sign-out")
    page.until_text("Sign in", "main h1")
    sign_in(page, keyed.keys["observe"])
    page.until_text("role observe", "#who")
    page.go("fleet")
    page.until(lambda: page.texts("tbody th a"), "the agents")
    page.go(f"fleet/{page.texts('tbody th a')[0]}")
    page.until_text("Drain, isolate and restore are for the role operate; you have observe.")
    assert page.ask("return [...document.querySelectorAll('.columns button')].every(each => each.disabled)")


def test_only_ones_own_tasks_are_listed(page: Page, keyed: Keyed) -> None:
    other = keyed.fleet.chat().headers["x-anywire-task"]
    sign_in(page, keyed.keys["use"])
    page.until_text("role use", "#who")
    page.go("tasks")
    page.until_text("live", "#connection")
    own = keyed.fleet.chat(headers={"authorization": f"Bearer {keyed.keys['use']}"}).headers["x-anywire-task"]
    titles = "return [...document.querySelectorAll('tbody a')].map(each => each.title)"
    page.until(lambda: own in page.ask(titles), "the own task")
    assert other not in page.ask(titles)


def test_the_link_of_the_command_signs_in_once(page: Page, keyed: Keyed) -> None:
    printed = keyed.fleet.anywire("ui", "--print").strip()
    assert re.fullmatch(re.escape(keyed.fleet.url) + r"/ui#code=[\w-]{32}", printed)
    page.driver.get("about:blank")
    page.driver.get(printed)
    page.until_text("role operate", "#who")
    assert "code" not in page.driver.current_url
    page.ask("sessionStorage.clear()")
    page.driver.get("about:blank")
    page.driver.get(printed)
    page.until_text("used already", "#key-fault")


def test_a_key_that_is_revoked_ends_the_view(page: Page, keyed: Keyed) -> None:
    key = new_key()
    add_key(keyed.file, record_of(key, label="short", role="observe"))
    page.until(
        lambda: keyed.fleet.client.get("/v1/caller", headers={"authorization": f"Bearer {key}"}).is_success, "it counts"
    )
    sign_in(page, str(key))
    page.until_text("role observe", "#who")
    keyed.fleet.anywire("keys", "revoke", key.id, "--file", str(keyed.file))
    page.until_text("Sign in", "main h1")
    assert page.text("#key-fault")


def test_no_key_is_in_a_log_or_a_url(page: Page, keyed: Keyed) -> None:
    sign_in(page, keyed.keys["operate"])
    page.until_text("role operate", "#who")
    log = (keyed.file.parent / "log").read_text()
    urls = json.dumps(page.asked())
    for key in keyed.keys.values():
        assert key not in log
        assert key not in urls


def test_the_death_of_an_agent_is_seen(page: Page, keyed: Keyed) -> None:
    sign_in(page, keyed.keys["observe"])
    page.until_text("role observe", "#who")
    page.go("fleet")
    page.until(lambda: sorted(page.texts("tbody th a")) == ["one", "two"], "both agents")
    page.until_text("zeromq: 2 agents", ".legend")
    # It is started again soon: what was shown meanwhile is kept.
    page.ask(
        """window.seen = new Set();
        new MutationObserver(() => {
          for (const badge of document.querySelectorAll("tbody .badge")) seen.add(badge.textContent);
        }).observe(document.querySelector("tbody"), {subtree: true, childList: true, characterData: true})"""
    )
    (pid,) = [each["pid"] for each in keyed.fleet.agents() if each["id"] == "two"]
    os.kill(pid, signal.SIGKILL)
    page.until(lambda: page.ask("return seen.has('lost')"), "that it is lost")
    page.until_text("Agent two is lost.", "#live")

    def is_back() -> bool:
        return any(each["id"] == "two" and each["pid"] != pid for each in keyed.fleet.agents())

    page.until(is_back, "another process for it")
    page.until(lambda: page.texts("tbody .badge") == ["ready", "ready"], "that it is back")


def test_the_agents_of_a_child_orchestrator_are_shown_to_operators(page: Page, keyed: Keyed, tmp_path: Path) -> None:
    below = [{"id": "leaf", "count": 3}]
    with page_fleet(tmp_path, agents=below, join=keyed.wire):
        sign_in(page, keyed.keys["operate"])
        page.until_text("role operate", "#who")
        page.go("fleet")
        page.until(lambda: len(page.texts("tbody th a")) == 3, "the child")
        page.until(lambda: len(page.texts("svg .below g")) == 3, "its agents")
        assert all(each.startswith("leaf-") for each in page.texts("svg .below title"))
