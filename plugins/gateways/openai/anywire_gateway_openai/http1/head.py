"""The head of a request as llhttp reads it, and which heads are served here."""

from __future__ import annotations

from typing import NamedTuple

import httptools
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11
from multidict import CIMultiDict, CIMultiDictProxy, istr

MAX_HEAD_BYTES = 8190
"""Of a head that is served here; aiohttp takes as much for a single line."""
MAX_FIELDS = 128
"""Headers, as aiohttp bounds them."""
MAX_LENGTH_DIGITS = 20
"""Of a body's length: zeros may stand before it, and Python makes no number of thousands of digits."""
METHODS = {each.encode(): each for each in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
VERSIONS = {"1.1": HttpVersion11, "1.0": HttpVersion10}
SERVED_ELSEWHERE = frozenset({"transfer-encoding", "upgrade", "sec-websocket-key1"})
"""Headers of requests that are for aiohttp's server: another framing than a length, and other protocols."""
SINGLE = (
    "content-length", "content-location", "content-range", "content-type", "etag", "host", "max-forwards", "server",
    "transfer-encoding", "user-agent",
)  # fmt: skip
"""Headers that a request has once at most: told twice, somebody on the way may have believed the other one."""
_CONTENT_LENGTH = istr("content-length")
_KNOWN_NAMES, _KNOWN_NAME_CHARS = 512, 64

_names: dict[bytes, istr] = {}
"""Names of headers that have come, in lower case: most come again. Emptied when it is full."""


class Head(NamedTuple):
    """``body_bytes`` is the length of the body behind it."""

    method: str
    target: str
    version: HttpVersion
    keep_alive: bool
    headers: CIMultiDictProxy[str]
    body_bytes: int


def with_length(head: Head, length: int) -> Head:
    """The same head before a body of this length."""
    if length == head.body_bytes:
        return head
    headers = CIMultiDict(head.headers)
    headers[_CONTENT_LENGTH] = str(length)
    return head._replace(headers=CIMultiDictProxy(headers), body_bytes=length)


class HeadReader:
    """Reads the heads of one connection, one after another: `read` until the empty line, then `head`, then `pass_over`
    the body. Close it."""

    __slots__ = ("_fields", "_parser", "_start", "_target")

    def __init__(self) -> None:
        self._fields: list[tuple[str, str]] = []
        self._target = b""
        self._start: tuple[bytes, str, bool] | None = None
        """Method, version, and whether the connection stays; None before the empty line."""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def close(self) -> None:
        self._parser = None  # it refers to this object

    def read(self, data: bytes) -> bool:
        """Take a piece of a head, or the rest of it with its empty line and nothing behind. False where that is no HTTP
        that can be served here; nothing more may be read then."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return True

    def head(self, lines: int) -> Head | None:
        """The head that has been read, which had so many ``lines`` with the empty one. None where it cannot be served
        here; nothing more may be read then."""
        start, fields, target = self._start, self._fields, self._target
        if start is None or lines != len(fields) + 2 or lines > MAX_FIELDS or target[:1] != b"/":
            return None
        method, version = METHODS.get(start[0]), VERSIONS.get(start[1])
        names = {name for name, _ in fields}
        if (
            method is None
            or version is None
            or not target.isascii()
            or not names.isdisjoint(SERVED_ELSEWHERE)
            or ("host" not in names and version is HttpVersion11)
        ):
            return None
        headers = CIMultiDictProxy(CIMultiDict(fields))
        length = headers.get(_CONTENT_LENGTH, "")
        if len(length) > MAX_LENGTH_DIGITS or (
            len(names) < len(fields) and any(len(headers.getall(each, ())) > 1 for each in SINGLE)
        ):
            return None
        self._fields, self._target, self._start = [], b"", None
        return Head(method, target.decode(), version, start[2], headers, int(length) if length else 0)

    def pass_over(self, body: bytes) -> None:
        """Take a piece of the body, of which nothing is looked at."""
        assert self._parser is not None
        self._parser.feed_data(body)

    # Called by llhttp; an error here ends the reading

    def on_url(self, url: bytes) -> None:
        if self._start is not None:
            raise ValueError("a second request before the end of the first head")
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((_names.get(name) or _named(name), value.rstrip(b" \t").decode("ascii")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        # With the end of its body llhttp forgets whether the connection stays.
        self._start = parser.get_method(), parser.get_http_version(), parser.should_keep_alive()


def _named(name: bytes) -> istr:
    text = istr(name.decode("ascii").lower())
    if len(name) <= _KNOWN_NAME_CHARS:
        if len(_names) >= _KNOWN_NAMES:
            _names.clear()
        _names[name] = text
    return text
