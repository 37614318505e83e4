"""The files of the page, read once, each with its type, its tag, and what a browser may do with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlsplit

from anywire.route import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
START = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load, and from where: its own files from its own server, and no script or style in its HTML."""
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every file. A browser asks each time whether it has changed, and is told so by its tag without the file."""
OPENER_POLICY = {"cross-origin-opener-policy": "same-origin"}
"""On this machine alone: elsewhere browsers take it over HTTPS only, and write an error into the console otherwise."""


class PageFile:
    """One file with its tag."""

    def __init__(self, name: str, content: bytes) -> None:
        self.content = content
        self.content_type = TYPES[name[name.rindex(".") :]]
        self.tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'


class PageFiles:
    """All files of the page by their path below ``/ui/``; no other path leads anywhere. ``version`` changes with any of
    them."""

    def __init__(self) -> None:
        self._files = {name: PageFile(name, content) for name, content in _read(files(__package__) / "page", "")}
        tags = "".join(f"{name} {self._files[name].tag}\n" for name in sorted(self._files))
        self.version = hashlib.sha256(tags.encode()).hexdigest()[:16]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def answer(self, name: str, asked: Mapping[str, str]) -> Response | None:
        """The file, or 304 where the browser has it already by the headers it ``asked`` with; None where there is no
        such file."""
        found = self._files.get(name)
        if found is None:
            return None
        headers = HEADERS | {"etag": found.tag} | (OPENER_POLICY if _is_here(asked.get("host", "")) else {})
        if found.tag in (each.strip().removeprefix("W/") for each in asked.get("if-none-match", "").split(",")):
            return Response(status=304, content_type=found.content_type, headers=headers)
        return Response(found.content, content_type=found.content_type, headers=headers)


def _is_here(authority: str) -> bool:
    """Whether a ``Host`` header names the machine of the browser."""
    try:
        host = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "127.0.0.1", "::1")


def _read(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        name = above + each.name
        if each.is_dir():
            yield from _read(each, f"{name}/")
        elif each.name.endswith(tuple(TYPES)):
            yield name, each.read_bytes()
