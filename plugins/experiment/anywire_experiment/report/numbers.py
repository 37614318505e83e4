"""Figures as a reader wants them: as many digits as the interval allows, with their unit."""

from __future__ import annotations

import math

from anywire_experiment.analysis.arm_figures import Valued
from anywire_experiment.analysis.wording import MINUS
from anywire_experiment.statistics import Estimate

NONE = "–"
"""In the place of a figure that is not there."""
NO_INTERVAL = "no interval"
"""In the place of one that cannot be estimated."""


def number(value: float, digits: int = 3) -> str:
    """With so many significant digits, and no exponent for what people read as a plain number."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = _decimals(rounded, digits)
    if not -6 <= decimals <= 8:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return _fixed(rounded, max(decimals, 0))


def interval(estimate: Estimate | None, scale: float = 1.0) -> str:
    """``12.3 (11.9 to 12.7)``: to the second digit of half the interval's width, and no more than 5 digits."""
    if estimate is None:
        return NONE
    value, low, high = (scale * each for each in (estimate.value, estimate.low, estimate.high))
    decimals = _decimals((high - low) / 2, 2) if high > low else _decimals(value, 3) if value else 0
    decimals = max(min(decimals, _decimals(value or high - low or 1.0, 5)), 0)
    told = [_fixed(each, decimals) for each in (value, low, high)]
    return f"{told[0]} ({told[1]} to {told[2]})"


def valued(found: Valued | None, scale: float = 1.0) -> str:
    """A value over blocks with its interval, or the remark that it has none."""
    if found is None:
        return NONE
    return interval(found.interval, scale) if found.interval else f"{number(scale * found.value)} ({NO_INTERVAL})"


def percent_change(ratio: Estimate) -> str:
    """A ratio as the change it is, in percent, with its interval."""
    decimals = min(max(_decimals(50 * (ratio.high - ratio.low) or 1.0, 2), 0), 2)
    told = [_fixed(100 * (each - 1), decimals, signed=True) for each in (ratio.value, ratio.low, ratio.high)]
    return f"{told[0]} % ({told[1]} to {told[2]})"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _decimals(value: float, digits: int) -> int:
    """How many decimals show so many significant digits; negative where even tens are too fine."""
    return digits - 1 - math.floor(math.log10(abs(value)))


def _fixed(value: float, decimals: int, signed: bool = False) -> str:
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)
