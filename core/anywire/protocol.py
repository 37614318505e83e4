"""The version of the messages, which both ends of a link tell each other in their hellos.

Versions are ``major.minor``. Ends of one major version whose minor versions differ by one at most work together: what
one does not know it ignores. Everything else is refused at the hello, and both ends name the two versions. Hellos from
before versions were told carry none.
"""

from __future__ import annotations

import re

PROTOCOL = "2.1"
"""What this package speaks."""

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})")


def protocol_mismatch(theirs: str, ours: str = PROTOCOL) -> str:
    """Why a peer that speaks ``theirs`` is refused, as part of a sentence that names both; empty when it is not."""
    if theirs == ours:
        return ""
    mine, other = _VERSION.fullmatch(ours), _VERSION.fullmatch(theirs)
    if mine and other and mine[1] == other[1] and abs(int(mine[2]) - int(other[2])) <= 1:
        return ""
    said = f"protocol version {theirs}" if other else "no protocol version that can be read, as before 2.0"
    return f"it speaks {said}, this end {ours}: use one version of anywire on both"
