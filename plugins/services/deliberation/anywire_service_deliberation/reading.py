"""Reading the points that a judge has given, whatever the form: JSON, JSON among prose, or lines of text.

What is said last counts: models think first, and repeat themselves corrected. Points outside of the rubric's range say
nothing and are left out, so is a criterion that the rubric has not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import msgspec

from anywire_service_deliberation.question import Rubric
from anywire_service_deliberation.roles_and_rubrics import spoken

MAX_CHARS = 20_000
"""Characters of a text that are read, the last ones."""
MAX_OBJECTS = 200
"""Places at which an object is looked for."""
MAX_WASTED_CHARS = 60_000
"""Characters that are read for objects which then are none; where they are nested they are read again and again."""
MAX_DEPTH = 6
"""Levels of an object that are looked into."""
MAX_VALUES = 2_000
"""Values of an object that are looked at."""
ENOUGH = 0.5
"""Part of the rubric's weight that must have points."""
DIGITS = 9
"""Decimal places of a score."""

OVERALL = ("overall score", "overall rating", "final score", "total score", "overall", "score", "rating")
"""What a score of the whole is called, where a judge gives none for each criterion."""
_NAMED = ("criterion", "criteria", "name")
_GIVEN = ("points", "score", "rating", "value", "grade")

_NUMBER = r"[0-9]{1,6}(?:[.,][0-9]{1,6})?"
_OUT_OF = rf"(?:\s*(?P<percent>%)|\s*(?:/|out of)\s*(?P<of>{_NUMBER}))?"
_POINTS = re.compile(rf"(?<![\w.,/+-])(?P<points>{_NUMBER}){_OUT_OF}(?!\w|[.,/]\w|[ \t]*(?:-|–|to)[ \t]*[0-9])", re.I)
_END_OF_LINE = re.compile(r"[\t *_`\"')\].|]*(?:\n|\Z)")
_OPENING = re.compile(r"[{\[]")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.I | re.S)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>", re.I)
_BETWEEN = r"[\s*_`\"')\]:=|.–—→-]*(?:\b(?:is|score|points|rating|grade|gets)\b[\s*_`\"':=|–—→-]*)?[\s*_`\"'(\[]*"
"""What may stand between a name and its points: ``**Clarity**: 4``, ``"clarity": 4``, ``| clarity | 4 |``."""


class Reading(msgspec.Struct, frozen=True):
    """``points`` by criterion in the order of the rubric, and ``score``, their mean by weight. ``score`` is None where
    the text says nothing that can be used; ``reason`` says why."""

    points: dict[str, float] = {}
    score: float | None = None
    reason: str = ""


def read_score(text: str, rubric: Rubric) -> Reading:
    """What a judge says in ``text``; see the module's text. Never raises.

    At least `ENOUGH` of the rubric's weight must have points: the score is the mean of those. One number for the whole
    counts where no criterion is named: it has no ``points`` then. Points out of another number than the rubric's
    highest are taken in proportion: 8/10 is 4 of 5.
    """
    said = without_thoughts(text)[-MAX_CHARS:]
    if not said.strip():
        return Reading(reason="the answer is empty")
    found = _best([*_in_objects(said, rubric), _in_lines(said, rubric), _in_order(said, rubric)])
    if not found:
        whole = _of_the_whole(said, rubric)
        if whole is None:
            return Reading(reason=f"no points for a criterion: {_shown(said)}")
        return Reading({rubric.criteria[0].name: whole} if len(rubric.criteria) == 1 else {}, whole)
    weights = {each.name: each.weight for each in rubric.criteria}
    weight = math.fsum(weights[name] for name in found)
    if weight < ENOUGH * math.fsum(weights.values()):
        return Reading(reason=f"points for {', '.join(found)} alone: {_shown(said)}")
    score = math.fsum(points * weights[name] for name, points in found.items()) / weight
    return Reading(found, min(max(round(score, DIGITS), float(rubric.lowest)), float(rubric.highest)))


def without_thoughts(text: str) -> str:
    """What a model says once it has thought: the text without its ``<think>`` parts."""
    return _END_OF_THOUGHT.split(_THOUGHT.sub(" ", text))[-1]


def _best(readings: list[dict[str, float]]) -> dict[str, float]:
    """The one that has most criteria; of equals the last of JSON's before the lines'."""
    return max(readings, key=len)


# JSON


def _in_objects(text: str, rubric: Rubric) -> Iterator[dict[str, float]]:
    """The points of each object in the text, the last first."""
    yield from reversed([_in_value(value, rubric) for value in _objects(text)])


def _objects(text: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    at = wasted = 0
    for _ in range(MAX_OBJECTS):
        found = _OPENING.search(text, at)
        if found is None or wasted > MAX_WASTED_CHARS:
            return
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError) as error:
            at = found.end()
            wasted += getattr(error, "pos", len(text)) - found.start()
            continue
        yield value


def _in_value(value: object, rubric: Rubric) -> dict[str, float]:
    known = {spoken(each.name): each.name for each in rubric.criteria}
    given: dict[str, float] = {}
    for name, told in _pairs(value):
        criterion, points = known.get(spoken(name)), _told(told, rubric)
        if criterion is not None and points is not None:
            given[criterion] = points
    return {each.name: given[each.name] for each in rubric.criteria if each.name in given}


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    """Names with what is told of them, anywhere in a value of JSON."""
    todo, looked_at = [(value, 0)], 0
    while todo and looked_at < MAX_VALUES:
        looked_at += 1
        inside, depth = todo.pop()
        if depth > MAX_DEPTH:
            continue
        if isinstance(inside, list):
            todo += [(each, depth + 1) for each in reversed(inside)]
        elif isinstance(inside, dict):
            yield from ((name, told) for name, told in inside.items() if not isinstance(told, list))
            named = next((inside[key] for key in _NAMED if isinstance(inside.get(key), str)), None)
            if isinstance(named, str):
                yield named, inside
            todo += [(told, depth + 1) for told in reversed(inside.values()) if isinstance(told, dict | list)]


def _told(told: object, rubric: Rubric) -> float | None:
    """The points in a value: 4, "4/5", {"score": 4}."""
    if isinstance(told, dict):
        told = next((told[key] for key in _GIVEN if key in told), None)
    if isinstance(told, bool):
        return None
    if isinstance(told, int | float):
        return _within(float(told), rubric) if abs(told) <= 1e6 else None
    if isinstance(told, str):
        found = _POINTS.match(told.strip(" *_`\"'([")[:40])
        return _points(found, rubric) if found else None
    return None


# Lines


def _in_lines(text: str, rubric: Rubric) -> dict[str, float]:
    return _after(text, [each.name for each in rubric.criteria], rubric)


def _of_the_whole(text: str, rubric: Rubric) -> float | None:
    alone = _POINTS.fullmatch(text.strip().strip("*_`\"'()[]. "))
    if alone:
        return _points(alone, rubric)
    for value in reversed(list(_objects(text))):
        for name, told in _pairs(value):
            if spoken(name) in OVERALL and (points := _told(told, rubric)) is not None:
                return points
    found = _after(text, list(OVERALL), rubric)
    return next((found[name] for name in OVERALL if name in found), None)


def _after(text: str, names: list[str], rubric: Rubric) -> dict[str, float]:
    """The points that follow a name, by name in the order of ``names``: the last ones of each."""
    known = {spoken(name): name for name in names}
    longest_first = sorted(names, key=len, reverse=True)
    any_name = "|".join(r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", name))) for name in longest_first)
    # The weight or the range that a judge repeats may stand behind the name in brackets.
    brackets = r"(?:[\s*_`]*\((?P<inside>[^()\n]{1,40})\))?"
    pattern = re.compile(rf"(?<!\w)(?P<name>{any_name})(?!\w){brackets}{_BETWEEN}", re.I)
    given: dict[str, float] = {}
    for found in pattern.finditer(text):
        name, told = known.get(spoken(found["name"])), _told_of(found, text, pattern)
        if told is not None and name is not None and (points := _points(told, rubric)) is not None:
            given[name] = points
    return {name: given[name] for name in names if name in given}


def _told_of(found: re.Match[str], text: str, names: re.Pattern[str]) -> re.Match[str] | None:
    """The points of the name that was ``found``: those that follow it, or those in brackets behind it."""
    inside = _POINTS.fullmatch(found["inside"] or "")
    if inside is not None and inside["of"]:
        return inside
    told, is_below = _POINTS.match(text, found.end()), "\n" in found[0]
    if told is not None:
        # Below the name a number that does not end its line is that of a list, or the first item of one.
        return told if not is_below or _END_OF_LINE.match(text, told.end()) else inside
    if is_below and names.match(text, found.end()):
        return inside
    return _on_the_line(text, found.end()) or inside


def _on_the_line(text: str, at: int) -> re.Match[str] | None:
    """Points that follow further on in the line, said to be out of something: ``clarity: good, 4/5``."""
    line = text[at : at + 200].split("\n", 1)[0]
    return next((found for found in _POINTS.finditer(line) if found["of"]), None)


def _in_order(text: str, rubric: Rubric) -> dict[str, float]:
    """As many numbers as there are criteria, and nothing else."""
    parts = [part for part in re.split(r"[\s,;*`|\[\]]+", text) if part]
    if len(parts) != len(rubric.criteria) or len(parts) == 1:
        return {}
    found = [_POINTS.fullmatch(part) for part in parts]
    points = [_points(each, rubric) for each in found if each is not None]
    if len(points) < len(parts) or None in points:
        return {}
    return {each.name: value for each, value in zip(rubric.criteria, points, strict=True) if value is not None}


# Points


def _points(found: re.Match[str], rubric: Rubric) -> float | None:
    points = _number(found["points"])
    if found["percent"]:
        points = points * rubric.highest / 100
    elif found["of"]:
        of = _number(found["of"])
        if of <= 0:
            return None
        points = points * rubric.highest / of
    return _within(points, rubric)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _within(points: float, rubric: Rubric) -> float | None:
    return points if rubric.lowest <= points <= rubric.highest else None


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 80 else f"{short[:80]}…")
