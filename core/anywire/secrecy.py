"""Which settings must not be shown."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(^|[_-])(key|token|secret|password|authorization|cookie)$", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether the value of a setting of that name must stay out of logs and output."""
    return _SECRET.search(key) is not None
