"""Needs for servers of tools: who names one reaches only agents that say that they have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.demand import MAX_LABELS, read_demand
from anywire.offers import Offer, offers_text, read_offers
from anywire.pipeline.fleet.groups import Group, Orders
from anywire.scheduler import QueueKey

features = st.dictionaries(st.sampled_from(["tools", "vision", "mcp:a", "mcp:b"]), st.booleans())
needs = st.lists(st.sampled_from(["tools", "vision", "mcp:a", "mcp:b"]), unique=True).map(tuple)


def read(*tools: Any) -> tuple[str, ...]:
    return read_demand(json.dumps({"messages": [], "tools": list(tools)})).needs


def test_a_request_asks_for_the_servers_that_it_names() -> None:
    files = {"type": "mcp", "server_label": "files"}
    assert read(files) == ("mcp:files", "tools")
    assert read({"type": "function"}, {"type": "mcp", "server_label": "a"}, files, files) == (
        "mcp:a",
        "mcp:files",
        "tools",
    )
    assert read({"type": "function", "name": "mcp"}) == ("tools",)
    many = [{"type": "mcp", "server_label": f"s{number:02}"} for number in range(MAX_LABELS + 5)]
    assert len(read(*many)) == MAX_LABELS + 1
    both = read_demand(json.dumps({"messages": [], "tools": [files], "logprobs": True})).needs
    assert list(both) == sorted(both)


@pytest.mark.parametrize("label", [None, 5, "", "x" * 65, "a\nb", ["a"]])
def test_a_malformed_label_asks_for_nothing(label: Any) -> None:
    assert read({"type": "mcp", "server_label": label}) == ("tools",)


def test_what_is_not_said_is_no_server() -> None:
    assert not Offer("m").lacks("vision")
    assert Offer("m").lacks("mcp:a")
    assert Offer("m", features={"mcp:a": False}).lacks("mcp:a")
    assert not Offer("m", features={"mcp:a": True}).lacks("mcp:a")
    assert not QueueKey("m", "chat", ("tools",)).uses_servers
    assert QueueKey("m", "chat", ("mcp:a", "tools")).uses_servers


def group(said: dict[str, bool]) -> Group:
    offered = (Offer("m", ("chat",), said),)
    return Group((offers_text(offered), ("chat",)), read_offers(offers_text(offered)), Orders())


@given(features, features, needs)
def test_who_does_all_of_another_takes_each_of_its_tasks(
    mine: dict[str, bool], theirs: dict[str, bool], wanted: tuple[str, ...]
) -> None:
    one, other, served = group(mine), group(theirs), ("m", "chat")
    if one.does_all_of(other, served) and not other.lacks(served, wanted):
        assert not one.lacks(served, wanted)
