"""Reports of experiments in a browser: one, two beside each other, and nothing that a stranger's page could do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.integration.gateway_serving import says
from tests.ui.browsers import Page
from tests.ui.viewer import HOSTILE, MARKS, viewing

from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

pytestmark = MARKS
EVIL = """<!doctype html><html><head><title>{name}</title>
<meta http-equiv="refresh" content="0; url=http://127.0.0.1:9/elsewhere">
<style>body {{ color: rgb(1, 2, 3); }}</style>
<script>document.body.textContent = 'a script ran'; parent.document.title = 'broken';</script>
</head><body onload="document.title = 'broken'"><p>The report of {name}</p>
<img src="http://127.0.0.1:9/picture"><form action="http://127.0.0.1:9/"><button>Send</button></form></body></html>"""


def record(folder: Path, name: str, **results: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    told: dict[str, Any] = {
        "name": name,
        "question": "Is it faster?",
        "headline": "dds is faster by 12 %",
        "cautions": ["few blocks"],
    }
    told |= {"arms": ["dds", "http"], "blocks": 12, "figures": [{"large": True}], **results}
    (folder / "results.json").write_text(json.dumps(told))
    (folder / "report.html").write_text(EVIL.format(name=name.replace("<", "&lt;")))
    return folder


async def test_two_reports_are_shown_beside_each_other(tab: Page, tmp_path: Path) -> None:
    record(tmp_path / "records" / "--first", "first one")
    record(tmp_path / "records" / "deep" / "second", HOSTILE, question=HOSTILE, headline=HOSTILE)
    (tmp_path / "records" / "third").mkdir()
    (tmp_path / "records" / "third" / "plan.json").write_text("{}")
    async with viewing(tab, tmp_path, says("x"), records=[tmp_path / "records"]) as viewer:
        await viewer.open("reports")
        for text in ("first one", HOSTILE, "few blocks", "dds is faster by 12 %", "It has no results yet."):
            await viewer.shows(text)
        boxes = "return [...document.querySelectorAll('input[type=checkbox]')]"
        press = f"{boxes[7:]}.find((each) => each.ariaLabel === arguments[0]).click()"
        await viewer.run(press, "Show the report of first one")
        await viewer.until("return document.querySelector('iframe')?.src.includes('/ui/report/')", "the report")
        await viewer.looks_well("report")
        assert await viewer.run("return document.querySelector('iframe').getAttribute('sandbox')") == ""
        await viewer.run(press, f"Show the report of {HOSTILE}")
        await viewer.until(
            "return [...document.querySelectorAll('iframe')].filter((each) => each.src).length === 2", "both"
        )
        assert "The report of first one" in await viewer.frame_text(0)
        assert "The report of" in await viewer.frame_text(1)
        assert await viewer.run("return document.querySelectorAll('input:disabled').length") == 1
        asked = await asyncio.to_thread(tab.asked)
        assert [each for each in asked if each.startswith("http") and not each.startswith(f"{tab.url}/")] == []
        await viewer.shows("anywire experiment compare './--first' 'deep/second'")
        await viewer.has_no_markup()

        # Who takes the first one away keeps the second as it is: its path has counted once.
        await viewer.run(press, "Show the report of first one")
        await viewer.until("return document.querySelectorAll('iframe').length === 1", "one is left")
        assert "The report of <img" in await viewer.frame_text(0)
        told = await asyncio.to_thread(tab.faults)
        assert all("Content Security Policy" in each or "sandbox" in each for each in told), told


async def test_reports_are_for_whoever_observes(tab: Page, tmp_path: Path) -> None:
    record(tmp_path / "records" / "first", "first one")
    observer, user = new_key(), new_key()
    add_key(tmp_path / "keys.json", record_of(observer, role="observe"))
    add_key(tmp_path / "keys.json", record_of(user, role="use"))
    access = KeyAccess(tmp_path / "keys.json")
    async with viewing(tab, tmp_path, says("x"), access=access, records=[tmp_path / "records"]) as viewer:
        await viewer.open("reports")
        await viewer.sign_in(str(observer))
        await viewer.shows("first one")
        await viewer.run("document.querySelector('input[type=checkbox]').click()")
        await viewer.until("return document.querySelector('iframe')?.src.includes('/ui/report/')", "the report")
        assert "The report of first one" in await viewer.frame_text(0)

        await viewer.run("sessionStorage.clear()")
        await viewer.open("reports")
        await viewer.sign_in(str(user))
        await viewer.shows("This is for the role observe")


async def test_without_a_folder_the_view_says_which_setting_names_one(tab: Page, tmp_path: Path) -> None:
    async with viewing(tab, tmp_path, says("x")) as viewer:
        await viewer.open("reports")
        await viewer.shows("set services.ui.records")
        await viewer.looks_well("reports-none")
