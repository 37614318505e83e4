"""A body that is taken out of its frame before protobuf reads the rest: the same is read as by protobuf alone."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from anywire_grpc.large_task import joined, split
from anywire_grpc.link_pb2 import Credit, HubFrame
from anywire_grpc.link_pb2 import TaskRequest as WireTask

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tasks = st.builds(
    lambda hub, model, body, credit, prefer: WireTask(hub_id=hub, model=model, body=body, credit=credit, prefer=prefer),
    texts, texts, texts, st.integers(0, 2**31 - 1), st.lists(texts, max_size=3),
)  # fmt: skip


def read(data: bytes) -> HubFrame | None:
    """As protobuf reads it after the body was taken out; None where it is left to protobuf."""
    parts = split(data)
    if parts is None:
        return None
    frame = HubFrame.FromString(parts[0])
    frame.tasks[0].body = parts[1]
    return frame


@given(tasks)
def test_a_frame_with_one_task(task: WireTask) -> None:
    data = HubFrame(tasks=[task]).SerializeToString()
    assert read(data) == (HubFrame(tasks=[task]) if task.body else None)


@given(tasks, texts)
def test_a_body_behind_the_rest(task: WireTask, body: str) -> None:
    task.body = ""
    data = joined(task.SerializeToString(), body.encode())
    assert read(data) == HubFrame.FromString(data)


@pytest.mark.parametrize(
    "frame",
    [
        HubFrame(tasks=[WireTask(body="x"), WireTask(body="y")]),
        HubFrame(tasks=[WireTask(body="x")], credits=[Credit(chunks=1)]),
        HubFrame(credits=[Credit(chunks=1)]),
        HubFrame(tasks=[WireTask(model="m")]),
        HubFrame(),
    ],
)
def test_other_frames_are_left_to_protobuf(frame: HubFrame) -> None:
    assert split(frame.SerializeToString()) is None


def test_of_two_bodies_protobuf_says_which_counts() -> None:
    task = WireTask(body="first").SerializeToString() + WireTask(body="second").SerializeToString()
    assert split(joined(task, b"third")) is None


@given(tasks, st.data())
def test_a_mutated_frame_is_read_as_protobuf_reads_it_or_not_at_all(task: WireTask, draw: st.DataObject) -> None:
    data = bytearray(HubFrame(tasks=[task]).SerializeToString() or b"\0")
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.integers(0, len(data))) :]
    with contextlib.suppress(DecodeError):
        mine = read(bytes(data))
        if mine is not None:
            assert mine == HubFrame.FromString(bytes(data))
