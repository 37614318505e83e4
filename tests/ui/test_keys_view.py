"""Keys in a browser: who may do what, and the commands that make and revoke keys."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.integration.gateway_serving import says
from tests.ui.browsers import Page
from tests.ui.viewer import HOSTILE, MARKS, viewing

from anywire.caller import Limits
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import new_key

pytestmark = MARKS
CODE = "return document.querySelector('section[aria-label=\"{}\"] code').textContent"


async def test_an_operator_sees_all_keys_and_how_to_make_and_revoke_them(tab: Page, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    operator, other, gone = new_key(), new_key(), new_key()
    add_key(path, record_of(operator, label="Head", role="operate"))
    limits = Limits(models=(HOSTILE,), requests_per_minute=5, tokens_per_day=2_000_000)
    add_key(path, record_of(other, label=HOSTILE, tenant=HOSTILE, limits=limits))
    add_key(path, record_of(gone, label="gone"))
    revoke_keys(path, [gone.id])
    async with viewing(tab, tmp_path, says("x"), access=KeyAccess(path)) as viewer:
        await viewer.open("keys")
        await viewer.sign_in(str(operator))
        for text in (f"You are {operator.id}", HOSTILE, "5 requests a minute; 2,000,000 tokens a day", "revoked"):
            await viewer.shows(text)
        await viewer.press(f"Revoke {HOSTILE} …")
        assert await viewer.run(CODE.format("Revoke a key")) == f"anywire keys revoke {other.id}"
        await viewer.put("label", "Ann's `id`")
        await viewer.put("role", "observe")
        await viewer.put("model", "a*, b")
        await viewer.put("tokens-per-day", "1000")
        command = await viewer.run(CODE.format("Make a key"))
        assert shlex.split(command) == [
            *("umask", "077;", "anywire", "keys", "create", "--label", "Ann's `id`", "--role", "observe"),
            *("--model", "a*", "--model", "b", "--tokens-per-day", "1000"),
        ]
        everything = await viewer.run("return document.documentElement.outerHTML")
        assert str(operator) not in everything
        await viewer.looks_well("keys")


async def test_a_user_sees_what_he_may_and_no_list(tab: Page, tmp_path: Path) -> None:
    path, key = tmp_path / "keys.json", new_key()
    add_key(path, record_of(key, label="Ann", role="use"))
    async with viewing(tab, tmp_path, says("x"), access=KeyAccess(path)) as viewer:
        await viewer.open("keys")
        await viewer.sign_in(str(key))
        await viewer.shows("To see all keys needs the role operate.")
        assert await viewer.run("return document.querySelectorAll('main td').length") == 0
        await viewer.looks_well("keys-use")


async def test_without_keys_the_view_says_who_may_do_what(tab: Page, tmp_path: Path) -> None:
    async with viewing(tab, tmp_path, says("x")) as viewer:
        await viewer.open("keys")
        await viewer.shows("Nobody needs a key here")
        await viewer.looks_well("keys-none")
