"""What a request's body asks for, read from OpenAI's own fields: models, needs, expected work, session, hints, prefix.

One place for every gateway and for an orchestrator below another one, which gets the same body. What is malformed asks
for nothing: refusing it is the gateway's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import msgspec

from anywire.native_api import MEMBER, NEEDS
from anywire.offers import API_NEED, NAMED_NEED
from anywire.submission import MAX_HINT_CHARS, MAX_HINTS, MAX_NAME_CHARS, NO_HINTS, Hints

MAX_MODELS = 8
"""Models that one request may name, in order of preference."""
CHARS_PER_TOKEN = 4
"""Of a prompt whose tokens no engine has counted."""
CHARS_PER_TOKEN_OF_SOUND = 160
"""The same of a file with sound in base64: models that hear make some 25 to 50 tokens of a second."""
MAX_TOKENS = 2**31
MCP_NEED = NAMED_NEED
"""Begins the need of a server of tools (MCP) by its label: ``mcp:files``."""
MAX_LABELS = 16
"""Servers of tools that one request may name."""
MAX_LABEL_CHARS = 64
BLOCK_BYTES = 512
"""Bytes of the prompt that one hash of its prefix covers, about 128 tokens of English."""
MAX_BLOCKS = 256
"""Hashes of one prefix: what follows the first 128 KiB tells no two prompts apart."""

_NOTHING = (b"null", b"[]", b"false", b"0")
_LIST = ord("[")
"""The first byte of a list."""


class Demand(msgspec.Struct, frozen=True, gc=False):
    """``models`` are further ones that would do, after the one the request names. ``needs`` are features, sorted:
    ``tools``, ``vision``, ``audio``, ``json`` and ``logprobs``, ``mcp:LABEL`` for each server that a tool of type
    ``mcp`` names, and ``api:NAME`` where the body is that of another API (`anywire.native_api`). ``max_tokens`` is the
    longest answer asked for, 0 when it is not said. ``session`` is the ``prompt_cache_key``, ``hints`` what is short
    enough in ``metadata``."""

    models: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    max_tokens: int = 0
    session: str = ""
    hints: Hints = NO_HINTS


_NONE = msgspec.Raw()


class _Message(msgspec.Struct):
    content: msgspec.Raw = _NONE


class _Body(msgspec.Struct):
    """Raw but for the messages: the rest is decoded when it is there, and may be anything."""

    messages: list[_Message] | None = None
    models: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    functions: msgspec.Raw = _NONE
    response_format: msgspec.Raw = _NONE
    modalities: msgspec.Raw = _NONE
    logprobs: msgspec.Raw = _NONE
    max_completion_tokens: msgspec.Raw = _NONE
    max_tokens: msgspec.Raw = _NONE
    prompt_cache_key: msgspec.Raw = _NONE
    metadata: msgspec.Raw = _NONE
    anywire_api: msgspec.Raw = _NONE


class _Choices(_Body):
    n: msgspec.Raw = _NONE
    best_of: msgspec.Raw = _NONE


class _Prompt(msgspec.Struct):
    tools: msgspec.Raw = _NONE
    messages: list[msgspec.Raw] | None = None
    prompt: msgspec.Raw = _NONE


class _PlainMessage(msgspec.Struct, gc=False):
    content: str | None = None


class _Plain(msgspec.Struct, gc=False):
    """What most requests are: texts, and perhaps the length of the answer."""

    messages: list[_PlainMessage] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    models: None = None
    tools: None = None
    functions: None = None
    response_format: None = None
    modalities: None = None
    logprobs: None = None
    prompt_cache_key: None = None
    metadata: None = None
    anywire_api: None = None


PLAIN_CHARS = 16384
"""Characters of a body that is first read as a plain one, for which its texts are copied."""

_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_choices = msgspec.json.Decoder(_Choices).decode
_decode_prompt = msgspec.json.Decoder(_Prompt).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)
NO_DEMAND = Demand()


def read_demand(body: str) -> Demand:
    """What ``body`` asks for; nothing when it is no JSON object, or its messages are no list of objects."""
    if len(body) <= PLAIN_CHARS:
        try:
            plain = _decode_plain(body)
        except _MALFORMED:
            pass
        else:
            most = plain.max_completion_tokens or plain.max_tokens
            return NO_DEMAND if most is None else Demand(max_tokens=most if 0 < most < MAX_TOKENS else 0)
    return _demand_of(body)


def _demand_of(body: str) -> Demand:
    try:
        fields = _decode_body(body)
        needs = _needs(fields)
        if fields.max_tokens is _NONE and fields.max_completion_tokens is _NONE:
            tokens = None
        else:
            tokens = _loads(fields.max_completion_tokens) or _loads(fields.max_tokens)
        # Most requests have none of these.
        if fields.models is fields.prompt_cache_key is fields.metadata is _NONE:
            models = session = metadata = None
        else:
            models, session, metadata = map(_loads, (fields.models, fields.prompt_cache_key, fields.metadata))
    except _MALFORMED:
        return NO_DEMAND
    if not needs and tokens is models is session is metadata is None:
        return NO_DEMAND
    return Demand(
        tuple([each for each in models if _is_name(each)][:MAX_MODELS]) if isinstance(models, list) else (),
        needs,
        tokens if type(tokens) is int and 0 < tokens < MAX_TOKENS else 0,
        session[:MAX_NAME_CHARS] if isinstance(session, str) and session.isprintable() else "",
        _hints(metadata) if isinstance(metadata, dict) and not _is_native(needs) else NO_HINTS,
    )


def prompt_tokens(kind: str, chars: int) -> float:
    """How many tokens the prompt of a task may have, by the characters of its body."""
    return chars / (CHARS_PER_TOKEN_OF_SOUND if kind == "transcription" else CHARS_PER_TOKEN)


def beyond_text(body: str) -> str:
    """The member of ``body`` for which the answer is more than plain text of one choice (tools, structured output, log
    probabilities, further choices, another API); empty when none is. Only plain text can be resumed by another
    engine."""
    try:
        fields = _decode_choices(body)
        needs = _needs(fields)
        several = next((name for name in ("n", "best_of") if _loads(getattr(fields, name)) not in (None, 1)), "")
    except _MALFORMED:
        return ""
    if _is_native(needs):
        return MEMBER
    if "tools" in needs:
        return "tools" if _is_something(fields.tools) else "functions"
    return "logprobs" if "logprobs" in needs else "response_format" if "json" in needs else several


def prefix_hashes(body: str) -> tuple[int, ...]:
    """Chained hashes of the prompt's blocks of `BLOCK_BYTES`, 64 bits each: prompts that begin alike have the same
    first ones, and from the first block that differs on all differ. The last block, if it is not full, has none. Tools
    count as the beginning of a prompt, which is where models read them. However the JSON is written, the same values
    in the same order have the same hashes."""
    if len(body) < BLOCK_BYTES:
        return ()
    limit = MAX_BLOCKS * BLOCK_BYTES
    text = bytearray()
    try:
        fields = _decode_prompt(body)
        parts = [fields.prompt] if fields.messages is None else fields.messages
        for part in [fields.tools, *parts]:
            if part is not _NONE:
                text += _encode(_decode(part)) + b"\n"
            if len(text) >= limit:
                break
    except _MALFORMED:
        return ()
    hashes: list[int] = []
    last = b""
    for start in range(0, min(len(text), limit) - BLOCK_BYTES + 1, BLOCK_BYTES):
        last = hashlib.sha256(last + text[start : start + BLOCK_BYTES]).digest()
        hashes.append(int.from_bytes(last[:8]))
    return tuple(hashes)


def _needs(fields: _Body) -> tuple[str, ...]:
    """Sorted, as keys have them."""
    kinds = _part_types(fields.messages) if fields.messages else ()
    if not kinds and (
        fields.tools
        is fields.functions
        is fields.response_format
        is fields.modalities
        is fields.logprobs
        is fields.anywire_api
        is _NONE
    ):
        return ()  # as most requests
    needs = []
    endpoint = _loads(fields.anywire_api)
    is_native = isinstance(endpoint, str) and endpoint in NEEDS
    if is_native:
        needs.append(NEEDS[endpoint])
    if "input_audio" in kinds or (fields.modalities is not _NONE and b'"audio"' in bytes(fields.modalities)):
        needs.append("audio")
    if fields.response_format is not _NONE:
        wanted = _loads(fields.response_format)
        if isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema"):
            needs.append("json")
    if _is_something(fields.logprobs):
        needs.append("logprobs")
    needs += _servers(fields.tools)
    if _is_something(fields.tools) or _is_something(fields.functions):
        needs.append("tools")
    if "image_url" in kinds or (is_native and "image" in kinds):
        needs.append("vision")
    return tuple(needs)


def _is_native(needs: tuple[str, ...]) -> bool:
    return bool(needs) and needs[0].startswith(API_NEED)


def _servers(tools: msgspec.Raw) -> list[str]:
    """The needs for the servers that tools of type ``mcp`` name, sorted."""
    if tools is _NONE or b"mcp" not in bytes(tools):
        return []
    found = _decode(tools)
    labels = {
        each["server_label"]
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict) and each.get("type") == "mcp" and _is_label(each.get("server_label"))
    }
    return [f"{MCP_NEED}{label}" for label in sorted(labels)[:MAX_LABELS]]


def _part_types(messages: list[_Message]) -> Collection[object]:
    """Of what types the parts of the messages are, with those in results of tools; none for plain texts."""
    found: set[object] = set()
    for message in messages:
        content = message.content
        if content is not _NONE and memoryview(content)[0] == _LIST:
            for part in _decode(content):
                if isinstance(part, dict) and isinstance(part.get("type"), str):
                    found.add(part["type"])
                    inner = part.get("content") if part["type"] == "tool_result" else None
                    found |= {str(each.get("type")) for each in _list(inner) if isinstance(each, dict)}
    return found


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_something(raw: msgspec.Raw) -> bool:
    return raw is not _NONE and bytes(raw) not in _NOTHING


def _loads(raw: msgspec.Raw) -> Any:
    return _decode(raw) if raw is not _NONE else None


def _is_label(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_LABEL_CHARS and value.isprintable()


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS


def _hints(metadata: dict[str, Any]) -> Hints:
    found: dict[str, str | float] = {}
    for name, value in metadata.items():
        if (
            len(found) < MAX_HINTS
            and 0 < len(name) <= MAX_HINT_CHARS
            and isinstance(value, str)
            and len(value) <= MAX_HINT_CHARS
            and (name + value).isprintable()
        ):
            found[name] = value
    return found or NO_HINTS
