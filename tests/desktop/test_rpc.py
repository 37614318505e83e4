"""JSON-RPC over lines: every call is answered once, whatever comes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire.errors import ModelStopped, QueueFull
from anywire.testing.patience import expect
from anywire_desktop import rpc
from anywire_desktop.call import Call, Command
from anywire_desktop.line_streams import LineReader, LineWriter, TooLong
from anywire_desktop.rpc import Calls


class Words:
    """Commands for tests."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def add(self, first_number: int, second: int = 1) -> int:
        return first_number + second

    async def say(self, text: Annotated[str, msgspec.Meta(max_length=5)], call: Call) -> None:
        for letter in text:
            await call.tell({"chunk": letter})

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def stop(self) -> None:
        raise ModelStopped("it is stopped")

    async def busy(self) -> None:
        raise QueueFull("too many wait")

    async def fail(self) -> None:
        raise RuntimeError("a secret detail")

    async def nonsense(self) -> Any:
        return object()


class App:
    """``said`` is what the app was sent."""

    def __init__(self) -> None:
        self.words = Words()
        words = self.words
        methods = (words.add, words.say, words.wait, words.stop, words.busy, words.fail, words.nonsense)
        self.said: list[dict[str, Any]] = []
        self.calls = Calls([Command(method) for method in methods], self._send)

    async def _send(self, message: Mapping[str, Any]) -> None:
        self.said.append(json.loads(rpc.encode(message)))

    async def ask(self, *lines: bytes | TooLong | Mapping[str, Any]) -> list[dict[str, Any]]:
        """All that is said about these lines."""
        await self.calls.read(
            _lines([json.dumps(each).encode() if isinstance(each, Mapping) else each for each in lines])
        )
        while self.calls._answering:
            await expect(asyncio.wait(set(self.calls._answering)), "an answer")
        said, self.said = self.said, []
        return said


async def _lines(lines: Iterable[bytes | TooLong]) -> AsyncIterator[bytes | TooLong]:
    for line in lines:
        yield line


def call(method: str, number: Any = 1, /, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": arguments}


async def test_arguments_are_named_in_either_way_and_null_is_the_default() -> None:
    app = App()
    said = await app.ask(
        call("add", 1, first_number=2, second=3),
        call("add", 2, firstNumber=2, further="is passed over"),
        call("add", "three", firstNumber=2, second=None),
    )
    assert {each["id"]: each["result"] for each in said} == {1: 5, 2: 3, "three": 3}


async def test_arguments_that_do_not_fit_are_named() -> None:
    app = App()
    (missing,) = await app.ask(call("add"))
    (wrong,) = await app.ask(call("add", first_number="two"))
    (long,) = await app.ask(call("say", text="too long"))
    (null,) = await app.ask(call("add", first_number=None))
    for each, param in ((missing, "first_number"), (wrong, "first_number"), (long, "text"), (null, "first_number")):
        assert each["error"]["code"] == rpc.INVALID_PARAMS, each
        assert each["error"]["data"]["param"] == param, each
    assert "first_number" in missing["error"]["message"]


async def test_messages_come_in_order_on_the_calls_channel_before_its_answer() -> None:
    app = App()
    said = await app.ask(call("say", 7, text="abc"))
    assert [each["params"]["message"]["chunk"] for each in said[:-1]] == ["a", "b", "c"]
    assert {each["params"]["channel"] for each in said[:-1]} == {7}
    assert said[-1] == {"jsonrpc": "2.0", "id": 7, "result": None}
    said = await app.ask(call("say", 8, text="a", onEvent="page-1"))
    assert said[0]["params"]["channel"] == "page-1"


async def test_errors_say_what_happened_and_what_to_do() -> None:
    app = App()
    (stopped,) = await app.ask(call("stop"))
    assert stopped["error"]["message"] == "it is stopped"
    assert stopped["error"]["data"]["code"] == "model_stopped"
    (busy,) = await app.ask(call("busy"))
    assert busy["error"]["code"] == rpc.BUSY
    for name in ("fail", "nonsense"):
        (failed,) = await app.ask(call(name))
        assert failed["error"]["code"] == rpc.INTERNAL_ERROR
        assert "secret" not in json.dumps(failed)


async def test_a_call_is_cancelled_and_still_answered() -> None:
    app = App()
    reading = asyncio.create_task(app.ask(call("wait", "w")))
    await expect(app.words.begun.wait(), "the call begins")
    assert await app.calls.cancel("w")
    (answer,) = await expect(reading, "the answer")
    assert answer["error"]["code"] == rpc.CANCELLED
    assert app.words.ended.is_set()
    assert not await app.calls.cancel("w")


async def test_a_call_that_is_cancelled_before_its_first_step_is_answered() -> None:
    app = App()
    app.calls._begin(rpc.read_call(json.dumps(call("wait", "w")).encode()))
    await app.calls.cancel("w")
    (answer,) = await app.ask()
    assert answer["id"] == "w"
    assert answer["error"]["code"] == rpc.CANCELLED
    assert not app.words.begun.is_set()


async def test_the_end_answers_all_calls() -> None:
    app = App()
    for number in range(10):
        app.calls._begin(rpc.read_call(json.dumps(call("wait", number)).encode()))
    await expect(app.calls.close(20), "the end")
    assert sorted(each["id"] for each in app.said) == list(range(10))
    assert {each["error"]["data"]["code"] for each in app.said} == {"shutting_down"}


async def test_calls_are_bounded_and_can_be_cancelled_then() -> None:
    app = App()
    for number in range(rpc.MAX_CALLS):
        app.calls._begin(rpc.read_call(json.dumps(call("wait", number)).encode()))
    with pytest.raises(rpc.Refused) as refused:
        app.calls._begin(rpc.read_call(json.dumps(call("wait", "more")).encode()))
    assert refused.value.code == rpc.BUSY
    app.calls._begin(rpc.read_call(json.dumps(call("cancel", "c", call_id=0)).encode()))
    await expect(app.calls.close(20), "the end")
    assert len(app.said) == rpc.MAX_CALLS + 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", rpc.PARSE_ERROR),
        (b"\xff", rpc.PARSE_ERROR),
        (b"[" * 100_000, rpc.PARSE_ERROR),
        (b"[]", rpc.INVALID_REQUEST),
        (b"7", rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":"add","id":1.5}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":"add","id":true}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":"add","id":null}', rpc.INVALID_REQUEST),
        (b'{"method":"add","id":1}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":7,"id":1}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":"add","id":1,"params":[2]}', rpc.INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","method":"ad","id":1}', rpc.METHOD_NOT_FOUND),
    ],
)
async def test_what_is_no_call_is_refused_and_the_next_one_served(line: bytes, code: int) -> None:
    app = App()
    refused, served = await app.ask(line, call("add", 9, first_number=1))
    assert refused["error"]["code"] == code
    assert served["result"] == 2
    if code == rpc.METHOD_NOT_FOUND:
        assert "add" in refused["error"]["message"]


async def test_notifications_are_not_answered() -> None:
    app = App()
    lines = [{"jsonrpc": "2.0", "method": name, "params": {"first_number": 1}} for name in ("add", "stop", "unknown")]
    assert await app.ask(*lines) == []


async def test_an_id_under_way_is_refused() -> None:
    app = App()
    app.calls._begin(rpc.read_call(json.dumps(call("wait", 1)).encode()))
    with pytest.raises(rpc.Refused, match="under way"):
        app.calls._begin(rpc.read_call(json.dumps(call("add", 1, first_number=1)).encode()))
    await app.calls.close(20)


async def test_a_line_that_is_too_long_is_told() -> None:
    (refused,) = await App().ask(TooLong())
    assert refused["error"]["code"] == rpc.INVALID_REQUEST


numbers = st.integers(-(2**53), 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
calls_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": numbers | st.text(max_size=8) | json_values,
        "method": st.sampled_from(["add", "say", "stop", "fail", "cancel", "list_commands", "no such"]) | json_values,
        "params": st.fixed_dictionaries({"first_number": json_values, "text": json_values}) | json_values,
    },
)


@given(st.lists(calls_of_any_kind, max_size=8))
def test_every_call_is_answered_once(asked: list[dict[str, Any]]) -> None:
    """Whatever is a call with an id that no other one has has one answer with this id; nothing else has one."""

    async def ask() -> list[dict[str, Any]]:
        return await App().ask(*asked)

    said = asyncio.run(ask())
    answers = [each for each in said if "method" not in each]
    proper = [
        each["id"] for each in asked if isinstance(each.get("id"), str | int) and not isinstance(each["id"], bool)
    ]
    for call_id in proper:
        answered = [each for each in answers if each["id"] == call_id and type(each["id"]) is type(call_id)]
        assert len(answered) == proper.count(call_id)
    assert all(("result" in each) != ("error" in each) for each in answers)


async def read_lines(*pieces: bytes) -> list[bytes | None]:
    """The lines of what comes in these pieces; None for one of more than 20 bytes."""
    reader, kept = LineReader(0, limit=20), iter([piece for piece in pieces if piece])

    async def piece() -> bytes:
        return next(kept, b"")

    reader._read = piece  # type: ignore[method-assign]
    return [None if isinstance(line, TooLong) else line async for line in reader.lines()]


@given(st.lists(st.binary(max_size=70).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [None if len(line) > 20 else line for line in whole.split(b"\n")]
    if whole.endswith(b"\n") or not whole:
        expected.pop()
    assert asyncio.run(read_lines(*pieces)) == expected


async def test_the_end_of_a_line_that_is_too_long_is_no_line() -> None:
    assert await read_lines(b"x" * 25, b"yy\nok\n", b"x" * 25) == [None, b"ok", None]


async def test_a_writer_waits_for_its_reader_and_ends_with_it() -> None:
    reading, writing = os.pipe()
    try:
        writer = LineWriter(writing)
        await writer.open()
        line = b"x" * 100_000

        async def write() -> None:
            for _ in range(200):
                await writer.write(line)

        task = asyncio.create_task(write())
        done, _ = await asyncio.wait({task}, timeout=0.2)
        assert not done, "nobody reads, and 20 MB are written nevertheless"
        os.close(reading)
        await expect(writer.closed, "the end is noticed")
        await expect(task, "who waited goes on")
        await writer.close(1)
    finally:
        os.close(writing)


async def test_lines_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.write_bytes(b"one\ntwo")
    for name, expected in ((str(path), [b"one", b"two"]), (os.devnull, [])):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            assert [line async for line in LineReader(descriptor).lines()] == expected
        finally:
            os.close(descriptor)
