"""Reports of a deliberation: all of it is told, and nothing that a model wrote is obeyed."""

from __future__ import annotations

import asyncio
import io
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from tests.deliberation.acted import question
from tests.deliberation.front_bench import answer, degraded, submitted, update
from tests.long_form import examples

from anywire.deliberation_views import Whole
from anywire.testing.patience import polled
from anywire_service_deliberation import live
from anywire_service_deliberation.live import Picture, line_of
from anywire_service_deliberation.offered import Update
from anywire_service_deliberation.question import Criterion, Rubric
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.report import html_page, markdown
from anywire_service_deliberation.report_terminal import report
from anywire_service_deliberation.viewed import whole

BASE = "/v1/deliberations"
HOSTILE = (
    "<script>alert(1)</script>\n```\n# forged\n````\n![x](http://evil)\x1b[31m\u202e | **b** &lt; ' \" [red]x[/red]"
)


def shown(state: Deliberation) -> Whole:
    return whole(state, BASE)


def terminal(state: Whole, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for part in report(state):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


TOLD = (
    "[].reverse()",
    "All of it.",
    "nobody has scored it",
    "degraded",
    "member-3: no critique (agent_lost: it went)",
    "hanging",
    "no tests",
    "agent-9",
    "150 tokens",
    "12.5 s of 300 s",
    "borda",
)
BESIDE = ("Reverse a list.", "It copies.", "[].reverse() by member-1", "clarity")
"""What a file has and a terminal has not."""


def text_of(page: str) -> str:
    """The text of a page as a reader sees it, without its style."""

    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[str] = []

        def handle_data(self, data: str) -> None:
            self.texts.append(data)

    parser = Text()
    parser.feed(page)
    return "".join(parser.texts)


def test_every_report_tells_all_of_it() -> None:
    state = shown(degraded())
    plain = re.sub(r"\\(.)", r"\1", markdown(state))
    for text in TOLD:
        assert text in plain, text
        assert text in text_of(html_page(state)), text
        assert text in terminal(state), text
    for text in BESIDE:
        assert text in plain, text
        assert text in text_of(html_page(state)), text


def test_dissent_is_told() -> None:
    state = msgspec.structs.replace(shown(degraded()), dissent=("member-1", "member-3"))
    for text in (markdown(state), text_of(html_page(state)), terminal(state)):
        assert "member-1, member-3 scored another proposal higher than the winner's." in text.replace("\\", "")


def test_one_without_a_winner_says_why() -> None:
    failed = msgspec.structs.replace(
        submitted(), status="timed_out", ended=submitted().deadline, reason="0 of 3 members"
    )
    for text in (markdown(shown(failed)), html_page(shown(failed)), terminal(shown(failed))):
        assert "timed out" in text.replace("\\_", "_")
        assert "0 of 3 members" in text
        assert "Answer" not in text


def hostile(text: str) -> Whole:
    """A deliberation in which every text of a stranger is ``text``."""
    name = text.replace("/", "")[:40] or "m"
    state = degraded(text=text, task=text, requirements=(text,), rubric=Rubric(text, (Criterion(text),)))
    answers = {
        key: msgspec.structs.replace(each, agent=text, transport=text, points={text: 1.0} if each.points else {})
        for key, each in state.answers.items()
    }
    failures = {key: msgspec.structs.replace(each, message=text, code=text) for key, each in state.failures.items()}
    found = msgspec.structs.replace(state, answers=answers, failures=failures, reason=text, synthesis=text)
    viewed = shown(found)
    members = tuple(msgspec.structs.replace(each, name=name) for each in viewed.members)
    return msgspec.structs.replace(viewed, id=text, members=members, dissent=(text,))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def tags(page: str) -> list[Any]:
    parser = Tags()
    parser.feed(page)
    return parser.found


texts = st.one_of(
    st.just(HOSTILE), st.text(st.sampled_from("`~<>&|\\*_[]()!#- \n\t\r\x00\x1b\u202eab'\"/:=")), st.text()
)


@given(texts)
@settings(max_examples=examples(40), deadline=None)
def test_no_text_adds_anything_to_a_page(text: str) -> None:
    page = html_page(hostile(f"{text}x"))
    assert tags(page) == tags(html_page(hostile("plain")))
    assert not re.search(r"[\x00-\x08\x1b\u202e\ud800-\udfff]", page)
    page.encode()


@given(texts)
@settings(max_examples=examples(40), deadline=None)
def test_no_text_adds_anything_to_a_markdown_file(text: str) -> None:
    def kinds(written: str) -> list[str]:
        found = []
        for token in MarkdownIt("commonmark").enable("table").parse(written):
            found.append(token.type)
            found += [child.type for child in token.children or () if not child.type.startswith("text")]
        return found

    written = markdown(hostile(f"{text}x"))
    assert kinds(written) == kinds(markdown(hostile("plain")))
    assert not re.search(r"[\x00-\x08\x1b\u202e\ud800-\udfff]", written)


@given(texts)
@settings(max_examples=examples(20), deadline=None)
def test_no_text_controls_a_terminal(text: str) -> None:
    printed = terminal(hostile(f"{text}x"))
    assert not re.search(r"[\x00-\x08\x1b\u202e]", re.sub(r"\x1b\[[0-9;]*m", "", printed))


def test_a_fence_is_longer_than_any_in_a_text() -> None:
    (answer_block,) = re.findall(r"## Answer[^\n]*\n\n(`+)text\n", markdown(hostile("a\n`````\nb")))
    assert answer_block == "``````"


# What goes on


def drawn(picture: Picture) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_shows_members_stages_and_scores() -> None:
    picture = Picture(shown(submitted()))
    changes: list[None] = []
    picture.changed = lambda: changes.append(None)
    for each in (
        update(1, "stage", status="generating", round=0),
        *(update(number + 1, "asked", work=f"proposal/0/member-{number}") for number in (1, 2, 3)),
        update(5, "answered", work="proposal/0/member-1", agent="agent-1"),
        update(
            6, "failed", work="proposal/0/member-2", code="agent_lost", message="it went", agent="agent-2", again=True
        ),
        update(7, "asked", work="proposal/0/member-2"),
        update(8, "stage", status="critiquing", round=1),
        *(update(8 + n, "asked", work=f"critique/1/member-1/member-{n}") for n in (2, 3)),
        update(11, "answered", work="critique/1/member-1/member-2", agent="agent-4"),
        update(12, "answered", work="score/0/member-2/member-1", agent="agent-2", score=4.0),
        update(13, "answered", work="score/0/member-3/member-1", agent="agent-3", score=3.0),
    ):
        picture.add(each)
    assert len(changes) == 13
    text = drawn(picture)
    assert "critiquing" in text
    row = next(line for line in text.splitlines() if line.startswith("member-1"))
    assert row.split() == ["member-1", "DEV", "agent-4", "+1", "done", "1/2", "3.5"]
    assert next(line for line in text.splitlines() if line.startswith("member-2")).split()[-3:] == [
        "agent-2",
        "…",
        "done",
    ]
    assert "member-2: proposal failed by agent-2 (agent_lost: it went), asked again" in text


async def test_a_picture_is_drawn_until_it_is_cancelled() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    picture = Picture(shown(submitted()))
    drawing = asyncio.create_task(live.drawn(picture, console))
    assert isinstance(console.file, io.StringIO)
    written = console.file
    await polled(lambda: "submitted" in written.getvalue(), "the picture is drawn")
    picture.add(update(1, "stage", status="generating", round=0))
    await polled(lambda: "generating" in written.getvalue(), "the change is drawn")
    drawing.cancel()
    await asyncio.gather(drawing, return_exceptions=True)
    assert written.getvalue().endswith("\x1b[2K"), "nothing of it is left"


def test_what_goes_on_is_told_in_lines() -> None:
    lines = [
        line_of(update(1, "stage", status="critiquing", round=2)),
        line_of(update(2, "asked", work="critique/2/member-1/member-2")),
        line_of(update(3, "answered", work="critique/2/member-1/member-2", agent="a", transport="dds", seconds=1.25)),
        line_of(update(4, "answered", work="score/0/member-1/member-2", score=3.5)),
        line_of(update(5, "late", work="proposal/0/member-3", agent="b")),
        line_of(update(6, "ended", status="completed")),
    ]
    assert lines == [
        "critiquing, round 2",
        "",
        "member-1: critique of member-2, round 2 by a over dds after 1.2 s",
        "member-1: score of member-2: 3.5",
        "member-3: proposal by b, too late to count",
        "",
    ]


@given(st.sampled_from(["stage", "asked", "answered", "failed", "late", "ended", "new"]), st.data())
@settings(max_examples=examples(40))
def test_nonsense_of_a_server_changes_nothing(name: str, data: st.DataObject) -> None:
    values = st.one_of(
        st.none(), st.text(max_size=9), st.integers(), st.sampled_from(["score/0/a/b", "a/b", "proposal/x/a"])
    )
    keys = st.sampled_from(["work", "status", "round", "score", "seconds", "agent", "code", "message", "again"])
    told = Update(1, name, 0.0, data.draw(st.dictionaries(keys, values)))
    picture = Picture(shown(submitted()))
    picture.add(told)
    assert isinstance(line_of(told), str)
    drawn(picture)


@pytest.mark.parametrize("members", [1, 64])
def test_any_number_of_members_can_be_told(members: int) -> None:
    asked = question(members)
    answers = {f"proposal/0/{each.name}": answer("x") for each in asked.members}
    state = shown(msgspec.structs.replace(submitted(), question=asked, answers=answers))
    assert len(state.members) == len(state.proposals) == members
    assert markdown(state).count("\n### ") == members
    drawn(Picture(state))
