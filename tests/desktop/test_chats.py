"""Conversations that are kept while the bridge runs."""

from __future__ import annotations

from typing import Any

import pytest

from anywire.errors import InvalidRequest, QueueFull
from anywire_desktop import chats
from anywire_desktop.chats import Chats
from anywire_desktop.commands.chat import _title


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def test_a_conversation_grows_with_each_answer() -> None:
    kept = Chats()
    kept.begin("a")
    kept.end("a", [said("one"), said("two", "assistant")])
    kept.begin("a")
    assert kept.messages("a") == [said("one"), said("two", "assistant")]
    kept.end("a", [])
    assert len(kept.messages("a")) == 2
    kept.clear("a")
    assert kept.messages("a") == []


def test_one_answer_of_a_conversation_at_a_time() -> None:
    kept = Chats()
    kept.begin("a")
    with pytest.raises(InvalidRequest, match="under way"):
        kept.begin("a")
    kept.begin("b")
    kept.clear("a")  # while it is answered: the answer is not kept
    kept.end("a", [said("late")])
    assert kept.messages("a") == []
    kept.begin("a")


def test_conversations_are_bounded_and_the_oldest_idle_one_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_SESSIONS", 3)
    kept = Chats()
    kept.begin("busy")
    for name in ("b", "c", "d"):
        kept.load(name, [said(name)])
    assert kept.messages("b") == []
    assert kept.messages("d") == [said("d")]
    kept.begin("c")
    kept.begin("d")
    with pytest.raises(QueueFull):
        kept.begin("e")
    kept.end("busy", [said("there still")])
    assert kept.messages("busy") == [said("there still")]


def test_a_conversation_that_is_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_BYTES", 1000)
    kept = Chats()
    with pytest.raises(InvalidRequest, match="begin a new one"):
        kept.load("a", [said("x" * 1000)])


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": "wizard", "content": ""},
        {"role": ["user"], "content": ""},
        {"role": "user", "content": 7},
    ],
)
def test_wrong_messages_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="message 0"):
        Chats().load("a", [message])


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Adding numbers."', "Adding numbers"),
        ("<think>a title\nis needed</think>\n\n**Adding numbers**", "Adding numbers"),
        ("<think>never ends", ""),
        ("  \n", ""),
        ("a " * 100, "a " * 29 + "a …"),
    ],
)
def test_a_title_is_one_short_line(text: str, title: str) -> None:
    assert _title(text) == title
