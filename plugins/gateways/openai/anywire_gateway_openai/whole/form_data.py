"""A body of ``multipart/form-data``, read from its bytes: a pure function with bounds."""

from __future__ import annotations

import re
from typing import NamedTuple

from anywire.errors import InvalidRequest

MAX_PARTS = 64
MAX_HEAD_BYTES = 4096
"""Bytes of what stands before the data of a part."""
MAX_NAME_CHARS = 256
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


class FormFile(NamedTuple):
    """A file of a form. ``name`` is the client's, without folders."""

    name: str
    content_type: str
    data: bytes


def read_form(body: bytes, content_type: str) -> dict[str, list[str | FormFile]]:
    """The values of each field, in their order. Raises `InvalidRequest` for what is no such form."""
    found = _BOUNDARY.search(content_type)
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data" or found is None:
        raise InvalidRequest("send a form: Content-Type: multipart/form-data with its boundary")
    boundary = b"--" + (found[1] or found[2]).encode(errors="replace")
    if body.startswith(boundary):
        body = b"\r\n" + body
    parts = body.split(b"\r\n" + boundary, MAX_PARTS + 1)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise InvalidRequest(f"the form is not whole, or has more than {MAX_PARTS} parts")
    fields: dict[str, list[str | FormFile]] = {}
    for part in parts[1:-1]:
        name, value = _read(part)
        fields.setdefault(name, []).append(value)
    return fields


def _read(part: bytes) -> tuple[str, str | FormFile]:
    end = part.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        raise InvalidRequest(f"a part of the form has no head of at most {MAX_HEAD_BYTES} bytes")
    heads: dict[str, str] = {}
    for line in part[:end].decode(errors="replace").split("\r\n"):
        name, _, value = line.partition(":")
        heads[name.strip().lower()] = value.strip()
    said = {}
    for key, quoted, plain in _PARAMETER.findall(heads.get("content-disposition", "")):
        said[key.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
    name = said.get("name", "")
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(f"a part of the form has no name of at most {MAX_NAME_CHARS} printable characters")
    data = part[end + 4 :]
    if "filename" not in said:
        return name, data.decode(errors="replace")
    file = re.split(r"[/\\]", said["filename"])[-1][-MAX_NAME_CHARS:]
    file = "".join([each if each.isprintable() else "_" for each in file]) or "file"
    return name, FormFile(file, heads.get("content-type", "")[:MAX_NAME_CHARS], data)
