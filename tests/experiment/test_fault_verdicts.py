"""What a cell of the fault table comes to: planted right and wrong behaviour, and what follows from each."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire_experiment.fault_table.notes import Note
from anywire_experiment.fault_table.observed import Observed, Seen
from anywire_experiment.fault_table.verdict import Row, difference, judged
from anywire_experiment.faults.catalogue import BY_NAME, FAULTS, Fault
from anywire_experiment.faults.stand_in import FAILS

MS = 1_000_000
RIGHT = "one two three four five"
KILLED, CUT = BY_NAME["agent-killed"], BY_NAME["cut-without-resuming"]


def stream(text: str = RIGHT, outcome: str = "ok", agent: str = "agent-1", at_ms: int = 0) -> Seen:
    pieces = [(at_ms + 10 * number) * MS for number in range(1, 1 + len(text.split()))]
    ended = (pieces[-1] if pieces else at_ms * MS) + MS
    return Seen(outcome, 200, agent, "zeromq", "", text, at_ms * MS, ended, pieces)


def cell(*seen: Seen, fault: str = KILLED.name, struck_ms: int = 25) -> Observed:
    undisturbed = [stream() for _ in seen]
    noticed = [Note(struck_ms * MS, "link.lost", "agent-1", trouble=True)]
    return Observed(
        fault, "zeromq", "carried out", "", "", undisturbed, list(seen), struck_ms * MS, 1, noticed, problems=[]
    )


def test_whole_and_equal_streams_pass() -> None:
    row = judged(KILLED, cell(stream(), stream(agent="agent-2")))
    assert (row.result, row.saw, row.lost, row.doubled, row.why) == ("pass", "2 complete", 0, 0, ())


@pytest.mark.parametrize(
    ("seen", "lost", "doubled", "why"),
    [
        (stream("one two two three four five"), 0, 1, "has another text"),
        (stream("one two four five"), 1, 0, "has another text"),
        (stream("one two three"), 2, 0, "has another text"),
        (stream("one two garbage three four five"), 0, 1, "has another text"),
        (stream("one two", "engine_failed"), 0, 0, "ended with engine_failed after 2 tokens"),
        (stream("one three", "engine_failed"), 1, 0, "after a wrong text"),
        (stream("", "engine_failed"), 0, 0, "ended with engine_failed"),
        (stream("one two", "timeout"), 0, 0, "ended with timeout after 2 tokens"),
        (msgspec.structs.replace(stream(), transport="grpc"), 0, 0, "came over grpc"),
    ],
)
def test_each_planted_wrong_behaviour_fails(seen: Seen, lost: int, doubled: int, why: str) -> None:
    row = judged(KILLED, cell(stream(), seen))
    assert (row.result, row.lost, row.doubled) == ("FAIL", lost, doubled)
    (told,) = row.why
    assert told.startswith("stream 2 ")
    assert why in told


def test_an_answer_that_had_begun_may_end_with_the_error_of_its_fault() -> None:
    begun = stream("one two", "engine_failed")
    assert judged(CUT, cell(begun, stream(agent="agent-2"), fault=CUT.name)).result == "pass"
    assert judged(CUT, cell(begun, fault=CUT.name)).saw == "1 engine_failed after the beginning"


@pytest.mark.parametrize(
    "seen",
    [
        stream("one two", "agent_lost"),
        stream("one two", "engine_failed", agent="agent-2"),
        stream("", "engine_failed"),
        stream("two", "engine_failed"),
    ],
    ids=["another error", "an agent that nothing met", "before its first token", "not the beginning"],
)
def test_it_may_end_so_in_no_other_case(seen: Seen) -> None:
    assert judged(CUT, cell(seen, fault=CUT.name)).result == "FAIL"


def test_a_fault_that_nobody_met_proves_nothing() -> None:
    observed = cell(stream())
    observed.met = 0
    assert judged(KILLED, observed).why == ("no stream met the fault",)


@pytest.mark.parametrize(("fault", "result"), [(KILLED, "FAIL"), (BY_NAME["clock-step"], "pass")])
def test_a_fault_that_must_be_noticed_and_was_not_proves_nothing(fault: Fault, result: str) -> None:
    observed = cell(stream(), fault=fault.name)
    observed.notes = []
    assert judged(fault, observed).result == result


def test_what_else_was_wrong_fails_the_cell() -> None:
    observed = cell(stream())
    observed.problems = ["a background task was answered 202"]
    assert judged(KILLED, observed).result == "FAIL"


def test_a_cell_that_does_not_exist_says_why_and_one_that_could_not_be_carried_out_fails() -> None:
    assert judged(KILLED, Observed(KILLED.name, "memory", "n/a", "one process")) == Row(
        KILLED.name, "memory", "n/a", why=("one process",)
    )
    assert judged(KILLED, Observed(KILLED.name, "dds", reason="never ready")).result == "FAIL"


def test_noticed_is_the_first_trouble_after_the_fault_and_recovered_when_the_last_stream_went_on() -> None:
    late = stream()
    late.piece_ns = [10 * MS, 20 * MS, 320 * MS, 330 * MS, 340 * MS]
    late.ended_ns = 341 * MS
    observed = cell(stream(agent="agent-2"), late)
    observed.notes = [
        Note(20 * MS, "link.lost", "agent-1", trouble=True),
        Note(60 * MS, "agent.changed", "agent-2", "ready"),
        Note(225 * MS, "link.lost", "agent-1", trouble=True),
        Note(900 * MS, "agent.lost", "agent-1", trouble=True),
    ]
    row = judged(KILLED, observed)
    assert (row.noticed_ms, row.recovered_ms) == (200.0, 295.0)
    observed.notes = observed.notes[-1:]
    assert judged(KILLED, observed).noticed_ms is None


def test_a_stream_that_ended_is_recovered_from_and_one_that_paused_as_usual_was_not_held_up() -> None:
    assert judged(KILLED, cell(stream())).recovered_ms is None
    assert judged(CUT, cell(stream("one two", "engine_failed"), fault=CUT.name, struck_ms=20)).recovered_ms == 1.0


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_tokens_lost_and_doubled_add_up(right: list[str], seen: list[str]) -> None:
    lost, doubled = difference(Seen("ok", text=" ".join(seen)), " ".join(right))
    assert len(right) - lost + doubled == len(seen)
    assert (lost, doubled) == (0, 0) or right != seen


def test_every_fault_is_told_in_sentences_and_can_be_inflicted() -> None:
    assert len({each.name for each in FAULTS}) == len(FAULTS)
    for each in FAULTS:
        for sentence in (each.meets, each.does, each.done, each.undone, each.must_see):
            assert sentence[0].isupper(), sentence
            assert sentence.endswith(".")
        assert each.needs != "stand_in" or each.name in {*FAILS, "refused"}
    assert FAILS.keys() <= BY_NAME.keys()
