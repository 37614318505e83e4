"""Daily budgets over a restart: what the file keeps, who shares it, and what is done with a damaged one."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from anywire.caller import Caller, Limits
from anywire.errors import LimitReached
from anywire.pipeline.tasks.limits import DAY, CallerLimits
from anywire.roles.kept_budgets import FILE, FOLDER, PAUSE, KeptBudgets
from anywire.testing.clock import SimulatedClock
from anywire.testing.patience import expect

ALICE = Caller("alice", limits=Limits(tokens_per_day=100))


class Life:
    """What counts and keeps budgets in one life of an orchestrator, at noon of a day."""

    def __init__(self, root: Path, day: int = 20_000) -> None:
        self.clock = SimulatedClock()
        self.limits = CallerLimits(self.clock, lambda: (day + 0.5) * DAY)
        self.budgets = KeptBudgets(self.limits, root, self.clock)

    def use(self, tokens: int, caller: Caller = ALICE) -> None:
        self.limits.end(self.limits.take(caller, 0, 0), tokens)

    async def write(self) -> None:
        """Let the time pass after which the file is written, and wait for that."""
        self.clock.advance(PAUSE)
        assert self.budgets._saving is not None
        await expect(self.budgets._saving, "the file is written")

    def left(self, caller: Caller = ALICE) -> int:
        account = self.limits._accounts.get(caller.id)
        return caller.limits.tokens_per_day - (account.used if account is not None else 0)


async def begun(root: Path, day: int = 20_000) -> Life:
    life = Life(root, day)
    await life.budgets.start()
    return life


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "anywire" / "fleet"


async def test_a_budget_holds_over_a_restart_until_midnight(root: Path) -> None:
    life = await begun(root)
    life.use(60)
    life.use(70)
    await life.budgets.close()
    again = await begun(root)
    with pytest.raises(LimitReached, match="130 are used"):
        again.use(1)
    assert (await begun(root, 20_001)).left() == 100
    file = root / FOLDER / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {each.name for each in file.parent.iterdir()} == {FILE}


async def test_without_an_end_at_most_the_last_five_seconds_are_forgotten(root: Path) -> None:
    assert PAUSE < 5
    life = await begun(root)
    life.use(10)
    life.use(20)
    await life.write()
    life.use(40)
    # Killed here.
    assert (await begun(root)).left() == 70


async def test_what_is_used_while_the_file_is_written_is_written_next(root: Path) -> None:
    life = await begun(root)
    life.use(10)
    life.clock.advance(PAUSE)
    saving = life.budgets._saving
    life.use(20)
    assert saving is not None
    await expect(saving, "the file is written")
    life.use(5)
    await life.budgets.close()
    assert (await begun(root)).left() == 65


async def test_nobody_with_a_budget_makes_no_file(root: Path) -> None:
    life = await begun(root)
    life.use(10, Caller("bob", limits=Limits(concurrency=3)))
    await life.budgets.close()
    assert not root.parent.exists()


async def test_orchestrators_with_one_folder_share_the_budgets(root: Path) -> None:
    first, second = await begun(root), await begun(root)
    first.use(30)
    second.use(20)
    await first.write()
    second.use(10)
    await second.write()
    assert second.left() == 40
    first.use(1)
    await first.write()
    assert first.left() == 39
    assert (await begun(root)).left() == 39


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b'{"day": 20000, "used": {"alice": -5}}',
        b'{"day": 20000, "used": {"alice": "x"}}',
        b"\xff\xfe",
    ],
)
async def test_a_damaged_file_is_moved_aside(root: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    folder = root / FOLDER
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(damage)
    (folder / FILE).chmod(0o600)
    life = await begun(root)
    assert life.left() == 100
    assert (folder / f"{FILE}.damaged").read_bytes() == damage
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    life.use(10)
    await life.write()
    # While it runs, what it knows is written again.
    (folder / FILE).write_bytes(damage)
    life.use(20)
    await life.budgets.close()
    assert (await begun(root)).left() == 70


async def test_a_folder_that_cannot_be_used_is_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    life = await begun(root)
    (root / FOLDER / FILE).mkdir(parents=True)
    for _ in range(3):
        life.use(10)
        await life.write()
    assert [each.message.partition(":")[0] for each in caplog.records] == [
        "the tokens used today cannot be written, a restart forgets them"
    ]
    (root / FOLDER / FILE).rmdir()
    await life.budgets.close()
    assert (await begun(root)).left() == 70


async def test_a_budget_of_another_day_is_none(root: Path) -> None:
    life = await begun(root)
    life.use(90)
    await life.budgets.close()
    later = await begun(root, 20_001)
    later.use(5)
    await later.budgets.close()
    assert (await begun(root, 20_001)).left() == 95
    assert (await begun(root)).left() == 100


async def test_a_file_that_cannot_be_read_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / FOLDER / FILE).mkdir(parents=True)
    assert (await begun(root)).left() == 100
    assert "cannot be read" in caplog.text


async def test_a_file_that_others_can_read_is_refused(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    life = await begun(root)
    life.use(10)
    await life.budgets.close()
    file = root / FOLDER / FILE
    file.chmod(0o644)
    again = await begun(root)
    assert again.left() == 100
    assert f"run `chmod 600 {file}`" in caplog.text
    file.chmod(0o600)
    again.use(20)
    await again.budgets.close()
    assert (await begun(root)).left() == 70
