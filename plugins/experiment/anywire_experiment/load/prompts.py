"""What is asked: prompts that depend on the seed and the request's number alone; every arm gets the same ones.

Where a length is given in tokens, the prompt has as many words: short common words, each of which is one token to the
tokenizers in use. What a model's chat template adds is not in it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from anywire.builtin.synthetic import WORDS
from anywire_experiment.plan.workload import Prompts

MOST_KEPT_BLOCKS = 8192
"""Texts of blocks that are kept; an older one is made again when it is needed."""

_SIMPLE = "What is {} plus {}? Answer with the number only."
_MEDIUM_WORDS, _CONTEXT_WORDS = 90, 400
_DRAWN_WORDS = 2048
"""A longer text repeats: to draw each word would take longer than to send it."""


class PromptMaker:
    """Makes the messages of one workload's requests, in order. ``shared`` is the seed of the beginnings that they have
    in common, and ``in_turn`` whether these take turns or are drawn. ``block_tokens`` is the length of a block."""

    def __init__(
        self, prompts: Prompts, seed: int, shared: int, *, in_turn: bool = False, block_tokens: int = 512
    ) -> None:
        self._prompts, self._in_turn, self._seed, self._shared = prompts, in_turn, seed, shared
        self._block_tokens = block_tokens
        self._blocks: dict[int, str] = {}
        self._rng = np.random.default_rng(shared)
        self._prefixes: list[str] = []
        if length := prompts.shared_prefix_chars:
            self._prefixes = [self._filler(length) for _ in range(prompts.prefixes)]
        elif length := prompts.shared_prefix_tokens:
            self._prefixes = [f"{self._words(length)} " for _ in range(prompts.prefixes)]
        self._rng = np.random.default_rng(seed)
        weights = np.arange(1, prompts.prefixes + 1, dtype=float) ** -prompts.skew
        self._weights = weights / weights.sum()
        self._made = self._before = 0
        self._label = ""

    def of_session(self, number: int) -> PromptMaker:
        """A maker for one session, counted from 0, with the same beginnings: what it makes does not depend on what
        other sessions ask meanwhile."""
        made = copy.copy(self)
        made._rng = np.random.default_rng([self._seed, number])
        made._made, made._before, made._label = 0, number, f"{number}."
        return made

    def messages(
        self, input_tokens: int = 0, prefix_number: int = 0, blocks: Sequence[int] = ()
    ) -> list[dict[str, Any]]:
        """The next request's messages. ``input_tokens`` and ``prefix_number`` of a trace take the place of the length
        and the choice of the beginning that the plan gives. With ``blocks`` the text is theirs: equal ones are equal
        text, and what is longer than all of them is its own."""
        if blocks and input_tokens:
            return _user(self._text_of_blocks(blocks, input_tokens))
        self._made += 1
        prefix = self._prefix(prefix_number) if self._prefixes else ""
        if input_tokens:
            return _user(prefix + self._own_text(input_tokens - len(prefix.split())))
        # The number makes prompts differ, so that nothing on the way can answer one from another.
        number = f"[{self._label}{self._made}] "
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

    def further(self, tokens: int = 0) -> str:
        """The text of a session's next message, which has no common beginning: of so many tokens, or a short
        question."""
        self._made += 1
        if tokens:
            return self._own_text(tokens)
        return f"[{self._label}{self._made}] Go on with {self._words(8)}."

    def _own_text(self, tokens: int) -> str:
        words = max(tokens, 2) - 1
        return f"[{self._label}{self._made}] {self._words(words)}"

    def _text_of_blocks(self, blocks: Sequence[int], tokens: int) -> str:
        parts = []
        for block in blocks:
            if tokens <= 0:
                break
            text = self._block(block)
            parts.append(text if tokens >= self._block_tokens else " ".join(text.split(" ")[:tokens]))
            tokens -= self._block_tokens
        if tokens > 0:
            self._made += 1
            parts.append(self._own_text(tokens))
        return " ".join(parts)

    def _block(self, number: int) -> str:
        if number not in self._blocks:
            if len(self._blocks) >= MOST_KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            # The warm-up has other texts: what a trace asks first, no cache holds.
            own = np.random.default_rng([self._shared, number % 2**63, int(self._in_turn)])
            self._blocks[number] = _drawn(own, self._block_tokens)
        return self._blocks[number]

    def _prefix(self, number: int) -> str:
        if not number and self._in_turn:
            number = self._before + self._made
        if number:
            return self._prefixes[(number - 1) % len(self._prefixes)]
        return self._prefixes[int(self._rng.choice(len(self._prefixes), p=self._weights))]

    def _words(self, count: int) -> str:
        return _drawn(self._rng, count)

    def _filler(self, chars: int) -> str:
        if chars > 4096:
            block = self._filler(4096)
            return (block * (chars // 4096 + 1))[:chars]
        return self._words(chars // 2 + 1)[:chars]


def _drawn(rng: np.random.Generator, count: int) -> str:
    words = [WORDS[at] for at in rng.integers(0, len(WORDS), min(count, _DRAWN_WORDS))]
    if count > _DRAWN_WORDS:
        words = (words * (count // _DRAWN_WORDS + 1))[:count]
    return " ".join(words)


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]
