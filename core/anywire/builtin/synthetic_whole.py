"""What the synthetic engine answers to tasks whose answer is one JSON object: known answers without a model.

Its tokenizer knows the engine's words, each alone and after a space; every other character is a token of its own. So
tokens become the same text again. A document's score is the share of words that it has in common with the query.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from anywire.engine import Delta
from anywire.errors import InvalidRequest
from anywire.messages import WholeKind
from anywire.silent_wave import silent_wave

MAX_TEXT_CHARS = 4_000_000
"""Characters of the texts of one task together."""
MAX_TOKENS = 1_000_000
MAX_DOCUMENTS = 10_000
MAX_IMAGES = 10
SECONDS_OF_WORD = 0.05
MAX_SECONDS = 60.0

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_PIECES = re.compile(r" ?[a-z]+|.", re.DOTALL)
_WORDS = re.compile(r"\w+")
_JSON_FORMATS = (None, "json", "verbose_json")
_WAVES = (None, "wav", "mp3")
_SURROGATES = range(0xD800, 0xE000)


class WholeAnswers:
    """``words`` are the engine's, ``seed`` decides what is drawn, ``context`` is told with tokens."""

    def __init__(self, words: Sequence[str], seed: int, context: int) -> None:
        distinct = [*dict.fromkeys(words)]
        self._words, self._seed, self._context = distinct, seed, context
        self._known = [*distinct, *(f" {each}" for each in distinct)]
        self._ids = {piece: at for at, piece in enumerate(self._known)}

    def answer(self, kind: WholeKind, body: str) -> Delta:
        """Raises `InvalidRequest`. It may take a second: call it in a thread."""
        try:
            asked = _decode(body)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise InvalidRequest(f"the request body is not understood: {error}") from error
        makers: Mapping[WholeKind, Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], int]]] = {
            "rerank": self._rerank,
            "tokenize": self._tokenize,
            "detokenize": self._detokenize,
            "transcription": self._transcribe,
            "speech": self._speak,
            "image": self._draw,
        }
        answer, tokens = makers[kind](asked)
        usage = _encode({"prompt_tokens": tokens, "total_tokens": tokens}).decode()
        return Delta("", _encode(answer).decode(), "stop", usage)

    def _rerank(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        query, documents = _text(asked, "query"), asked.get("documents")
        if not isinstance(documents, list) or not 0 < len(documents) <= MAX_DOCUMENTS:
            raise InvalidRequest(f"documents must be a list of 1 to {MAX_DOCUMENTS} texts", param="documents")
        given = [each.get("text") if isinstance(each, dict) else each for each in documents]
        texts = [each for each in given if isinstance(each, str)]
        if len(texts) != len(given):
            raise InvalidRequest("documents must be texts, or objects with a text", param="documents")
        if sum(map(len, texts)) > MAX_TEXT_CHARS:
            raise _too_long("documents")
        wanted = _words(query)
        scores = [len(wanted & found) / len(wanted | found) if (found := _words(each)) else 0.0 for each in texts]
        order = sorted(range(len(texts)), key=lambda at: (-scores[at], at))
        top = asked.get("top_n")
        results = [{"index": at, "relevance_score": round(scores[at], 6)} for at in order]
        return (
            {"results": results[: int(top)] if isinstance(top, int | float) and top > 0 else results},
            sum(len(each.split()) + len(query.split()) for each in texts),
        )

    def _tokenize(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        messages = asked.get("messages")
        if isinstance(messages, list):
            text = "\n".join(_content(each) for each in messages)
        else:
            text = _text(asked, "prompt", empty=True)
        if len(text) > MAX_TOKENS:
            raise _too_long("prompt")
        pieces: list[str] = []
        for piece in _PIECES.findall(text):
            pieces += [piece] if piece in self._ids else piece
        tokens = [self._ids[each] if each in self._ids else len(self._known) + ord(each) for each in pieces]
        answer: dict[str, Any] = {"tokens": tokens, "count": len(tokens)}
        if self._context:
            answer["max_model_len"] = self._context
        if asked.get("return_token_strs"):
            answer["token_strs"] = pieces
        return answer, len(tokens)

    def _detokenize(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        tokens = asked.get("tokens")
        if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS:
            raise InvalidRequest(f"tokens must be a list of at most {MAX_TOKENS} integers", param="tokens")
        return {"prompt": "".join(map(self._piece, tokens))}, len(tokens)

    def _piece(self, token: object) -> str:
        if type(token) is int and 0 <= token < len(self._known):
            return self._known[token]
        character = token - len(self._known) if type(token) is int else -1
        if not 0 <= character <= 0x10FFFF or character in _SURROGATES:
            raise InvalidRequest(f"{str(token)[:40]} is no token of this model", param="tokens")
        return chr(character)

    def _transcribe(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        try:
            sound = base64.b64decode(_text(asked, "file", most=2**31), validate=True)
        except binascii.Error as error:
            raise InvalidRequest(f"file must be base64: {error}", param="file") from error
        if not sound:
            raise InvalidRequest("the file is empty", param="file")
        drawn = random.Random(hashlib.sha256(str(self._seed).encode() + sound).digest())
        words = drawn.choices(self._words, k=drawn.randint(3, 12))
        text, form = " ".join(words), asked.get("response_format")
        if form in _JSON_FORMATS:
            return {"text": text}, len(words)
        if form != "text":
            raise InvalidRequest(
                f"the synthetic engine does not support response_format {str(form)[:40]!r}: it knows json and text",
                param="response_format",
            )
        return {"content": text, "content_type": "text/plain; charset=utf-8"}, len(words)

    def _speak(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        words, form = len(_text(asked, "input").split()), asked.get("response_format")
        if form not in _WAVES:
            raise InvalidRequest(
                f"the synthetic engine does not support response_format {str(form)[:40]!r}: it gives wav",
                param="response_format",
            )
        sound = silent_wave(min(words * SECONDS_OF_WORD, MAX_SECONDS))
        return {"audio": base64.b64encode(sound).decode(), "content_type": "audio/wav"}, words

    def _draw(self, asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        prompt, count = _text(asked, "prompt"), asked.get("n")
        number = 1 if count is None else count
        if not isinstance(number, int) or not 1 <= number <= MAX_IMAGES:
            raise InvalidRequest(f"n must be an integer from 1 to {MAX_IMAGES}", param="n")
        if asked.get("response_format") == "url":
            raise InvalidRequest(
                "the synthetic engine does not support response_format 'url': it gives b64_json",
                param="response_format",
            )
        seeds = [f"{self._seed} {at} {prompt}".encode() for at in range(number)]
        images = [{"b64_json": base64.b64encode(_dot(hashlib.sha256(each).digest())).decode()} for each in seeds]
        return {"created": 0, "data": images}, len(prompt.split())


def _text(asked: Mapping[str, Any], name: str, *, empty: bool = False, most: int = MAX_TEXT_CHARS) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequest(f"{name} must be a text", param=name)
    if len(value) > most:
        raise _too_long(name)
    return value


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else ""
    return content if isinstance(content, str) else _encode(content).decode()


def _words(text: str) -> set[str]:
    return set(_WORDS.findall(text.lower()))


def _too_long(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} is too long for the synthetic engine", param=name)


def _dot(colour: bytes) -> bytes:
    """A picture of one point in PNG."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            part(b"IHDR", head),
            part(b"IDAT", zlib.compress(b"\0" + colour[:3])),
            part(b"IEND", b""),
        )
    )
