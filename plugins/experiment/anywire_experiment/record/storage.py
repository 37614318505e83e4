"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anywire.errors import AnywireError


class RecordError(AnywireError):
    """A folder is no record, or not of this plan, or cannot be written."""

    code = "bad_record"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A disk that is full, or another failure to write, as `RecordError`."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"the record {folder} cannot be written: {error.strerror}; what is whole stays, and the same "
            "command goes on"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing. A link in its place is replaced and not followed."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    aside.write_bytes(content)
    sync(aside)
    aside.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def pretty(tree: Any) -> bytes:
    return json.dumps(tree, indent=2, ensure_ascii=False).encode() + b"\n"
