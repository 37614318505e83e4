"""Samples whose texts are no UTF-8: C and C++ peers write whatever bytes they have, be it half a character that a model
gave as one token.

The DDS library refuses to read such a sample, and whoever waits for what it says would wait until its time is over. So
the texts are mended in place, which keeps every length: a byte that belongs to no character becomes a question mark.
"""

from __future__ import annotations

import re
import struct

_CDR2 = (6, 7)
"""Encapsulations in which a sequence of structs or strings has its size in front."""
_ESCAPED = re.compile("[\udc80-\udcff]")


def mended_request(data: bytes) -> tuple[bytes, bytes]:
    """The sample of a ChatCompletionRequest with texts that can be read, and the bytes of its request_id as they came.
    Raises `ValueError` for what is no such sample."""
    sample = bytearray(data)
    cursor = _Cursor(sample)
    sized = data[1] in _CDR2
    request_id = cursor.text()
    cursor.text()  # model
    if sized:
        cursor.number()
    for _ in range(cursor.number()):
        cursor.text()  # role
        cursor.text()  # content
    cursor.number()  # temperature
    cursor.number()  # max_tokens
    cursor.at += 1  # stream
    for _ in ("top_p", "n"):
        elements = cursor.number()
        cursor.at += 4 * elements
    if sized:
        cursor.number()
    for _ in range(cursor.number()):
        cursor.text()  # stop
    return bytes(sample), request_id


def mended_response(data: bytes) -> tuple[bytes, bytes]:
    """The sample of a ChatCompletionResponse with texts that can be read, and the bytes of its content as they came.
    Raises `ValueError` for what is no such sample."""
    sample = bytearray(data)
    cursor = _Cursor(sample)
    cursor.text()  # request_id
    cursor.text()  # model
    content = cursor.text()
    cursor.text()  # finish_reason
    return bytes(sample), content


class _Cursor:
    def __init__(self, sample: bytearray) -> None:
        if len(sample) < 4:
            raise ValueError("it has no encapsulation")
        self._sample, self._word, self.at = sample, "<I" if sample[1] & 1 else ">I", 4

    def number(self) -> int:
        self.at += -self.at % 4
        try:
            (value,) = struct.unpack_from(self._word, self._sample, self.at)
        except struct.error as error:
            raise ValueError("it is too short") from error
        self.at += 4
        return int(value)

    def text(self) -> bytes:
        """Mend one text and give its bytes as they came, without the NUL at the end."""
        size = self.number()
        start, self.at = self.at, self.at + size
        if not 0 < size <= len(self._sample) - start:
            raise ValueError("a text is longer than the sample")
        raw = bytes(self._sample[start : self.at - 1])
        text = raw.decode(errors="surrogateescape")
        if _ESCAPED.search(text):
            self._sample[start : self.at - 1] = _ESCAPED.sub("?", text).encode()
        return raw


def with_request_id(response: bytes, request_id: bytes) -> bytes:
    """The packed response, whose request_id has the same length, with these bytes in its place."""
    return response[:8] + request_id + response[8 + len(request_id) :]
