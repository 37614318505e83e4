"""The parts of the launcher ``ray`` that need no process: messages, seals, counts, settings, sentences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire.errors import ConfigError
from anywire.plugins import Plugins
from anywire_launcher_ray import RayConfig
from anywire_launcher_ray.actor import State
from anywire_launcher_ray.config import Needs
from anywire_launcher_ray.driver.cluster import knows_tokens
from anywire_launcher_ray.driver.words import lacking, of_error
from anywire_launcher_ray.driver_process import error_of_ray
from anywire_launcher_ray.lives import Lives
from anywire_launcher_ray.messages import (
    MAX_LINES,
    MAX_TEXT,
    Alive,
    Connect,
    Connected,
    Down,
    Ended,
    Failed,
    Place,
    Placed,
    Reported,
    Start,
    Stop,
    Waiting,
    encode,
    order,
    report,
    shortened,
)
from anywire_launcher_ray.pauses import Pauses
from anywire_launcher_ray.sealed import SealError, SealKey, seal

COUNTS = st.integers(0, 2**31)
NAMES = st.text(min_size=1, max_size=20)
TEXTS = st.text(max_size=50)
AMOUNTS = st.floats(0, 1e6)
PLACES = st.builds(Place, AMOUNTS, AMOUNTS, COUNTS, st.dictionaries(NAMES, AMOUNTS, max_size=3), st.booleans())
ORDERS = st.one_of(
    st.builds(Connect, TEXTS, TEXTS),
    st.builds(Start, COUNTS, NAMES, NAMES, TEXTS, AMOUNTS, PLACES, st.booleans()),
    st.builds(Stop, COUNTS, AMOUNTS),
)
REPORTS = st.one_of(
    st.builds(Connected, TEXTS, TEXTS, TEXTS, COUNTS, st.lists(COUNTS, max_size=3)),
    st.just(Alive()),
    st.builds(Failed, TEXTS),
    st.builds(Placed, COUNTS, NAMES, NAMES, TEXTS, TEXTS),
    st.builds(Reported, COUNTS, NAMES, COUNTS, COUNTS, st.booleans(), st.lists(TEXTS, max_size=3)),
    st.builds(Down, COUNTS, TEXTS),
    st.builds(Waiting, COUNTS, TEXTS),
    st.builds(Ended, COUNTS, TEXTS),
)


@settings(max_examples=examples(40), deadline=None)
@given(ORDERS, REPORTS)
def test_a_message_is_a_line_and_comes_back_as_it_was(ordered: Any, told: Any) -> None:
    for message, read in ((ordered, order), (told, report)):
        line = encode(message)
        assert line.count(b"\n") == 1
        assert read(line) == message
        with pytest.raises(msgspec.ValidationError):
            (report if read is order else order)(line)


@pytest.mark.parametrize(
    "told",
    [
        Reported(0, "life", 1, 0, True, ["line"] * (MAX_LINES + 1)),
        Reported(0, "life", -1, 0, True, []),
        Down(0, "x" * (MAX_TEXT + 1)),
        Placed(-1, "life", "host", "", ""),
    ],
)
def test_what_is_beyond_the_bounds_is_no_report(told: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        report(encode(told))


@pytest.mark.parametrize(
    "state", [{"lines": ["x"] * (MAX_LINES + 1)}, {"pid": -1}, {"restarts": -1}, {"life": ""}, {"life": None}]
)
def test_what_an_actor_says_beyond_the_bounds_is_no_state(state: dict[str, Any]) -> None:
    told = {"life": "life", "change": 0, "line": 0} | state
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=State)


def test_a_long_text_is_shortened_to_what_a_report_takes() -> None:
    assert report(encode(Down(0, shortened("x" * 10 * MAX_TEXT))))
    assert shortened("short") == "short"


@settings(max_examples=examples(40), deadline=None)
@given(st.binary(max_size=200), st.data())
def test_a_seal_is_opened_by_its_key_alone_and_as_a_whole(text: bytes, data: st.DataObject) -> None:
    key = SealKey()
    sealed = seal(text, key.public)
    assert key.open(sealed) == text
    assert seal(text, key.public) != sealed
    with pytest.raises(SealError):
        SealKey().open(sealed)
    at = data.draw(st.integers(0, len(sealed) - 1))
    # The highest bit of the key's last byte counts for nothing in X25519, but is part of what is derived from.
    changed = sealed[:at] + bytes([sealed[at] ^ 1 << data.draw(st.integers(0, 7))]) + sealed[at + 1 :]
    with pytest.raises(SealError):
        key.open(changed)
    with pytest.raises(SealError):
        key.open(sealed[:at])


def test_a_sealed_text_cannot_be_read() -> None:
    assert b"secret" not in seal(b"secret" * 100, SealKey().public)
    with pytest.raises(SealError):
        seal(b"text", b"short")


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=5))
def test_restarts_are_those_within_each_life_and_one_for_each_further_life(lives: list[list[int]]) -> None:
    counted, expected = Lives(), 0
    for number, within in enumerate(lives):
        counted.see(f"life {number}")
        expected += 1 if number else 0
        assert counted.restarts == expected
        highest = 0
        for restarts in within:
            counted.see(f"life {number}", restarts)
            highest = max(highest, restarts)
            assert counted.restarts == expected + highest
        expected += highest


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.floats(0, 60), min_size=1, max_size=12))
def test_pauses_double_up_to_30_seconds_and_begin_anew_after_a_long_life(lives: list[float]) -> None:
    pauses, expected = Pauses(), 0.5
    for life in lives:
        expected = 0.5 if life > 30 else expected
        assert pauses.after(life) == min(expected, 30)
        expected *= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "ray://10.0.0.1:10001"}, "ray start --address=HOST:6379 --num-cpus=0"),
        ({"address": "10.0.0.1"}, "expected HOST:PORT"),
        ({"address": "10.0.0.1:99999"}, "expected HOST:PORT"),
        ({"resources": {"GPU": 1}}, "GPU has a setting of its own, num_gpus"),
        ({"num_gpus": -1}, "launcher.num_gpus"),
        ({"num_gpus": 1.5}, "a part of a GPU, or whole ones"),
        ({"resources": {"fast": 2.5}}, "a part of one fast, or whole ones"),
        ({"agents": {"big-*": {"gpus": 1}}}, "unknown key 'launcher.agents.big-"),
        ({"gpus": 1}, "did you mean 'num_gpus'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_to_do(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Plugins().create("launchers", "ray", options)


def test_agents_are_placed_on_the_named_nodes_in_turn() -> None:
    config = RayConfig(nodes=["10.0.0.1", "10.0.0.2"], resources={"fast": 1}, num_gpus=0.5)
    places = [config.place(f"a-{number}", number) for number in range(3)]
    assert [place.resources for place in places] == [
        {"fast": 1, "node:10.0.0.1": 0.001},
        {"fast": 1, "node:10.0.0.2": 0.001},
        {"fast": 1, "node:10.0.0.1": 0.001},
    ]
    assert {place.num_gpus for place in places} == {0.5}


def test_some_agents_need_something_else() -> None:
    config = RayConfig(
        num_cpus=1,
        resources={"fast": 1},
        agents={"big-*": Needs(num_gpus=1, resources={}), "b*": Needs(spread=False)},
    )
    assert config.place("big-1", 0) == Place(num_cpus=1, num_gpus=1, spread=True)
    assert config.place("base-1", 1) == Place(num_cpus=1, resources={"fast": 1}, spread=False)
    assert config.place("Big-1", 2) == Place(num_cpus=1, resources={"fast": 1}, spread=True)


def test_why_an_agent_has_no_place_is_said_in_resources() -> None:
    total = {"CPU": 4.0, "node:10.0.0.1": 1.0, "object_store_memory": 1e9}
    assert lacking(Place(num_gpus=1, resources={"fast": 2}), total, total | {"CPU": 0.5}) == (
        "no node has free what it needs (1 GPU, 2 fast); the cluster has 4 CPU, free 0.5 CPU"
    )


@pytest.mark.parametrize("version", ["2.52.0", "2.60.0", "3.0.0rc1", "10.1", "unknown"])
def test_a_newer_ray_asks_for_a_token(version: str) -> None:
    assert knows_tokens(version)
    assert not knows_tokens("2.51.2")
    assert not knows_tokens("1.60")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "The actor 0c19 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed "
            "rpc_code: 14. The task may or may not have been executed on the actor.",
            "its worker or its node is lost (RpcError: RPC error: Socket closed rpc_code: 14)",
        ),
        (
            "The actor died because of an error raised in its creation task, ray::RayAgent.__init__()\n"
            "ModuleNotFoundError: No module named 'anywire_launcher_ray'",
            "the Python of its node has no module anywire_launcher_ray: install what the agent needs on each node",
        ),
        ("The actor died.\n\tclass_name: RayAgent\n\tactor_id: 12\n\tip: 10.0.0.1\n", "The actor died. ip: 10.0.0.1"),
        ("", "RuntimeError"),
    ],
)
def test_errors_of_ray_are_said_in_a_sentence(text: str, said: str) -> None:
    assert of_error(RuntimeError(text)) == said


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "[2026-11-30 00:11:16,944 E 17 18] rpc_client.h:204: Failed to connect to GCS. See",
            "Failed to connect to GCS",
        ),
        ("[2026-11-30 00:09:31,261 I 31 31] (raylet) worker_pool.cc:564: Started worker process", ""),
        ("[state-dump] NodeManager:", ""),
        ("(raylet) The node was marked dead", ""),
        ("MemoryError", None),
    ],
)
def test_of_the_lines_of_a_driver_the_errors_of_ray_are_told(line: str, error: str | None) -> None:
    assert error_of_ray(line) == error
