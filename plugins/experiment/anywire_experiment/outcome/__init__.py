"""What a finished record comes to: its results, its report and its seal (`conclusion`), whether all that still holds
(`verification`), and its figures for whoever uses them further (`checked_record`).
"""

from anywire_experiment.outcome.conclusion import (
    Written,
    conclude,
    conclude_again,
    published,
    sign,
    signed,
    unpacked,
)
from anywire_experiment.outcome.verification import Verified, check, checked, compared, faults, verified

__all__ = [
    "Verified",
    "Written",
    "check",
    "checked",
    "compared",
    "conclude",
    "conclude_again",
    "faults",
    "published",
    "sign",
    "signed",
    "unpacked",
    "verified",
]
