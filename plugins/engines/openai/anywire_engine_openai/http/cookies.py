"""Cookies of servers, by which the ones before several of them find the same one again."""

from __future__ import annotations

import email.message
import socket
from collections.abc import Sequence
from http.cookiejar import CookieJar
from typing import Any, cast
from urllib.request import Request

MAX_COOKIES = 50


class Cookies:
    """Those of one client. Servers that are known by their address alone have none."""

    def __init__(self) -> None:
        self._jar = CookieJar()

    def keep(self, url: str, host: str, told: Sequence[str]) -> None:
        """Take what an answer of ``url`` told in its ``Set-Cookie`` headers."""
        if _is_address(host):
            return
        message = email.message.Message()
        for each in told:
            if each.isascii() and each.isprintable():
                message["Set-Cookie"] = each
        self._jar.extract_cookies(cast("Any", _Headers(message)), Request(url))
        if len(self._jar) > MAX_COOKIES:
            self._jar.clear()

    def of(self, url: str) -> str:
        """The header for a request of ``url``; empty for none."""
        request = Request(url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""


class _Headers:
    def __init__(self, message: email.message.Message) -> None:
        self._message = message

    def info(self) -> email.message.Message:
        return self._message


def _is_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True
