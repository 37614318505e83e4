"""The page of a gateway in this process, looked at in a browser: the loop serves while a thread waits for that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ui.axe import AXE, serious_findings
from tests.ui.browsers import DESK, PHONE, Page, needs_browser

from anywire.access import Access
from anywire.engine import Engine
from anywire.service import Service
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_ui.service import Page as PageService
from anywire_service_ui.service import PageConfig

MARKS = [needs_browser, pytest.mark.timeout(240)]
SHOTS = os.environ.get("ANYWIRE_SHOTS", "")
"""A folder for pictures of what tests see; none are taken without it."""
HOSTILE = "<img src=x onerror=\"document.title='broken'\">'$(touch broken)`&amp;"
"""A name that is markup, a quotation, and a command, should somebody take it for that."""
CHOOSE = (
    "arguments[0].value = arguments[1];"
    "for (const type of ['input', 'change']) arguments[0].dispatchEvent(new Event(type, { bubbles: true }));"
)
LOOKS = ((DESK, "light"), (DESK, "dark"), (PHONE, "light"))


class Viewer:
    """Somebody who looks at the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self, view: str) -> None:
        """Load the page anew with this view."""

        def load() -> None:
            self.page.show()
            self.page.open(view)

        await asyncio.to_thread(load)

    async def sign_in(self, key: str) -> None:
        await self.until("return document.querySelector('#key')", "the page asks for a key")

        def type_key() -> None:
            self.page.type("#key", key)
            self.page.click("form button")
            self.page.faults()  # the refusal before

        await asyncio.to_thread(type_key)

    async def run(self, script: str, *arguments: object) -> Any:
        return await asyncio.to_thread(self.page.ask, script, *arguments)

    async def run_module(self, body: str, *arguments: object) -> Any:
        """What the body of an async function returns; ``given`` are its ``arguments``."""
        script = (
            "const done = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
            f"(async () => {{ {body} }})()"
            ".then(value => done({ value }), error => done({ error: `${error}` }));"
        )
        told = await asyncio.to_thread(self.page.driver.execute_async_script, script, *arguments)
        assert "error" not in told, told["error"]
        return told.get("value")

    async def until(self, script: str, what: str, *arguments: object) -> Any:
        """Wait until ``script`` returns something that counts as true, and return that."""
        return await asyncio.to_thread(self.page.until, lambda: self.page.ask(script, *arguments), what)

    async def shows(self, text: str, within: str = "main") -> None:
        await asyncio.to_thread(self.page.until_text, text, within)

    async def put(self, name: str, text: str) -> None:
        """Type a text into the field of this name, or choose that value in it."""

        def fill() -> None:
            field = self.page.driver.find_element("css selector", f"main [name={name}]")
            if field.tag_name == "select":
                self.page.ask(CHOOSE, field, text)
                assert field.get_property("value") == text, f"{text!r} can be chosen"
                return
            field.clear()
            field.send_keys(text)

        await asyncio.to_thread(fill)

    async def press(self, name: str) -> None:
        """Press the button, link or summary that a screen reader calls so, once it is there."""
        find = (
            "return [...document.querySelectorAll('main button, main summary, main a')].find(each => "
            "each.checkVisibility() && (each.getAttribute('aria-label') ?? each.textContent).trim() === arguments[0])"
        )
        found = await self.until(find, f"there is a button {name!r}", name)
        await asyncio.to_thread(self.page.driver.execute_script, "arguments[0].click()", found)

    async def frame_text(self, at: int) -> str:
        """What the frame of that number says, once it says something."""

        def read() -> str:
            driver = self.page.driver
            driver.switch_to.frame(driver.find_elements("css selector", "main iframe")[at])
            try:
                return str(driver.execute_script("return document.body?.innerText ?? ''"))
            finally:
                driver.switch_to.default_content()

        text: str = await asyncio.to_thread(self.page.until, read, f"the frame {at} says something")
        return text

    async def looks_well(self, name: str) -> None:
        """Nothing is wrong with the view that is open. In light, in dark and on a phone nothing is wider than the
        screen, and axe-core finds nothing serious, where it is installed. Nothing stands in the console, and no name
        became markup."""

        def look() -> None:
            for size, scheme in LOOKS:
                self.page.show(size, scheme)
                if SHOTS:
                    self.page.save(Path(SHOTS) / f"{name}-{scheme}-{size[0]}.png")
                assert not self.page.overflows(), f"{name} on {size[0]}"
                if AXE.exists():
                    assert serious_findings(self.page) == [], f"{name} ({scheme}, {size[0]})"
            self.page.show()

        await asyncio.to_thread(look)
        await self.has_no_markup()
        await self.nothing_went_wrong()

    async def has_no_markup(self) -> None:
        assert "broken" not in await self.run("return document.title")
        assert not await self.run("return document.querySelector('main img')")

    async def nothing_went_wrong(self) -> None:
        assert await asyncio.to_thread(self.page.faults) == []


@asynccontextmanager
async def viewing(
    page: Page,
    state: Path,
    engine: Engine,
    *,
    access: Access | None = None,
    records: Sequence[Path] = (),
    services: Sequence[Service] = (),
) -> AsyncIterator[Viewer]:
    """Somebody who looks at the page of a gateway before ``engine``."""
    own = PageService(PageConfig(records=list(records)))
    async with service_bench(own, *services, state=state, engine=engine, access=access) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        page.url = gateway.address
        try:
            await asyncio.to_thread(page.faults)
            yield Viewer(page)
            # What the page still asks for ends with it, and not with the server.
            await asyncio.to_thread(page.driver.get, "about:blank")
        finally:
            await gateway.close()
