"""The example's page in a real browser: it starts a model, chats, downloads, and its end is the end of its bridge."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.models.tiny_model import tiny, written_tiny

from anywire.testing.patience import PATIENCE

__all__ = ["tiny", "written_tiny"]

webdriver = pytest.importorskip("selenium.webdriver", reason="missing: the package selenium")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM or not CHROMEDRIVER, reason="missing: apt-get install chromium chromium-driver"),
    pytest.mark.timeout(240),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "desktop" / "serve.py"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the example's page is served."""
    command = [sys.executable, str(EXAMPLE), "--", "--folder", str(tmp_path / "settings")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/#\S+)\n", server.stdout.readline())
            assert found is not None
            yield found[1]
            children = psutil.Process(server.pid).children(recursive=True)
        finally:
            server.terminate()
            server.wait(PATIENCE)
    assert not psutil.wait_procs(children, PATIENCE)[1], "a bridge is left"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.until(lambda: self.run("return document.body.dataset.ready"), "the bridge is ready")

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def put(self, name: str, text: str) -> None:
        field = self.browser.find_element("id", name)
        field.clear()
        field.send_keys(text)

    def press(self, selector: str) -> None:
        self.browser.find_element("css selector", selector).click()

    def chat(self) -> str:
        return str(self.run("return document.getElementById('chat').innerText"))

    def state(self) -> str:
        return str(self.run("return document.getElementById('state').innerText"))

    def until(self, condition: Callable[[], Any], what: str) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.browser, PATIENCE * 2, 0.05).until(lambda _: condition(), f"{what}: {self.chat()}")


def test_the_page_starts_a_model_and_chats(browser: Any, address: str, tiny: Path) -> None:
    page = Page(browser, address)
    page.put("model", str(tiny))
    page.put("context", "60000")
    page.press("#start button")
    page.until(lambda: page.state() == "running", "the model runs")
    page.put("tokens", "8")
    page.put("message", "Hello")
    page.press("#ask button")
    page.until(lambda: page.run("return document.querySelector('.assistant.done')"), "the answer is whole")
    assert len(page.run("return document.querySelector('.assistant').textContent")) > 8
    assert "% memory" in page.run("return document.getElementById('usage').innerText")

    page.put("tokens", "100000")
    page.put("message", "Go on")
    page.press("#ask button")
    page.until(lambda: page.run("return document.querySelectorAll('.assistant')[1]?.textContent"), "an answer begins")
    page.press("#cancel")
    page.until(lambda: "cancelled" in page.chat(), "it ends")

    page.put("model", "/nowhere.gguf")
    page.press("#start button")
    page.until(lambda: "/nowhere.gguf" in page.chat(), "what is wrong is shown")
    page.press("#stop")
    page.until(lambda: page.state() == "stopped", "the model is stopped")
    assert [each for each in browser.get_log("browser") if each["level"] in ("SEVERE", "WARNING")] == []


def test_nobody_else_may_connect(address: str) -> None:
    base, _, token = address.partition("/#")
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for origin, shown in ((base, "wrong"), ("http://evil.example", token), ("", token)):
        headers = upgrade | ({"Origin": origin} if origin else {})
        answer = httpx.get(f"{base}/bridge", params={"token": shown}, headers=headers)
        assert answer.status_code == 403, (origin, shown)
    forged = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert httpx.get(f"{base}/bridge", params={"token": token}, headers=upgrade | forged).status_code == 403
