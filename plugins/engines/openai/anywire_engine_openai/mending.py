"""JSON as servers really send it, made readable."""

from __future__ import annotations

import re

_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")


def mended(data: bytes) -> bytes:
    """JSON text with U+FFFD for what is no character in it: halves of surrogate pairs, and bytes that are no UTF-8."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode(errors="replace").encode()
    if b"\\ud" in data or b"\\uD" in data:
        data = _SURROGATE.sub(lambda found: b"\\ufffd" if found[1] else found[0], data)
    return data


def mended_further(data: bytes) -> bytes:
    """What two kinds of writers take for JSON, as JSON: raw control characters within strings are escaped, and numbers
    that JSON does not know (``NaN``, ``Infinity``) become null. For text that was not readable without it."""
    return _TOKEN.sub(lambda found: _escaped(found[0]) if found[0][:1] == b'"' else b"null", data)


def _escaped(text: bytes) -> bytes:
    return _CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], text)
