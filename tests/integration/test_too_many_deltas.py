"""A chunk of more deltas than one may have is refused by each transport's decoder before they are made."""

from __future__ import annotations

import msgspec
import pytest
from google.protobuf.message import DecodeError

from anywire.messages import MAX_DELTAS, Chunk
from anywire_grpc import codec as grpc_codec
from anywire_http import wire
from anywire_zeromq import codec as zeromq_codec

MANY = Chunk("h", "t", 1, 0, ("",) * (MAX_DELTAS + 1))
MOST = Chunk("h", "t", 1, 0, ("\\",) * MAX_DELTAS, '[{"a":"\\\\"}]' * 100_000)


def test_over_http() -> None:
    assert wire.decode_answer(msgspec.json.encode(MOST), Chunk) == MOST
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_answer(msgspec.json.encode(MANY), Chunk)
    for delta in (b'""', b'"" ', b'"\\\\"'):
        line = msgspec.json.encode(MOST)[:-1] + b',"deltas":[' + b",".join([delta] * (4 * MAX_DELTAS)) + b"]}"
        with pytest.raises(msgspec.DecodeError, match="more texts than 100000"):
            wire.decode_answer(line, Chunk)


def test_over_zeromq() -> None:
    assert zeromq_codec.decode(zeromq_codec.encode(MOST)) == MOST
    with pytest.raises(msgspec.ValidationError, match="length <= 100000"):
        zeromq_codec.decode(zeromq_codec.encode(MANY))


def test_over_grpc() -> None:
    assert grpc_codec._deltas(MOST.deltas) == MOST.deltas
    with pytest.raises(DecodeError, match="deltas"):
        grpc_codec._deltas(MANY.deltas)
