"""A frame with one task whose body is large: written and read with a copy of the body less at each end than protobuf
makes, since the event loop does not run meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from anywire_grpc.link_pb2 import HubFrame
from anywire_grpc.link_pb2 import TaskRequest as WireTaskRequest

_TASKS = HubFrame.DESCRIPTOR.fields_by_name["tasks"].number
_BODY = WireTaskRequest.DESCRIPTOR.fields_by_name["body"].number


def joined(rest: bytes, body: bytes) -> bytes:
    """A frame with the task that ``rest`` encodes without its ``body``, and the body: the fields of a message may
    follow each other in any order."""
    head = _head(_BODY, len(body))
    return b"".join((_head(_TASKS, len(rest) + len(head) + len(body)), rest, head, body))


def split(data: bytes) -> tuple[bytes, str] | None:
    """A frame without the body of its task, and that body; None for a frame that holds anything but one task with one
    body. Raises `DecodeError` for bytes that are no frame."""
    view = memoryview(data)
    frame = list(_fields(view, 0, len(view)))
    if len(frame) != 1 or frame[0][0] != _TASKS:
        return None
    _, _, start, end = frame[0]
    bodies = [each for each in _fields(view, start, end) if each[0] == _BODY]
    if len(bodies) != 1:
        return None
    _, begin, text, after = bodies[0]
    rest = bytes(view[start:begin]) + bytes(view[after:end])
    try:
        return _head(_TASKS, len(rest)) + rest, str(view[text:after], "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"the body of a task is no text: {error.reason}") from error


def _fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each field between ``at`` and ``end`` its number, where it begins, and where its value begins and ends."""
    while at < end:
        begin = at
        tag, at = _varint(view, at, end)
        match tag & 7:
            case 0:  # a number
                start = at
                _, at = _varint(view, at, end)
            case 1:  # 64 bits
                start, at = at, at + 8
            case 2:  # text, bytes or a message
                size, start = _varint(view, at, end)
                at = start + size
            case 5:  # 32 bits
                start, at = at, at + 4
            case kind:
                raise DecodeError(f"a field of the kind {kind}")
        if at > end:
            raise DecodeError("a field that is longer than its message")
        yield tag >> 3, begin, start, at


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= end:
            raise DecodeError("a message that ends within a number")
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise DecodeError("a number over 64 bits")


def _head(field: int, length: int) -> bytes:
    """The tag and the length of a field that has one."""
    head = bytearray()
    for number in (field << 3 | 2, length):
        while number > 127:
            head.append(number & 127 | 128)
            number >>= 7
        head.append(number)
    return bytes(head)
