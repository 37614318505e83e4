"""What background tasks may take of the disk, and disks and files that fail."""

from __future__ import annotations

import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.background_bench import ANN, Fleet, answered, bench, opened, task, text

from anywire import errors
from anywire.caller import Caller
from anywire.testing.doubles import Script
from anywire.testing.patience import polled
from anywire_service_background.database import FILE
from anywire_service_background.kept_tasks import KeptTasks
from anywire_service_background.records import encoded_submission, left


async def test_the_tenant_that_has_most_gives_way(tmp_path: Path) -> None:
    many, few = Caller("m", "many"), Caller("f", "few")
    async with bench(tmp_path, max_tasks=6, tenant_share=0.5) as (_, tasks):
        (first, *_), mine = [[await ended(tasks, each) for _ in range(count)] for each, count in ((many, 4), (few, 2))]
        # Full: the oldest answer of the tenant with most goes, for whoever comes.
        mine.append(await ended(tasks, few))
        assert await tasks.get(first, many) is None
        assert [await tasks.get(each, few) is None for each in mine] == [False] * 3
        # What has not ended is kept, a share of the whole for each tenant.
        running = [(await tasks.submit(task(hold_after=0, caller=many)))[0] for _ in range(3)]
        with pytest.raises(errors.QueueFull, match="tenant_share"):
            await tasks.submit(task(caller=many))
        assert [await tasks.get(each, few) is None for each in mine] == [False] * 3
        running += [(await tasks.submit(task(hold_after=0, caller=few)))[0] for _ in range(3)]
        assert [await tasks.get(each, few) is None for each in mine] == [True] * 3, "its own answers go"
        with pytest.raises(errors.QueueFull, match="no room"):
            await tasks.submit(task(caller=ANN))


async def test_a_tenant_with_less_loses_nothing_to_one_with_more(tmp_path: Path) -> None:
    many, few = Caller("m", "many"), Caller("f", "few")
    async with bench(tmp_path, max_bytes=10_000, tenant_share=0.99) as (_, tasks):
        mine = await ended(tasks, few)
        await tasks.submit(task(hold_after=0, caller=many, filler="x" * 8000))
        with pytest.raises(errors.QueueFull, match="no room"):
            await tasks.submit(task(caller=many, filler="x" * 1000))
        assert await tasks.get(mine, few) is not None


async def ended(tasks: KeptTasks, caller: Caller) -> str:
    task_id, _ = await tasks.submit(task(caller=caller))
    await answered(tasks, task_id, caller)
    return task_id


async def test_an_answer_without_room_is_an_error(tmp_path: Path) -> None:
    async with bench(tmp_path, max_bytes=3000, tenant_share=1.0) as (_, tasks):
        task_id, _ = await tasks.submit(task(size=4000))
        assert isinstance((await answered(tasks, task_id)).error, errors.PayloadTooLarge)


async def test_answers_expire(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, tasks):
        task_id = await ended(tasks, ANN)
        keyed, _ = await tasks.submit(task(), "k", b"d")
        await answered(tasks, keyed)
    async with bench(tmp_path, keep_hours=1e-9) as (_, tasks):
        assert await tasks.get(task_id, ANN) is None
    database = opened(tmp_path)
    assert database.get(task_id) is None, "it is removed from the file"
    assert database.by_key("k", 0.0) is None
    database.close()


async def test_while_the_disk_is_full_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with bench(tmp_path, engine=(engine := Fleet(holds=True))) as (served, tasks):
        running = [(await tasks.submit(task(str(number), hold_after=0, size=200_000)))[0] for number in range(2)]
        written = max(each.stat().st_size for each in (tmp_path / "tasks").iterdir())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + 20_000, before[1]))
        try:
            for _ in range(2):
                with pytest.raises(errors.PluginFailed, match="cannot be kept"):
                    await tasks.submit(task("refused", filler="x" * 200_000))
            assert served.orchestrator.cancel(running[0], "x" * 200_000)
            await polled(lambda: len(served.orchestrator.tasks()) == 1, "it is cancelled")
            assert caplog.text.count("cannot be kept or read now") == 1, "logged once"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert isinstance((await answered(tasks, running[0])).error, errors.TaskCancelled)
        assert "can be kept again" in caplog.text
        engine.holds = False
    async with bench(tmp_path) as (_, tasks):
        assert isinstance((await answered(tasks, running[0])).error, errors.TaskCancelled)
        found = await tasks.get(running[1], ANN)
        assert found is not None


@pytest.mark.parametrize("damage", [b"no database at all", b""], ids=["whole", "a page"])
async def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as (_, tasks):
        for _ in range(20):
            task_id = await ended(tasks, ANN)
    file = tmp_path / "tasks" / FILE
    data = bytearray(file.read_bytes())
    data[4096:] = bytes([7]) * (len(data) - 4096)
    file.write_bytes(damage or data)
    async with bench(tmp_path) as (_, tasks):
        assert "was damaged" in caplog.text
        assert await tasks.get(task_id, ANN) is None
        await ended(tasks, ANN)
    assert file.with_name(f"{FILE}.damaged").exists()
    private = [each.stat().st_mode & 0o077 for each in (tmp_path / "tasks", *(tmp_path / "tasks").iterdir())]
    assert set(private) == {0}


async def test_one_damaged_task_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now, database = time.time(), opened(tmp_path)
    database.add(left("bad", task(), now), "lab", "", b"", b"\xc1", 0.0)
    database.add(left("good", task(), now), "lab", "", b"", encoded_submission(task()), 0.0)
    database.close()
    async with bench(tmp_path) as (_, tasks):
        assert await text(tasks, "good") == Script("a").text()
        assert await tasks.get("bad", ANN) is None
    assert caplog.text.count("the background task bad is lost") == 1


async def test_a_folder_or_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path):
        pass
    folder = tmp_path / "tasks"
    for path, mode, mends in ((folder / FILE, 0o640, "chmod 600"), (folder, 0o750, "chmod 700")):
        right = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(errors.ConfigError, match=f"{mends} {path}"):
            async with bench(tmp_path):
                pass
        path.chmod(right)
    opened(tmp_path).close()


async def test_a_file_of_a_later_version_is_left_as_it_is(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "tasks" / FILE)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = (tmp_path / "tasks" / FILE).read_bytes()
    with pytest.raises(errors.ConfigError, match=r"later version .* set services.background.folder"):
        async with bench(tmp_path):
            pass
    assert (tmp_path / "tasks" / FILE).read_bytes() == before
