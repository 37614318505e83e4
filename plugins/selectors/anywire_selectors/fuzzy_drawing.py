"""Membership functions drawn as text."""

from __future__ import annotations

from anywire.printable import escaped
from anywire_selectors.fuzzy_rules import UNITS, FuzzyRules, Input, Rule, membership

WIDTH, HEIGHT = 60, 8
_MARKS = "abcdefghijklmnopqrstuvwxyz"
MAX_DRAWN = len(_MARKS)
"""Sets of one input that are drawn."""


def drawing(rules: FuzzyRules) -> str:
    """Each input with its sets, a curve for each, then the rules."""
    parts = [_input(rules, name) for name in rules.sets]
    parts.append("rules\n" + "\n".join(f"  {_rule(rule)}" for rule in rules.rules))
    return "\n\n".join(parts)


def _rule(rule: Rule) -> str:
    return escaped(str(rule)) + (f" (weight {rule.weight:g})" if rule.weight != 1 else "")


def _input(rules: FuzzyRules, name: Input) -> str:
    sets = dict(list(rules.sets[name].items())[:MAX_DRAWN])
    low, high = _range(list(sets.values()))
    rows = [[" "] * WIDTH for _ in range(HEIGHT + 1)]
    for mark, points in zip(_MARKS, sets.values(), strict=False):
        for column in range(WIDTH):
            level = membership(points, low + (high - low) * column / (WIDTH - 1))
            row = rows[HEIGHT - round(level * HEIGHT)]
            # Curves that meet: the first one stays.
            if row[column] == " " and level > 0:
                row[column] = mark
    lines = [f"{name} ({UNITS[name]})"]
    for number, row in enumerate(rows):
        label = {0: "1.0", HEIGHT // 2: "0.5", HEIGHT: "0.0"}.get(number, "")
        lines.append(f"{label:>5} |{''.join(row)}".rstrip())
    lines.append("      +" + "-" * WIDTH)
    lines.append(f"       {low:<{WIDTH // 2}g}{high:>{WIDTH // 2}g}")
    lines += [
        f"       {mark} {escaped(a_set)} {points}" for mark, (a_set, points) in zip(_MARKS, sets.items(), strict=False)
    ]
    return "\n".join(lines)


def _range(sets: list[list[float]]) -> tuple[float, float]:
    points = [point for each in sets for point in each]
    low, high = min(points, default=0.0), max(points, default=1.0)
    return (low, high) if high > low else (low, low + 1)
