"""The page of a real gateway in a real browser, for tests: served in this process, looked at from a thread."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ui.axe_core import axe_source

from anywire.access import Access
from anywire.engine import Engine
from anywire.service import Service
from anywire.testing.patience import PATIENCE
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_ui.service import Page, PageConfig

webdriver = pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MARKS = [
    pytest.mark.skipif(not CHROMIUM or not CHROMEDRIVER, reason="missing: apt-get install chromium chromium-driver"),
    pytest.mark.timeout(240),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
SHOTS = os.environ.get("ANYWIRE_SHOTS", "")
"""A folder for pictures of what tests see; none are taken without it."""
HOSTILE = "<img src=x onerror=\"document.title='run'\">'$(touch run)`&amp;"
"""A name that is markup, a quotation, and a command, should somebody take it for that."""

@contextmanager
def opened_browser(profile: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.set_script_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()


class Viewer:
    """Somebody who looks at the page. All methods wait for the browser on a thread, while the loop serves."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url

    async def open(self, path: str, width: int = 1280, scheme: str = "light") -> None:
        """Load the page anew with this view."""

        def load() -> None:
            self._show(width, scheme)
            self.browser.get("about:blank")
            self.browser.get_log("browser")
            self.browser.get(f"{self.url}/ui#/{path}")

        await asyncio.to_thread(load)

    async def sign_in(self, key: str) -> None:
        await self.until("return document.querySelector('#key')", "the page asks for a key")

        def type_key() -> None:
            self.browser.find_element("id", "key").send_keys(key)
            self.browser.find_element("css selector", "form button").click()
            self.browser.get_log("browser")  # which says that the page was refused before

        await asyncio.to_thread(type_key)

    async def run(self, script: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(self.browser.execute_script, script, *arguments)

    async def run_module(self, body: str, *arguments: Any) -> Any:
        """What the body of an async function returns; ``given`` are its ``arguments``."""
        script = (
            "const done = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
            f"(async () => {{ {body} }})().then((value) => done({{ value }}), (error) => done({{ error: String(error) }}));"
        )
        told = await asyncio.to_thread(self.browser.execute_async_script, script, *arguments)
        assert "error" not in told, told["error"]
        return told.get("value")

    async def until(self, script: str, what: str, *arguments: Any) -> Any:
        """Wait until ``script`` returns something that counts as true, and return that."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        def wait() -> Any:
            try:
                return WebDriverWait(self.browser, PATIENCE, 0.05).until(
                    lambda browser: browser.execute_script(script, *arguments)
                )
            except TimeoutException:
                text = self.browser.execute_script("return document.body.innerText")
                raise AssertionError(f"{what}; the page says: {text[:3000]}") from None

        return await asyncio.to_thread(wait)

    async def shows(self, text: str, within: str = "#content") -> None:
        await self.until(
            "return document.querySelector(arguments[1])?.innerText.includes(arguments[0])",
            f"{text!r} is shown",
            text,
            within,
        )

    async def put(self, name: str, text: str) -> None:
        def type_text() -> None:
            field = self.browser.find_element("css selector", f"#content [name={name}]")
            if field.tag_name == "select":
                from selenium.webdriver.support.select import Select

                Select(field).select_by_value(text)
                return
            field.clear()
            field.send_keys(text)

        await asyncio.to_thread(type_text)

    async def press(self, button: str) -> None:
        """Press the button of this name, as it is told to a screen reader, once it is there."""
        find = (
            "return [...document.querySelectorAll('#content button, #content summary, #content a')].find((each) => "
            "each.checkVisibility() && (each.getAttribute('aria-label') ?? each.textContent).trim() === arguments[0])"
        )
        found = await self.until(find, f"there is a button {button!r}", button)
        await asyncio.to_thread(found.click)

    async def frame_text(self, at: int) -> str:
        """What the frame of that number says."""

        def read() -> str:
            frames = self.browser.find_elements("css selector", "#content iframe")
            self.browser.switch_to.frame(frames[at])
            try:
                return str(self.browser.execute_script("return document.body.innerText"))
            finally:
                self.browser.switch_to.default_content()

        return await asyncio.to_thread(read)

    async def looks_well(self, name: str) -> None:
        """Nothing is wrong with the view that is open: in light and dark and on a phone, no serious finding of axe-core,
        nothing wider than the screen, nothing in the console, and no name that became markup."""
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light")):
            await asyncio.to_thread(self._show, width, scheme)
            await self._picture(f"{name}-{scheme}-{width}")
            room, taken = await self.run(
                "const page = document.documentElement; return [page.clientWidth, page.scrollWidth]"
            )
            assert taken <= room, f"{name} is {taken} wide on a screen of {room}"
            assert await self._findings() == [], f"{name} ({scheme}, {width})"
        await asyncio.to_thread(self._show, 1280, "light")
        assert "run" not in await self.run("return document.title")
        assert not await self.run("return document.querySelector('#content img')")
        await self.nothing_went_wrong()

    async def nothing_went_wrong(self) -> None:
        told = await asyncio.to_thread(self.browser.get_log, "browser")
        assert [each for each in told if each["level"] in ("SEVERE", "WARNING")] == []

    async def _findings(self) -> list[Any]:
        source = axe_source()
        if source is None:
            return []
        if not await self.run("return Boolean(window.axe)"):
            await self.run(source)
        found = await self.run_module(
            "const settings = { resultTypes: ['violations'], iframes: false, preload: false };"
            "const { violations } = await window.axe.run(document, settings);"
            "return violations.filter((each) => ['serious', 'critical'].includes(each.impact)).map((each) => "
            "[each.id, each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary)]);",
            source,
        )
        assert isinstance(found, list)
        return found

    async def _picture(self, name: str) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(self.browser.save_screenshot, str(Path(SHOTS) / f"{name}.png"))

    def _show(self, width: int, scheme: str) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@asynccontextmanager
async def viewing(
    browser: Any,
    state: Path,
    engine: Engine,
    *,
    access: Access | None = None,
    records: Sequence[Path] = (),
    services: Sequence[Service] = (),
    prepare: Callable[[ServiceBench], object] = lambda bench: None,
) -> AsyncIterator[tuple[Viewer, ServiceBench]]:
    """The page, served by a gateway before ``engine``, and a viewer of it. ``prepare`` is called before the gateway
    begins."""
    page = Page(PageConfig(records=list(records)))
    async with service_bench(page, *services, state=state, engine=engine, access=access) as bench:
        prepare(bench)
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        try:
            yield Viewer(browser, gateway.address), bench
            # What the page still asks for ends with it, and not with the server.
            await asyncio.to_thread(browser.get, "about:blank")
        finally:
            await gateway.close()
