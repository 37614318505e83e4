"""What is asked: prompts that depend on the seed and the request's number alone; every arm gets the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from anywire.builtin.synthetic import WORDS
from anywire_experiment.workload import Prompts

CHARS_PER_TOKEN = 4
"""How many characters stand for a token of a trace's input: the usual estimate for English text."""

_SIMPLE = "What is {} plus {}? Answer with the number only."
_MEDIUM_WORDS, _CONTEXT_WORDS = 90, 400


class PromptMaker:
    """Makes the messages of one workload's requests, in order. ``shared`` is the seed of the beginnings that they have
    in common, and ``in_turn`` whether these take turns or are drawn."""

    def __init__(self, prompts: Prompts, seed: int, shared: int, *, in_turn: bool = False) -> None:
        self._prompts, self._in_turn = prompts, in_turn
        self._rng = np.random.default_rng(shared)
        length = prompts.shared_prefix_chars
        self._prefixes = [self._filler(length) for _ in range(prompts.prefixes)] if length else []
        self._rng = np.random.default_rng(seed)
        weights = np.arange(1, prompts.prefixes + 1, dtype=float) ** -prompts.skew
        self._weights = weights / weights.sum()
        self._made = 0

    def messages(self, input_tokens: int = 0, prefix_number: int = 0) -> list[dict[str, Any]]:
        """The next request's messages; ``input_tokens`` and ``prefix_number`` of a trace take the place of the length
        and the choice of the beginning that the plan gives."""
        self._made += 1
        prefix = self._prefix(prefix_number) if self._prefixes else ""
        # The number makes prompts differ, so that nothing on the way can answer one from another.
        number = f"[{self._made}] "
        if input_tokens:
            return _user(
                prefix + number + self._filler(max(input_tokens * CHARS_PER_TOKEN - len(prefix) - len(number), 1))
            )
        match self._prompts.kind:
            case "simple":
                first, second = self._rng.integers(1, 1000, 2)
                return _user(prefix + _SIMPLE.format(first, second))
            case "medium":
                return _user(f"{prefix}{number}Summarise in one sentence: {self._words(_MEDIUM_WORDS)}.")
            case "chars":
                rest = self._prompts.chars - len(prefix)
                return _user((prefix + number + self._filler(max(rest - len(number), 0)))[: max(rest, 1) + len(prefix)])
            case "complex":
                return [
                    {
                        "role": "system",
                        "content": f"{prefix}You are careful and answer from the context alone. {self._words(60)}.",
                    },
                    {"role": "user", "content": f"{number}Context: {self._words(_CONTEXT_WORDS)}."},
                    {"role": "assistant", "content": "I have read the context."},
                    {"role": "user", "content": f"List its three main points, then say how {self._words(3)} relate."},
                ]

    def _prefix(self, number: int) -> str:
        if not number and self._in_turn:
            number = self._made
        if number:
            return self._prefixes[(number - 1) % len(self._prefixes)]
        return self._prefixes[int(self._rng.choice(len(self._prefixes), p=self._weights))]

    def _words(self, count: int) -> str:
        return " ".join(WORDS[at] for at in self._rng.integers(0, len(WORDS), count))

    def _filler(self, chars: int) -> str:
        if chars > 4096:  # a long text repeats: to draw each word would take longer than to send it
            block = self._filler(4096)
            return (block * (chars // 4096 + 1))[:chars]
        return self._words(chars // 2 + 1)[:chars]


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]
