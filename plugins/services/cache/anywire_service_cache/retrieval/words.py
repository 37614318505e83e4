"""Passages by the words that they share with a question: BM25 (Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009), with its usual constants."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

K1, B = 1.2, 0.75
MAX_WORDS = 1000
"""Words of a question that are looked for."""
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


class WordIndex:
    def __init__(self, texts: Sequence[str]) -> None:
        self._lengths: list[int] = []
        self._found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """By word the texts that have it, each with how often."""
        for number, text in enumerate(texts):
            counted = Counter(words_of(text))
            self._lengths.append(counted.total())
            for word, count in counted.items():
                self._found[word].append((number, count))
        self._mean = sum(self._lengths) / len(self._lengths) if self._lengths else 0.0

    def closest(self, question: str, most: int) -> list[tuple[int, float]]:
        """The texts with the highest scores, the best first. One that shares no word with the question, or only such as
        half of all texts have, is none of them."""
        scores: dict[int, float] = defaultdict(float)
        said: set[int] = set()
        texts = len(self._lengths)
        for word in dict.fromkeys(words_of(question)[:MAX_WORDS]):
            found = self._found.get(word)
            if not found:
                continue
            weight = math.log(1 + (texts - len(found) + 0.5) / (len(found) + 0.5))
            for number, count in found:
                long = 1 - B + B * self._lengths[number] / self._mean
                scores[number] += weight * count * (K1 + 1) / (count + K1 * long)
            if 2 * len(found) <= texts or texts == 1:
                said.update(number for number, _ in found)
        best = heapq.nlargest(most, said, key=lambda number: (scores[number], -number))
        return [(number, scores[number]) for number in best]
