"""A headless browser that opens the page, and what a test asks of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anywire.testing.patience import PATIENCE

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not CHROMIUM or not CHROMEDRIVER, reason="missing: apt-get install chromium chromium-driver"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
PHONE, DESK = (390, 844), (1280, 900)


class Page:
    """One tab with the page of the server at ``url``."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, view: str = "fleet") -> None:
        """Open a view anew, as a tab that was never there before."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/ui#/{view}")

    def go(self, view: str) -> None:
        """Open another view of the page that is open."""
        self.driver.execute_script("location.hash = arguments[0]", f"#/{view}")

    def ask(self, script: str, *arguments: object) -> Any:
        """What a script returns; ``arguments`` are its own."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of that selector."""
        found: list[str] = self.ask(
            "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent.trim())", selector
        )
        return found

    def text(self, selector: str = "main") -> str:
        """The text of the first element of that selector as it is shown; empty without one."""
        shown: str = self.ask("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return shown

    def click(self, selector: str) -> None:
        self.until(lambda: self.ask("return Boolean(document.querySelector(arguments[0]))", selector), selector)
        self.ask("document.querySelector(arguments[0]).click()", selector)

    def type(self, selector: str, text: str) -> None:
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """What ``holds()`` gives once that is something; fails with ``what`` and what the page shows."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = holds()
            if found:
                return found
            time.sleep(0.02)
        pytest.fail(f"not seen: {what}; the page shows:\n{self.text('body')}\n{self.faults()}")

    def until_text(self, text: str, selector: str = "main") -> None:
        """Wait until the first element of that selector shows ``text``."""
        self.until(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def show(self, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        """Emulate a screen of that size whose user prefers that colour scheme."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})

    def faults(self, *allowed: str) -> list[str]:
        """What stands in the console as an error or a warning since the last look, without what has one of the texts
        ``allowed`` in it."""
        messages = [
            each["message"] for each in self.driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")
        ]
        return [each for each in messages if not any(text in each for text in allowed)]

    def asked(self) -> list[str]:
        """The URLs that the page has asked for since the last look."""
        events = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]

    def overflows(self) -> bool:
        """Whether something is wider than the screen."""
        wide: bool = self.ask("const page = document.documentElement; return page.scrollWidth > page.clientWidth")
        return wide

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.driver.get_screenshot_as_png())


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, and a tab for the page of the server at ``url``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for each in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        page = Page(driver, url)
        page.show()
        yield page
    finally:
        driver.quit()
