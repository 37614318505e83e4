"""Requests that a web page has made in somebody's browser: what is for processes alone refuses them."""

from __future__ import annotations

from collections.abc import Container

HEADERS = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode")
"""Sent by browsers, and by nobody else: the first with what a page may read or change elsewhere, the others always."""


def header_of_page(headers: Container[str]) -> str:
    """The header that tells that a web page has made a request; empty when there is none. ``headers`` ignore case."""
    for name in HEADERS:
        if name in headers:
            return name
    return ""
