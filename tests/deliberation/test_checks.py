"""Checks of a proposal: what they say is kept, and what they do wrong harms no other."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest
from tests.deliberation.acted import question
from tests.patience import PATIENCE

from anywire.errors import ConfigError
from anywire_service_deliberation.checks import ERROR, MAX_FINDINGS, MAX_MESSAGE_CHARS, ProposalCheck, checked
from anywire_service_deliberation.question import Member, Question
from anywire_service_deliberation.record import Check
from anywire_service_deliberation.shipped_checks import CheckSettings, checks_of, code_in

ASKED = question()
AUTHOR = ASKED.members[0]


class Says:
    """A check that returns, or raises, what it was made with."""

    def __init__(self, said: Any, kind: str = "mine") -> None:
        self.kind = kind
        self.said = said
        self.seen: list[str] = []

    async def check(self, question: Question, member: Member, text: str) -> Check:
        self.seen.append(text)
        if isinstance(self.said, BaseException):
            raise self.said
        assert isinstance(self.said, Check) or self.said is None or isinstance(self.said, str)
        return self.said  # type: ignore[return-value]


class Hangs(Says):
    """It never ends; ``stubborn``: not even when it is cancelled, before ``release``."""

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__(None, "hangs")
        self.stubborn = stubborn
        self.release = asyncio.Event()
        self.cancelled = False

    async def check(self, question: Question, member: Member, text: str) -> Check:
        while True:
            try:
                await self.release.wait()
                return Check("hangs", passed=True)
            except asyncio.CancelledError:
                self.cancelled = True
                if not self.stubborn:
                    raise


GOOD = Check("mine", passed=True, message="fine", score=0.5, details={"a": "b"})


async def of(*checks: ProposalCheck, text: str = "The plan.", timeout: float = PATIENCE) -> tuple[Check, ...]:
    return await checked(checks, ASKED, AUTHOR, text, timeout=timeout)


def settled(**settings: Any) -> ProposalCheck:
    (check,) = checks_of([CheckSettings(**{"kind": "lint", **settings})])
    return check


async def test_what_each_check_says_is_kept_in_order() -> None:
    bad = Check("other", passed=False, findings=("line 1",))
    one, two = Says(GOOD), Says(bad, "second")
    assert await of(one, two) == (GOOD, Check("second", passed=False, findings=("line 1",)))
    assert one.seen == two.seen == ["The plan."]
    assert await of() == ()


@pytest.mark.parametrize("wrong", [ValueError("ouch"), asyncio.CancelledError(), None, "yes"])
async def test_a_check_that_does_wrong_harms_no_other_and_is_not_passed(wrong: Any) -> None:
    broken, good = await of(Says(wrong, "broken"), Says(GOOD))
    assert good == GOOD
    assert broken.kind == "broken"
    assert not broken.passed
    assert ERROR in broken.details
    assert broken.message.startswith("The check could not be made: ")


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_check_that_hangs_is_left_behind(stubborn: bool) -> None:
    hanging = Hangs(stubborn=stubborn)
    hung, good = await of(hanging, Says(GOOD), timeout=0.01)
    assert good == GOOD
    assert hung.details == {ERROR: "it took more than 0.01 s"}
    assert hanging.cancelled
    hanging.release.set()


async def test_what_a_check_says_is_bounded() -> None:
    much = Check("mine", passed=False, message="x" * 100_000, findings=("y" * 10_000,) * 1000)
    (kept,) = await of(Says(much))
    assert len(kept.message) == MAX_MESSAGE_CHARS
    assert len(kept.findings) == MAX_FINDINGS
    assert sum(map(len, kept.findings)) <= 50_000


async def test_a_check_that_returns_nonsense_inside_is_told() -> None:
    (kept,) = await of(Says(Check("mine", passed=True, warnings="many")))  # type: ignore[arg-type]
    assert not kept.passed
    assert "cannot be kept" in kept.details[ERROR]


async def test_forbidden_texts() -> None:
    check = settled(kind="policy", forbid=[r"(?i)password\s*=", "eval"])
    assert await of(check, text="x = 1") == (Check("policy", passed=True),)
    (found,) = await of(check, text="Password = 'a'")
    assert (found.passed, found.message) == (False, "1 forbidden")
    assert found.findings == (r"(?i)password\s*=: 'Password ='",)


CODE = "Here:\n```python\nx = 1\n```\nand\n~~~ Python title\ny = 2\n~~~\n```sh\nrm\n```\n````python\n```\nz\n````\n"


def test_the_code_of_a_language_is_found() -> None:
    assert code_in(CODE, "python") == "x = 1\n\ny = 2\n\n```\nz\n"
    assert code_in(CODE, "sh") == "rm\n"
    assert code_in("```python\nbroken off", "python") == "broken off"
    assert code_in("none", "python") == ""


async def test_a_command_reads_the_proposal_and_its_status_counts() -> None:
    (echoed,) = await of(settled(command=["cat"]), text="ünder\n")
    assert echoed == Check("lint", passed=True, message="ünder")
    (code,) = await of(settled(command=["cat"], language="sh"), text=CODE)
    assert code.message == "rm"
    (missing,) = await of(settled(command=["cat"], language="sh"), text="none")
    assert (missing.passed, missing.message) == (False, "There is no code in sh.")
    failing = settled(command=["sh", "-c", "echo line 1; echo line 2 >&2; exit 3"])
    (failed,) = await of(failing, text="never read " * 100_000)
    assert failed == Check(
        "lint", passed=False, message="sh exited with status 3", findings=("line 1", "line 2"), exit_code=3
    )


@pytest.mark.parametrize("early", [False, True])
async def test_a_command_that_writes_without_end_is_killed_with_its_check(tmp_path: Path, early: bool) -> None:
    """Also when the check is cancelled before it knows that its command has begun."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.open(held, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    endless = settled(command=["sh", "-c", f"exec 3> {held}; echo begun >&3; yes & echo on >&3; exec yes"])
    check = asyncio.create_task(endless.check(ASKED, AUTHOR, "The plan."))
    for line in (b"begun\n",) if early else (b"begun\n", b"on\n"):
        assert await asyncio.wait_for(reader.readline(), PATIENCE) == line
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    # It ends once all that hold it have ended.
    assert await asyncio.wait_for(reader.read(), PATIENCE) in (b"", b"on\n")


async def test_a_command_is_not_told_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYWIRE_API_KEY", "abc")
    monkeypatch.setenv("SERVICE_PASSWORD", "def")
    monkeypatch.setenv("PLAIN", "ghi")
    (shown,) = await of(settled(command=["env"]))
    assert "PLAIN=ghi" in shown.message
    assert "abc" not in shown.message
    assert "def" not in shown.message


async def test_a_check_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_check_of_a_test.py").write_text(
        "from anywire_service_deliberation.record import Check\n\n"
        "class Short:\n"
        "    kind = ''\n"
        "    async def check(self, question, member, text):\n"
        "        return Check(self.kind, len(text) < 5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check = settled(kind="short", python="own_check_of_a_test:Short")
    assert await of(check, text="long text") == (Check("short", passed=False),)
    monkeypatch.delitem(sys.modules, "own_check_of_a_test")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"command": ["no-such-program-here"]}, "checks.0.command: there is no program 'no-such-program-here'"),
        ({"forbid": ["a", "("]}, "checks.0.forbid.1: this is no regular expression"),
        ({"python": "nowhere_at_all:Mine"}, "checks.0.python: 'nowhere_at_all:Mine' cannot be made"),
        ({"python": "json:JSONDecoder"}, "checks.0.python"),
        ({"python": "json"}, "checks.0.python"),
    ],
)
def test_a_wrong_check_is_told(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        settled(**settings)
    assert says in str(error.value)


def test_two_checks_have_two_names() -> None:
    with pytest.raises(ConfigError, match=r"checks\.1\.kind: two checks are named 'lint'"):
        checks_of([CheckSettings(kind="lint", forbid=["a"]), CheckSettings(kind="lint", forbid=["b"])])


@pytest.mark.parametrize(
    "settings",
    [{}, {"command": ["cat"], "forbid": ["a"]}, {"forbid": ["a"], "language": "sh"}, {"command": []}, {"kind": "a/b"}],
)
def test_settings_are_one_thing(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        CheckSettings(**{"kind": "lint", **settings})
