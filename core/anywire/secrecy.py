"""What must not be shown: which settings are secret, and texts without the secrets that are in them.

Whoever has a secret keeps it in a type that does not show it (`pydantic.SecretStr`). What is here is for the texts that
others make: of an error of a library, a server's answer, a plugin's exception. The message of every `AnywireError` and
every line of the log passes through `without_secrets`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

HIDDEN = "***"

MAX_KEPT = 1000
"""Secrets that are recognised by their value; the oldest are forgotten."""
MIN_CHARS = 6
"""Characters of the shortest one."""
MAX_PLAIN = 64
MAX_DEPTH = 64

_SECRET = re.compile(
    r"(^|[_-])(key|token|secret|password|passphrase|credentials?|authorization|cookie|api_keys)$", re.IGNORECASE
)

_MARKS = ("aw-", "aw1-", "aw2-", "eyJ", "sk-", "://", "PRIVATE KEY", "earer ")
"""One of them is in each text that `_FORMS` finds something in: looking for them is quicker."""
_FORMS = (
    (re.compile(r"(?<![A-Za-z0-9])aw-(?:([a-z2-7]{12}-))?[A-Za-z0-9_-]{16,}"), rf"aw-\1{HIDDEN}"),
    (re.compile(r"(?<![A-Za-z0-9])(aw[0-9]|sk)-[A-Za-z0-9_-]{16,}"), rf"\1-{HIDDEN}"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"://([^/@\s:]*):[^/\s]+@"), rf"://\1:{HIDDEN}@"),
    (re.compile(r"://[^/@\s:]{12,}@"), f"://{HIDDEN}@"),
    (re.compile(r'-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=")|\Z)'), HIDDEN),
    (re.compile(r"([Bb]earer )[A-Za-z0-9._~+/=-]{16,}"), rf"\1{HIDDEN}"),
)
"""Keys of this project (their public part stays) and its invite codes, keys of OpenAI, tokens of issuers (JWT), the
password (or a token) in an address, private keys (PEM), and what an ``Authorization`` header has."""

_WORD = re.compile(r"[A-Za-z]{0,20}[0-9]{0,3}|[0-9]{1,6}")

_kept: dict[str, None] = {}


def is_secret(key: str) -> bool:
    """Whether the value of a setting of that name must stay out of logs and output."""
    return _SECRET.search(key) is not None


def is_plain(text: str) -> bool:
    """Whether a text that stands where it does not belong may be repeated in an error: it is short, and made of words
    and small numbers, as names, paths and addresses are, and keys and tokens are not."""
    return (
        len(text) <= MAX_PLAIN
        and "@" not in text
        and all(_WORD.fullmatch(word) for word in re.split(r"[^A-Za-z0-9]", text))
    )


def shown(value: object) -> str:
    """A value that stands where it does not belong, as Python writes it, where it is a text or a number that
    `is_plain`; else ``***``."""
    return repr(value) if isinstance(value, str | int | float | None) and is_plain(str(value)) else HIDDEN


def keep_secret(value: str) -> None:
    """Leave this value out of all errors and all lines of the log from now on. One that is short or made of words
    (`is_plain`) would be found in the midst of sentences: such a one is kept by the type that holds it alone."""
    if len(value) >= MIN_CHARS and not is_plain(value):
        _kept.pop(value, None)
        _kept[value] = None
        if len(_kept) > MAX_KEPT:
            del _kept[next(iter(_kept))]


def forget_secret(value: str) -> None:
    """Undo `keep_secret`, for one that opens nothing any more: those that still do are not pushed out by it."""
    _kept.pop(value, None)


def keep_secrets(config: object) -> None:
    """`keep_secret` for every `pydantic.SecretStr` in a configuration."""
    for _, found in _leaves("", config):
        if (read := getattr(found, "get_secret_value", None)) is not None:
            keep_secret(read())


def without_secrets(text: str, hidden: str = HIDDEN) -> str:
    """``text`` with ``hidden`` in the place of what must not be shown: the values that `keep_secret` was told, and what
    has the form of a key, a token or a private key."""
    for value in _kept:
        if value in text:
            text = text.replace(value, hidden)
    if _may_have_form(text):
        for form, by in _FORMS:
            text = form.sub(by.replace(HIDDEN, hidden), text)
    return text


def _may_have_form(text: str) -> bool:
    """False where no form is found for certain: this is much quicker than to look for each, and is done for each line
    of the log."""
    return "aw" in text or "eyJ" in text or "sk-" in text or "://" in text or "PRIVATE KEY" in text or "earer " in text


def tree_without_secrets(value: Any, depth: int = 0) -> Any:
    """`without_secrets` for each text in a tree of plain types, of which nothing deeper than `MAX_DEPTH` is kept."""
    if depth > MAX_DEPTH:
        return HIDDEN
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {name: tree_without_secrets(inner, depth + 1) for name, inner in value.items()}
    return [tree_without_secrets(inner, depth + 1) for inner in value] if isinstance(value, list | tuple) else value


def hide_in_tracebacks() -> None:
    """From now on, what ends this process tells no secrets in its traceback."""

    def tell(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
        import traceback

        sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, place))))

    sys.excepthook = tell


def without_texts(sentence: str, given: object, key: str = "") -> str:
    """``sentence``, which tells what is wrong with a setting, without those texts of its value ``given`` that may be
    secrets: all that are not `is_plain`, and all under the name of a secret. ``key`` is the name of the setting."""
    for name, found in sorted(_leaves(key, given), key=lambda each: -len(str(each[1]))):
        text = str(found)
        if len(text) > 3 and (is_secret(name) or not is_plain(text)):
            sentence = sentence.replace(repr(text)[1:-1], HIDDEN).replace(text, HIDDEN)
    return sentence


def _leaves(key: str, value: object) -> Iterable[tuple[str, object]]:
    """What is in a tree, each with the name that it stands under."""
    if hasattr(type(value), "model_fields"):
        value = dict(value)  # type: ignore[call-overload]
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(key if is_secret(key) else str(name), inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _leaves(key, inner)
    else:
        yield key, value
