"""What of a request's body its answer depends on, in one form: for whoever keeps answers and gives them again.

Two bodies with the same canonical text ask for the same, however their JSON is written. It is written sorted and
without spaces. Left out are members with ``null``, the model, which a task names beside its body, and
`NOT_OF_THE_ANSWER`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

NOT_OF_THE_ANSWER = frozenset(
    (
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    )
)
"""Members that say who asks, how the answer is to come and what is kept of it."""
MAX_BODY_CHARS = 1024 * 1024
"""Characters of the longest body that is read: decoding a longer one would hold up the event loop."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""UnicodeError is a ValueError."""

Members = dict[str, Any]


class Question(NamedTuple):
    """The last message of a user, or the prompt, where it is plain text; ``before`` is the canonical text of all
    else."""

    text: str
    before: bytes


def canonical_members(body: str) -> Members | None:
    """The members of ``body`` on which its answer depends; None for what is too long or no JSON object."""
    if len(body) > MAX_BODY_CHARS:
        return None
    try:
        found = _decode(body)
    except _UNREADABLE:
        return None
    if not isinstance(found, dict):
        return None
    return {name: value for name, value in found.items() if value is not None and name not in NOT_OF_THE_ANSWER}


def canonical_text(members: Members) -> bytes | None:
    """``members`` as JSON in one form; None for numbers that JSON's encoder does not know."""
    try:
        return _encode(members)
    except _UNREADABLE:
        return None


def question_of(members: Members) -> Question | None:
    """What a chat or completion asks last; None where that is more than text, or not a user's."""
    text: str | None
    prompt = members.get("prompt")
    if isinstance(prompt, str):
        text, rest = prompt, members | {"prompt": ""}
    else:
        messages = members.get("messages")
        if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
            return None
        last = messages[-1]
        text = _plain(last.get("content")) if last.get("role") == "user" else None
        rest = members | {"messages": [*messages[:-1], last | {"content": ""}]}
    before = canonical_text(rest) if text else None
    return Question(text, before) if text and before is not None else None


def _plain(content: object) -> str | None:
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        content = part.get("text") if part.keys() == {"type", "text"} and part["type"] == "text" else None
    return content if isinstance(content, str) else None
