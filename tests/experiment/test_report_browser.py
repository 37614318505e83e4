"""The report in a real browser: it asks for nothing, nothing goes wrong, every figure is drawn, and it fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.fabricated import Truth, fabricate, plan_of

from anywire_experiment import report

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
WIDTHS = [1280, 390]
KILL = {"seconds": 4, "arrivals": {"kind": "poisson", "rate": 60}, "fault": {"kind": "kill", "at": 1, "lasts": 2}}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = plan_of(
        question="<script>document.title = 'run'</script>",
        factors={"transport": ["zeromq", "dds", "http"]},
        workloads={"streams": {"requests": 60, "stream": True}, "kill": KILL},
    )
    folder = fabricate(tmp_path_factory.mktemp("page"), tree, {"dds": Truth(shift_us=300), "http": Truth(failing=0.02)})
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def browser(record: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """With the report open."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        driver.get((record / "report.html").as_uri())
        yield driver
    finally:
        driver.quit()


def show(browser: Any, width: int, media: str = "", scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def test_nothing_goes_wrong_and_nothing_is_asked_for(browser: Any, record: Path) -> None:
    assert browser.title == "fabricated: results"
    assert [each for each in browser.get_log("browser") if each["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    # What comes before is the browser's own empty page.
    after = asked[asked.index((record / "report.html").as_uri()) + 1 :]
    assert [each for each in after if not each.startswith("data:")] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_drawn(browser: Any, width: int) -> None:
    show(browser, width)
    figures = browser.execute_script(
        """return [...document.querySelectorAll("svg")].map(svg => {
            const box = svg.getBoundingClientRect();
            const drawn = [...svg.querySelectorAll("path")].filter(path => {
                const part = path.getBBox(); return part.width + part.height > 0 && !path.closest("defs"); });
            return [box.width, box.height, drawn.length, svg.querySelectorAll("text").length]; })"""
    )
    assert len(figures) == 8 + 7
    for wide, high, paths, texts in figures:
        assert wide > 300
        assert high > 60
        assert paths > 10
        assert texts > 4


def test_the_verdict_is_on_the_first_screen(browser: Any) -> None:
    show(browser, 1280)
    top, size, text = browser.execute_script(
        """const verdict = document.getElementById("verdict");
        return [verdict.getBoundingClientRect().bottom, getComputedStyle(verdict).fontSize, verdict.innerText]"""
    )
    assert 0 < top < 400
    assert float(size.removesuffix("px")) > 20
    assert text.startswith("dds is slower than zeromq by ")


@pytest.mark.parametrize("media", ["", "print"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page(browser: Any, width: int, media: str) -> None:
    show(browser, width, media)
    room, taken = browser.execute_script(
        "const page = document.documentElement; return [page.clientWidth, page.scrollWidth]"
    )
    assert taken <= room


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, scheme: str) -> None:
    """By WCAG's contrast of 4.5, in the page and in its figures."""
    show(browser, 1280, scheme=scheme)
    colors = browser.execute_script(
        """return [...document.querySelectorAll("p, li, td, th, h1, h2, figcaption, svg text")].map(
            each => { const style = getComputedStyle(each); return each.closest("svg") ? style.fill : style.color; })"""
    )
    ground = luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    for each in set(colors):
        light, dark = sorted([luminance(each), ground], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, each


def luminance(color: str) -> float:
    channels = [int(each) / 255 for each in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
