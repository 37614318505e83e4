"""What CYCLONEDDS_URI asks for, beside the options: Cyclone's own configuration, as existing set-ups export it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from anywire.errors import TransportUnavailable

VARIABLE = "CYCLONEDDS_URI"

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_INTERFACE = re.compile(r"<NetworkInterface\b([^>]*)>")
_NAMED = re.compile(r"\b(?:name|address)\s*=\s*[\"']([^\"']*)[\"']")
_FILE = "file://"


def documents() -> str:
    """Its value: XML, or names of files, or several of both with commas between; empty when it is not set. Raises
    `TransportUnavailable` for a file that cannot be read: Cyclone says that on stderr alone."""
    value = os.environ.get(VARIABLE, "")
    for path in _files(value):
        try:
            path.read_bytes()
        except OSError as error:
            raise TransportUnavailable(f"{VARIABLE} names {path}, which cannot be read: {error.strerror}") from error
    return value


def interfaces() -> list[str]:
    """The network interfaces that it selects, by name or address; empty text for one that Cyclone is to choose."""
    value = os.environ.get(VARIABLE, "")
    texts = [value, *(path.read_text(errors="replace") for path in _files(value) if path.is_file())]
    found = [each[1] for text in texts for each in _INTERFACE.finditer(_COMMENT.sub("", text))]
    return [named[1] if (named := _NAMED.search(each)) else "" for each in found]


def _files(value: str) -> list[Path]:
    parts = [] if value.lstrip().startswith("<") else [part.strip() for part in value.split(",")]
    return [Path(part.removeprefix(_FILE)) for part in parts if part and not part.startswith("<")]
