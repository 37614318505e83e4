"""From a registry's entry and settings to a model and its offer, and the sizes and pieces in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.served_models import entry
from tests.models.tiny_model import tiny, written_tiny

from anywire.errors import InvalidRequest
from anywire.offers import MAX_OFFERS, MAX_OFFERS_BYTES, Offer, offers_text
from anywire.sizes import read_size
from anywire_engine_models.commands import LAST_LINES, bounded, pieces, read, with_defaults
from anywire_engine_models.config import ModelsConfig, budget_bytes
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.server import Exit
from anywire_engine_models.host.status import ModelState, ModelStatus
from anywire_engine_models.hosted_models import KnownModel, known_model, settings_of
from anywire_engine_models.offers import MAX_DETAIL, Learned, fitting, offer, offers_of
from anywire_engine_models.registry.entry import Entry
from anywire_engine_models.registry.entry_json import read_entry

__all__ = ["tiny", "written_tiny"]  # fixtures

NAME = "local:a:1"


def read_one(members: dict[str, Any]) -> Entry:
    return read_entry(members, Path("/models"))


def known(**hosted: Any) -> KnownModel:
    settings = ModelsConfig().defaults
    model = HostedModel(NAME, **hosted)
    return KnownModel(model, settings, NAME, kinds=("chat",), features={"json": True}, resume=None, context=512)


def config(**options: Any) -> ModelsConfig:
    return ModelsConfig.model_validate(options)


@pytest.mark.parametrize(
    ("state", "on_demand", "offered", "takes"),
    [
        ("stopped", False, "stopped", False),
        ("stopped", True, "stopped", True),
        ("starting", False, "starting", False),
        ("running", False, "ready", True),
        ("running", True, "ready", True),
        ("stopping", False, "stopping", False),
        ("stopping", True, "stopping", False),
        ("crashed", False, "crashed", False),
        ("crashed", True, "stopped", True),
    ],
)
def test_a_state_is_offered_so(state: ModelState, on_demand: bool, offered: str, takes: bool) -> None:
    found = offer(known(on_demand=on_demand, slots=3), ModelStatus(NAME, state))
    assert (found.state, found.takes_tasks, found.on_demand, found.slots) == (offered, takes, on_demand, 3)


def test_every_state_is_offered() -> None:
    for state in get_args(ModelState):
        assert offer(known(), ModelStatus(NAME, state)).model == NAME


def test_an_offer_says_why_and_no_more_than_a_line() -> None:
    killed = Exit("killed by SIGKILL\nand much more", signal="SIGKILL")
    assert offer(known(), ModelStatus(NAME, "crashed", exit=killed)).detail == "crashed: killed by SIGKILL"
    assert offer(known(), ModelStatus(NAME, "starting", reason="asked to")).detail == "asked to"
    assert offer(known(), ModelStatus(NAME, "running", reason="asked to")).detail == ""
    assert len(offer(known(), ModelStatus(NAME, "stopped", reason="x" * 9999)).detail) == MAX_DETAIL


def test_what_a_server_tells_wins_over_what_was_known() -> None:
    found = offer(known(), ModelStatus(NAME, "running"), Learned({"tools": True}, 4096))
    assert (found.features, found.context) == ({"json": True, "tools": True}, 4096)


def test_what_is_no_longer_known_is_not_offered() -> None:
    statuses = [ModelStatus(NAME), ModelStatus("local:gone:1")]
    assert offers_of({NAME: known()}, statuses, {}) == (
        Offer(NAME, kinds=("chat",), features={"json": True}, state="stopped", slots=1, context=512),
    )


def test_offers_fit_into_what_an_agent_may_say() -> None:
    few = (Offer("a", detail="why"),)
    assert fitting(few) is few
    long = tuple(Offer(f"{number}{'ö' * 240}", detail="x" * MAX_DETAIL) for number in range(MAX_OFFERS))
    found = fitting(long)
    assert found == tuple(msgspec.structs.replace(each, detail="") for each in long)
    longer = tuple(msgspec.structs.replace(each, digest="d" * 200) for each in long)
    found = fitting(longer)
    assert MAX_OFFERS_BYTES * 0.8 < len(offers_text(found).encode()) <= MAX_OFFERS_BYTES
    assert [each.model for each in found] == [each.model for each in longer][: len(found)]


# Settings


def test_settings_of_one_model_win_over_the_registry_and_that_over_the_defaults() -> None:
    found = settings_of(
        read_one(entry("a", slots=2, on_demand=True, idle_ttl=7)),
        config(
            defaults={"slots": 9, "context": 512, "on_demand": False, "stop_grace": 1},
            models={NAME: {"on_demand": False, "idle_ttl": 8}},
        ),
    )
    assert (found.slots, found.context, found.on_demand, found.idle_ttl) == (2, 512, False, 8)
    assert (found.stop_grace, found.restart, found.command) == (1, "on-failure", ["serve", "a"])


def test_the_one_model_that_is_offered_starts_with_the_agent() -> None:
    assert settings_of(read_one(entry("a")), config(model=NAME)).autostart
    assert not settings_of(read_one(entry("a")), config(model="local:b:1")).autostart


def test_a_model_with_a_command_needs_no_file_and_gets_it_where_there_is_one() -> None:
    members = entry("a", command=["vllm", "serve", "{model}", "--port", "{port}", "{{model}}"]) | {
        "model_file_path": "weights/a{1}"
    }
    found = known_model(read_one(members), config())
    command = found.hosted.launch.command()
    assert command.arguments == ("vllm", "serve", "/models/weights/a{{1}}", "--port", "{port}", "{{model}}")
    assert command.model_file == "/models/weights/a{1}"
    assert (found.features, found.resume, found.fault) == ({"resume": False}, None, "")
    assert known_model(read_one(entry("a")), config()).hosted.launch.command().model_file == ""


def test_a_file_tells_context_and_memory(tiny: Path) -> None:
    members = entry("t") | {"model_file_path": str(tiny), "settings": {}}
    small = known_model(read_one(members), config(defaults={"context": 256}))
    found = known_model(read_one(members), config())
    large = known_model(read_one(members), config(defaults={"slots": 8}))
    assert (small.context, found.context, large.context) == (256, 4096, 4096)
    assert tiny.stat().st_size < small.hosted.memory_bytes < found.hosted.memory_bytes < large.hosted.memory_bytes
    assert known_model(read_one(members), config(defaults={"memory_bytes": "3 GB"})).hosted.memory_bytes == 3 * 10**9


def test_a_file_that_is_missing_is_a_fault_and_its_manifest_says_how_large_it_is() -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:00ff", "size": 270_000_000}
    members = entry("t") | {"model_file_path": "/nowhere/t.gguf", "settings": {}, "manifest_data": {"layers": [layer]}}
    found = known_model(read_one(members), config())
    assert "/nowhere/t.gguf" in found.fault
    assert found.hosted.memory_bytes == 270_000_000


# Sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("12 GB", 12 * 10**9),
        ("12GB", 12 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("500 MiB", 500 * 2**20),
        ("1k", 1000),
        ("2 TB", 2 * 10**12),
        (7, 7),
    ],
)
def test_a_size_is_bytes_or_a_text(text: Any, size: int) -> None:
    assert read_size(text) == size
    assert config(memory_budget=text).memory_budget == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1",
        "12 PB",
        "1,5 GB",
        "12 GBit",
        "eighty%",
        "0%",
        "101%",
        "NaN",
        -1,
        2**61,
        "9" * 400,
        "9" * 400 + " TB",
        "9" * 400 + "%",
        True,
    ],
)
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        config(memory_budget=text)
    with pytest.raises(pydantic.ValidationError):
        config(defaults={"memory_bytes": text})


def test_a_budget_may_be_a_share_of_the_machines_memory() -> None:
    assert budget_bytes(config(memory_budget="50 %").memory_budget, 1000) == 500
    assert budget_bytes(config(memory_budget="12.5%").memory_budget, 1000) == 125
    assert budget_bytes(config().memory_budget, 1000) == 800
    assert budget_bytes(config(memory_budget=0).memory_budget, 1000) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"defaults": {"device": "gpu"}},
        {"defaults": {"device": "tpu:0"}},
        {"defaults": {"command": []}},
        {"defaults": {"slots": 0}},
        {"defaults": {"context": 63}},
        {"defaults": {"restart": "always"}},
        {"models": {NAME: {"on_demnad": True}}},
        {"models": ["local:a:1"]},
        {"turn": -1},
        {"turn": float("inf")},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        config(**options)


# Arguments and results of commands


def test_an_entry_needs_no_more_than_a_file() -> None:
    found = with_defaults({"model_file_path": "/models/smollm2-135m.Q4_K_M.gguf"})
    assert (found["full_identifier"], found["provider"]) == ("local:smollm2-135m:Q4_K_M", "local")
    assert with_defaults({"model_file_path": "/models/plain.gguf"})["full_identifier"] == "local:plain:latest"
    assert with_defaults({"model_file_path": "/m/a.Q8_0.gguf", "version": "v"})["full_identifier"] == "local:a:v"
    assert with_defaults({"provider": "p", "name": "n", "version": "v"})["full_identifier"] == "p:n:v"
    assert with_defaults({"name": "n", "full_identifier": "x"})["full_identifier"] == "x"


def test_an_argument_that_is_none_is_named() -> None:
    class Asked(msgspec.Struct, forbid_unknown_fields=True):
        model: str

    assert read({"model": "m"}, Asked) == Asked("m")
    with pytest.raises(InvalidRequest, match="modle"):
        read({"model": "m", "modle": "m"}, Asked)


@given(st.lists(st.text(max_size=50), max_size=100), st.integers(min_value=1, max_value=500))
def test_pieces_hold_everything_in_order_and_fit(whole: list[str], room: int) -> None:
    found = list(pieces(whole, room))
    assert [each for piece in found for each in piece] == whole
    assert found
    for piece in found:
        assert len(piece) <= 1 or sum(len(msgspec.json.encode(each)) + 1 for each in piece) <= room


@given(st.lists(st.text(max_size=3000), max_size=20))
def test_of_last_lines_the_newest_that_fit_are_told(lines: list[str]) -> None:
    status = bounded({"model": NAME, "exit": {"reason": "broken", "lines": lines}} if lines else {"model": NAME})
    kept = status["exit"]["lines"] if lines else []
    assert kept == lines[len(lines) - len(kept) :]
    assert sum(len(msgspec.json.encode(line)) for line in kept) <= LAST_LINES
    if len(kept) < len(lines):
        assert len(msgspec.json.encode(lines[-len(kept) - 1 :])) > LAST_LINES
