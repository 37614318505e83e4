"""The id of a request, by which its client, its answer and the log speak of it."""

from __future__ import annotations

import re
import secrets
from itertools import count

from multidict import istr

HEADER = istr("x-request-id")
_SANE = re.compile(r"[\x21-\x7e]{1,128}")
_prefix, _numbers = f"req-{secrets.token_hex(6)}-", count(1)


def request_id(given: str | None) -> str:
    """The id that a client gave, if it is 1 to 128 visible ASCII characters, else a new one."""
    return given if given is not None and _SANE.fullmatch(given) else f"{_prefix}{next(_numbers):x}"
