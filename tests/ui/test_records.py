"""Records of experiments over HTTP: found, told as strangers' texts, and never a file of anybody else."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway_serving import says
from tests.ui.test_reports_view import record

from anywire.caller import Role
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import PATIENCE
from anywire.testing.service_bench import service_bench
from anywire_gateway_openai import OpenAIGateway, OpenAIGatewayConfig
from anywire_service_ui.records import MAX_DEPTH, Records
from anywire_service_ui.service import Page, PageConfig
from anywire_service_ui.tickets import MAX_TICKETS, VALID_S, Tickets


@asynccontextmanager
async def served(tmp_path: Path, role: Role = "observe") -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key of that role; what lies in ``records`` is served."""
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, label="Ann", tenant="lab", role=role))
    page, access = Page(PageConfig(records=[tmp_path / "records"])), KeyAccess(tmp_path / "keys.json")
    async with service_bench(page, state=tmp_path, engine=says("x"), access=access) as bench:
        gateway = OpenAIGateway(OpenAIGatewayConfig(port=0))
        await gateway.start(bench.context("openai"))
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with httpx.AsyncClient(base_url=gateway.address, headers=headers, timeout=PATIENCE) as client:
                yield client
        finally:
            await gateway.close()


async def test_a_report_is_had_once_without_a_key_by_who_has_asked_with_one(tmp_path: Path) -> None:
    record(tmp_path / "records" / "first", "first one")
    async with served(tmp_path) as client, httpx.AsyncClient(base_url=client.base_url, timeout=PATIENCE) as stranger:
        (found,) = (await client.get("/v1/ui/records")).json()["data"]
        assert (found["name"], found["folder"], found["arms"], found["blocks"]) == ("first one", "first", 2, 12)
        assert (found["has_report"], found["sealed"]) == (True, False)
        for path in ("/v1/ui/records", f"/v1/ui/records/{found['id']}/report"):
            assert (await stranger.request("POST" if "report" in path else "GET", path)).status_code == 401
        asked = await client.post(f"/v1/ui/records/{found['id']}/report")
        path = asked.json()["path"]
        report = await stranger.get(path)
        assert report.status_code == 200
        assert "The report of first one" in report.text
        policy = report.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert "allow-" not in policy
        assert report.headers["x-content-type-options"] == "nosniff"
        assert (await stranger.get(path)).status_code == 404
        assert (await stranger.get("/ui/report/guessed")).status_code == 404


async def test_whoever_only_uses_gets_none(tmp_path: Path) -> None:
    record(tmp_path / "records" / "first", "first one")
    async with served(tmp_path, "use") as client:
        assert (await client.get("/v1/ui/records")).status_code == 403
        assert (await client.post("/v1/ui/records/x/report")).status_code == 403
        assert (await client.get("/v1/ui/keys")).status_code == 403


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "first", "x" * 300, "%00", "a%5cb"])
async def test_no_other_file_can_be_asked_for(tmp_path: Path, name: str) -> None:
    record(tmp_path / "records" / "first", "first one")
    async with served(tmp_path) as client:
        answer = await client.post(f"/v1/ui/records/{name}/report")
        assert answer.status_code in (404, 405)
        assert "root:" not in answer.text


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "records", record(tmp_path / "outside", "outside")
    inside = record(root / "inside", "inside")
    (root / "linked").symlink_to(outside)
    (inside / "report.html").unlink()
    (inside / "report.html").symlink_to(outside / "report.html")
    records = Records([root])
    (found,) = records.list()
    assert (found.name, found.has_report) == ("inside", False)
    assert not records.has_report(found.id)
    with pytest.raises(OSError, match="symbolic links"):
        records.report(found.id)
    # A folder that has become a link since it was found.
    (inside / "report.html").unlink()
    (inside / "report.html").write_text("own")
    assert records.report(found.id) == b"own"
    inside.rename(tmp_path / "moved")
    inside.symlink_to(outside)
    with pytest.raises(ValueError, match="outside"):
        records.report(found.id)


def test_what_is_no_report_is_told(tmp_path: Path) -> None:
    root = tmp_path / "records"
    for name in ("broken", "wrong", "none", "deep/a/b"):
        record(root / name, name)
    record(root / "/".join("x" * (MAX_DEPTH + 1)), "too deep")
    (root / "broken" / "results.json").write_bytes(b'{"name": "\xff"')
    (root / "wrong" / "results.json").write_text('{"name": 7}')
    (root / "none" / "results.json").unlink()
    (root / "none" / "report.html").unlink()
    os.mkfifo(root / "none" / "report.html")
    told = {each.folder: each for each in Records([root, tmp_path / "nowhere"]).list()}
    assert sorted(told) == ["broken", "deep/a/b", "none", "wrong"]
    assert "they are no results" in told["broken"].fault
    assert "they are no results" in told["wrong"].fault
    assert (told["none"].fault, told["none"].has_report) == ("It has no results yet.", False)
    assert (told["deep/a/b"].fault, told["deep/a/b"].headline) == ("", "dds is faster by 12 %")


def test_long_texts_are_cut_and_results_are_read_again_where_they_change(tmp_path: Path) -> None:
    folder = record(tmp_path / "records", "x" * 10_000, cautions=["c"] * 1000)
    records = Records([tmp_path / "records"])
    (found,) = records.list()
    assert (len(found.name), len(found.cautions), found.folder) == (2000, 20, "records")
    (folder / "results.json").write_text('{"name": "newer"}')
    os.utime(folder / "results.json", (1, 1))
    assert [each.name for each in records.list()] == ["newer"]


def test_no_more_is_kept_of_results_than_is_shown(tmp_path: Path) -> None:
    for number in range(3):
        record(tmp_path / str(number), "n" * 1_000_000, cautions=["c" * 1_000_000], arms=["a" * 1_000_000] * 2)
    records = Records([tmp_path])
    tracemalloc.start()
    try:
        assert {each.arms for each in records.list()} == {2}
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_name_turns_the_text_around_it(tmp_path: Path) -> None:
    record(tmp_path / "turned", "a\u202egnp.exe\u2066\x1b[2J\u05d0")
    (told,) = Records([tmp_path]).list()
    assert told.name == "a\ufffdgnp.exe\ufffd\ufffd[2J\u05d0"


def test_tickets_count_once_and_for_a_moment(tmp_path: Path) -> None:
    clock = SimulatedClock()
    tickets: Tickets[int] = Tickets(clock)
    first = tickets.issue(1)
    assert tickets.take("") is None
    assert tickets.take(first) == 1
    assert tickets.take(first) is None
    late = tickets.issue(2)
    clock.advance(VALID_S)
    assert tickets.take(late) is None
    many = [tickets.issue(each) for each in range(MAX_TICKETS + 1)]
    assert len(set(many)) == len(many)
    assert tickets.take(many[0]) is None
    assert tickets.take(many[1]) == 1


async def test_keys_are_told_to_operators_without_what_they_are_made_of(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    old = new_key()
    add_key(tmp_path / "keys.json", record_of(old, label="Bob", role="observe", expires=1.0))
    async with served(tmp_path, "operate") as client:
        answer = await client.get("/v1/ui/keys")
        told: dict[str, Any] = answer.json()
        assert (told["needs_key"], told["total"]) == (True, 2)
        assert {each["label"]: (each["role"], each["state"], each["tenant"]) for each in told["data"]} == {
            "Ann": ("operate", "active", "lab"),
            "Bob": ("observe", "expired", old.id),
        }
        for secret in (old.secret, old.digest, "digest"):
            assert secret not in answer.text
