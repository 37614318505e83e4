"""An exercise, and whether a text answers it."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

import msgspec

MAX_CHARS = 20_000
"""Characters of an answer that are looked at, the last ones."""

_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d[\d,]*(?:\.\d+)?(?!\w)")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.I | re.S)


class Exercise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A ``prompt``, and either its ``answer`` or a ``pattern`` that a right answer has. ``id`` names it in a record.
    ``choices`` are the answers among which it asks for one. ``kind`` is what a report groups exercises by."""

    id: str
    prompt: str
    answer: str | int | float = ""
    pattern: str = ""
    choices: tuple[str, ...] = ()
    kind: str = ""

    @property
    def expected(self) -> str:
        """What is right, for a person."""
        return f"/{self.pattern}/" if self.pattern else str(self.answer)


def is_right(exercise: Exercise, text: str) -> bool:
    """Whether ``text`` says the right answer. What stands in ``<think>`` does not count. The first that applies:

    - ``pattern``: it is found in the text, as `re.search` does;
    - ``choices``: the last one that the text names, as a whole word in any case, is the answer;
    - the answer is a number: the last number of the text equals it (``7``, ``7.0``, ``1,234``);
    - else the answer stands in the text, as whole words in any case.
    """
    said = _THOUGHT.sub(" ", text)[-MAX_CHARS:]
    if exercise.pattern:
        return re.search(exercise.pattern, said) is not None
    said, answer = _plain(said), _plain(str(exercise.answer))
    if exercise.choices:
        named = _whole_words(sorted(map(_plain, exercise.choices), key=len, reverse=True)).findall(said)
        return bool(named) and named[-1] == answer
    number = _number(answer)
    if number is not None:
        numbers = _NUMBER.findall(said)
        return bool(numbers) and _number(numbers[-1]) == number
    return _whole_words([answer]).search(said) is not None


def fault_of(exercise: Exercise) -> str:
    """What is wrong with an exercise; empty when nothing is."""
    if not exercise.id or len(exercise.id) > 128 or not exercise.id.isprintable():
        return "id: expected 1 to 128 printable characters"
    if not exercise.prompt.strip():
        return "prompt: it is blank"
    if bool(str(exercise.answer).strip()) == bool(exercise.pattern):
        return "give either an answer or a pattern"
    if exercise.choices and (exercise.pattern or _plain(str(exercise.answer)) not in map(_plain, exercise.choices)):
        return "choices: the answer is not among them"
    if not all(map(str.strip, exercise.choices)):
        return "choices: one of them is blank"
    try:
        re.compile(exercise.pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"pattern: it is no regular expression: {error}"
    return ""


def _plain(text: str) -> str:
    """Without differences of case, width and space; a minus is a hyphen."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    return " ".join(folded.split())


def _whole_words(texts: list[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, texts))})(?!\w)")


def _number(text: str) -> Decimal | None:
    try:
        found = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None
