"""Sizes in bytes as people write and read them."""

from __future__ import annotations

import re

MAX_SIZE = 2**60

_UNITS = ("B", "kB", "MB", "GB", "TB")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def read_size(value: object) -> object:
    """Bytes of a text such as ``12 GB`` (10⁹) or ``12 GiB`` (2³⁰); everything else as it is. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"expected a size such as 12 GB, found {str(value).lower()}")
    if not isinstance(value, str):
        return value
    found = _WRITTEN.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"expected a size such as 12 GB, 500 MiB or 1000000, found {value[:40]!r}")
    number, unit, binary = found.groups()
    size = float(number) * (1024 if binary else 1000) ** _POWERS[unit.upper()]
    if size > MAX_SIZE:
        raise ValueError(f"expected at most {MAX_SIZE} bytes, found {value[:40]!r}")
    return round(size)


def shown_size(count: float) -> str:
    """``1.25 GB``, ``500 MB``: three digits, in powers of 1,000."""
    unit = 0
    while abs(count) >= 999.5 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    # Of what is beyond the greatest unit all digits are shown.
    return f"{count:.0f} {_UNITS[unit]}" if abs(count) >= 99.5 else f"{count:.3g} {_UNITS[unit]}"
