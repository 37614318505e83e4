"""Exercises made by seed, easy enough that a model of 135 million parameters answers some of them right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from anywire_experiment.exercises.exercise import Exercise

Kind = Literal["arithmetic", "parity", "words", "logic"]
"""``arithmetic``: sums, differences, products and small stories with one number as their answer. ``parity``: whether a
number is even, yes or no. ``words``: which of some words is the longest, the first in the alphabet, or begins with a
letter. ``logic``: orders, syllogisms and exclusions."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")
_WORDS = (
    *("apple", "bridge", "candle", "door", "elephant", "forest", "garden", "house", "island", "jacket", "kitchen"),
    *("lamp", "mountain", "night", "ocean", "pencil", "queen", "river", "stone", "table", "umbrella", "village"),
    *("window", "yellow"),
)
_THINGS = ("apples", "books", "coins", "pencils", "stamps")
_COLOURS = ("red", "blue", "green", "yellow")
_SORTS = (("cats", "animals", "planets"), ("roses", "flowers", "rivers"), ("cars", "machines", "fruits"))
_HEIGHTS = (("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"))
_YES_OR_NO = ("yes", "no")


def generated(kinds: Sequence[Kind], seed: int) -> Iterator[Exercise]:
    """Exercises without end, the kinds in turn. The same seed gives the same ones."""
    rng = random.Random(seed)
    while True:
        for kind in kinds:
            yield _MAKERS[kind](rng)


def _arithmetic(rng: random.Random) -> Exercise:
    form = rng.choice(("plus", "minus", "times", "more", "fewer"))
    first, second = rng.randint(2, 20), rng.randint(2, 20)
    who, what = rng.choice(_NAMES), rng.choice(_THINGS)
    if form == "times":
        first, second = rng.randint(2, 9), rng.randint(2, 9)
    if form in ("minus", "fewer"):
        first, second = max(first, second), min(first, second)
    match form:
        case "plus":
            prompt, answer = f"What is {first} + {second}?", first + second
        case "minus":
            prompt, answer = f"What is {first} - {second}?", first - second
        case "times":
            prompt, answer = f"What is {first} times {second}?", first * second
        case "more":
            prompt = f"{who} has {first} {what} and gets {second} more. How many {what} does {who} have now?"
            answer = first + second
        case _:
            prompt = f"{who} has {first} {what} and gives away {second}. How many {what} does {who} have now?"
            answer = first - second
    name = f"arithmetic-{form}-{first}-{second}"
    return Exercise(name, f"{prompt} Answer with the number only.", answer, kind="arithmetic")


def _parity(rng: random.Random) -> Exercise:
    number = rng.randint(1, 1_000_000)
    answer = "no" if number % 2 else "yes"
    prompt = f"Is {number} an even number? Answer yes or no."
    return Exercise(f"parity-{number}", prompt, answer, choices=_YES_OR_NO, kind="parity")


def _words(rng: random.Random) -> Exercise:
    form = rng.choice(("longest", "first", "letter"))
    words = rng.sample(_WORDS, 3)
    while form == "longest" and sorted(map(len, words))[-2:].count(max(map(len, words))) > 1:
        words = rng.sample(_WORDS, 3)
    listed = ", ".join(words)
    match form:
        case "longest":
            prompt, answer = f"Which of these words is the longest: {listed}?", max(words, key=lambda word: len(word))
        case "first":
            prompt, answer = f"Which of these words comes first in the alphabet: {listed}?", min(words)
        case _:
            answer = rng.choice(words)
            prompt = f'Which of these words begins with the letter "{answer[0]}": {listed}?'
    name = f"words-{form}-{'-'.join(words)}"
    return Exercise(name, f"{prompt} Answer with the word only.", answer, choices=tuple(words), kind="words")


def _logic(rng: random.Random) -> Exercise:
    form = rng.choice(("order", "sorts", "boxes"))
    if form == "order":
        most, middle, least = rng.sample(_NAMES, 3)
        comparative, *ends = rng.choice(_HEIGHTS)
        at = rng.randrange(2)
        said = [f"{most} is {comparative} than {middle}.", f"{middle} is {comparative} than {least}."]
        rng.shuffle(said)
        prompt = f"{' '.join(said)} Who is the {ends[at]}? Answer with the name only."
        name, choices = f"logic-order-{most}-{middle}-{least}-{ends[at]}", (most, middle, least)
        return Exercise(name, prompt, (most, least)[at], choices=choices, kind="logic")
    if form == "sorts":
        some, those, others = rng.choice(_SORTS)
        true = rng.random() < 0.5
        premises = f"All {some} are {those}. No {those} are {others}."
        prompt = f"{premises} Are all {some} {those if true else others}? Answer yes or no."
        name = f"logic-sorts-{some}-{'yes' if true else 'no'}"
        return Exercise(name, prompt, "yes" if true else "no", choices=_YES_OR_NO, kind="logic")
    one, other = rng.sample(_COLOURS, 2)
    empty = rng.choice((one, other))
    prompt = (
        f"The key is in the {one} box or in the {other} box. It is not in the {empty} box. In which box is the key? "
        "Answer with the colour only."
    )
    answer = other if empty == one else one
    return Exercise(f"logic-boxes-{one}-{other}-{empty}", prompt, answer, choices=(one, other), kind="logic")


_MAKERS = {"arithmetic": _arithmetic, "parity": _parity, "words": _words, "logic": _logic}
