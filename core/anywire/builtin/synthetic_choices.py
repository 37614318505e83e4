"""Choices of the synthetic engine in OpenAI's form: several, with log probabilities, with a tool call, as JSON."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from anywire.builtin.schema_value import schema_value
from anywire.builtin.synthetic_request import Asked, Function
from anywire.messages import Kind

_TOKENS = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")

LOGPROB_CHARS = 70
"""About what the log probability of a token takes in JSON."""

Draw = Callable[[random.Random], tuple[list[str], str]]
"""Draws the tokens of a plain text and why it ends."""


def seed_of(prompt: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def named_in(user_text: str, tools: Sequence[Function]) -> Function | None:
    """The function to call: the first whose name the user says."""
    return next((each for each in tools if re.search(rf"\b{re.escape(each.name)}\b", user_text)), None)


class Choice:
    """One choice: its tokens, and what is said of each. Choice 0 of a prompt is the text that a request without
    ``n`` gets."""

    def __init__(
        self, kind: Kind, index: int, rng: random.Random, asked: Asked, prompt: str, named: Function | None,
        draw: Draw, limit: int | None, words: Sequence[str],
    ) -> None:  # fmt: skip
        self.index, self._kind, self._asked, self._words = index, kind, asked, words
        self._rng = rng
        self._call = named
        if named is None and asked.forced:
            self._call = asked.tools[rng.randrange(len(asked.tools))]
        self._call_id = f"call_{rng.getrandbits(96):024x}" if self._call is not None else ""
        if self._call is not None:
            schema = {"type": "object"} if self._call.parameters is None else self._call.parameters
            self.tokens, self.finish = self._json(schema, limit)
            self.finish = "tool_calls" if self.finish == "stop" else self.finish
        elif asked.is_json:
            self.tokens, self.finish = self._json(asked.schema, limit)
        else:
            self.tokens, self.finish = draw(rng)
        self.echoed = len(echo := _TOKENS.findall(prompt)) if asked.echo else 0
        self.made = len(self.tokens)
        if asked.echo:
            self.tokens = echo + self.tokens
        # Of a generator of their own: with log probabilities the text is the same as without.
        self._chances = random.Random(rng.getrandbits(64))
        self._offset = 0

    @property
    def size(self) -> int:
        """About how many characters its JSON has."""
        likely = 0 if self._asked.top_logprobs is None or self._call is not None else 1 + self._asked.top_logprobs
        name = 0 if self._call is None else len(self._call.name)
        return name + sum(map(len, self.tokens)) + LOGPROB_CHARS * likely * len(self.tokens)

    @property
    def text(self) -> str:
        return "" if self._call is not None else "".join(self.tokens)

    def whole(self) -> dict[str, Any]:
        """The choice of an answer that comes at once."""
        logprobs = self._logprobs(0, len(self.tokens))
        if self._kind != "chat":
            return {"index": self.index, "text": self.text, "logprobs": logprobs, "finish_reason": self.finish}
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self._call is not None:
            message |= {"content": None, "tool_calls": [self._tool_call(self._call, "".join(self.tokens))]}
        return {"index": self.index, "message": message, "logprobs": logprobs, "finish_reason": self.finish}

    def step(self, at: int) -> dict[str, Any] | None:
        """The choice of the event of its token number ``at``; None after the last."""
        if at >= max(1, len(self.tokens)):
            return None
        token = self.tokens[at] if self.tokens else ""
        finish = self.finish if at >= len(self.tokens) - 1 else None
        logprobs = self._logprobs(at, min(at + 1, len(self.tokens)))
        if self._kind != "chat":
            return {"index": self.index, "text": token, "logprobs": logprobs, "finish_reason": finish}
        delta: dict[str, Any] = {"content": token}
        if self._call is not None:
            said = self._tool_call(self._call, token) if at == 0 else {"function": {"arguments": token}}
            delta = {"tool_calls": [{"index": 0, **said}]}
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _tool_call(self, called: Function, arguments: str) -> dict[str, Any]:
        return {"id": self._call_id, "type": "function", "function": {"name": called.name, "arguments": arguments}}

    def _json(self, schema: object, limit: int | None) -> tuple[list[str], str]:
        tokens = _TOKENS.findall(json.dumps(schema_value(schema, self._rng, self._words), ensure_ascii=False))
        return (tokens, "stop") if limit is None or len(tokens) <= limit else (tokens[:limit], "length")

    def _logprobs(self, start: int, end: int) -> dict[str, Any] | None:
        count = self._asked.top_logprobs
        if count is None or self._call is not None:
            return None
        said = [self._chance(self.tokens[at], at, count) for at in range(start, end)]
        if self._kind == "chat":
            content = [
                {**_entry(token, chance), "top_logprobs": [_entry(*each) for each in top]}
                for token, chance, top in said
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for token, _, _ in said:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": [token for token, _, _ in said],
            # Nothing is before the first token of an echoed prompt that would make it likely.
            "token_logprobs": [
                None if self.echoed and start + at == 0 else chance for at, (_, chance, _) in enumerate(said)
            ],
            "top_logprobs": [dict(top) for _, _, top in said] if count else None,
            "text_offset": offsets,
        }

    def _chance(self, token: str, at: int, count: int) -> tuple[str, float, list[tuple[str, float]]]:
        """A token, its log probability, and so many tokens with theirs, the likeliest first."""
        chance = -round(self._chances.uniform(0.01, 1.0), 4)
        start = self._chances.randrange(len(self._words))
        space = " " if token[:1].isspace() else ""
        others = [space + word for word in [*self._words[start:], *self._words[:start]] if space + word != token]
        likely = [(token, chance)]
        for other in others[: max(0, count - 1)]:
            likely.append((other, round(likely[-1][1] - 0.25, 4)))
        return token, chance, likely[:count]


def _entry(token: str, chance: float) -> dict[str, Any]:
    return {"token": token, "logprob": chance, "bytes": list(token.encode(errors="replace"))}
