"""Items of conversations: what a client sends and an answer consists of, in the form of OpenAI's Responses API.

One item is a JSON object with a ``type``: ``message``, ``reasoning``, ``function_call`` or ``function_call_output``. A
message's content is a list of parts. Items that are kept have an ``id`` and a ``status``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from anywire.errors import InvalidRequest

_encode = msgspec.json.Encoder().encode

Item = dict[str, Any]

MAX_ITEMS = 10_000
"""Items of one request, of one conversation, and of the history of one response."""
MAX_METADATA = 16
MAX_METADATA_NAME, MAX_METADATA_VALUE = 64, 512
"""Characters."""
PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_", "function_call_output": "fco_"}
"""How the id of an item begins, by its type."""
ROLES = ("user", "system", "developer", "assistant")

SPARE_LEVELS = 48
"""How much deeper than where it is checked what is kept may be written: in other objects, and from other functions."""

NewId = Callable[[str], str]
"""Makes an id that begins with its argument."""


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(16)


def checked_items(given: object, param: str, make_id: NewId = new_id) -> list[Item]:
    """The items as they are kept: each with an id of its own and a status, messages with their content as parts.
    Members that are not known stay as they are. Raises `InvalidRequest` that names the member of ``param`` at fault,
    also for a type that nobody here could give to a model."""
    if not isinstance(given, list):
        raise _wrong(param, "must be a list of items")
    if len(given) > MAX_ITEMS:
        raise _wrong(param, f"has {len(given)} items, at most {MAX_ITEMS} are possible")
    return [_checked(each, f"{param}[{at}]", make_id) for at, each in enumerate(given)]


def user_message(text: str, make_id: NewId = new_id) -> Item:
    """A message of a user, as it is kept."""
    parts = [{"type": "input_text", "text": text}]
    return {
        "id": make_id("msg_"), "type": "message", "role": "user", "status": "completed", "content": parts
    }  # fmt: skip


def checked_metadata(given: object) -> dict[str, str]:
    """At most 16 short texts by name; None gives none. Raises `InvalidRequest`."""
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > MAX_METADATA:
        raise _wrong("metadata", f"must be an object of at most {MAX_METADATA} texts")
    for name, value in given.items():
        if len(name) > MAX_METADATA_NAME or not isinstance(value, str) or len(value) > MAX_METADATA_VALUE:
            raise _wrong(
                f"metadata.{name[:MAX_METADATA_NAME]}",
                f"must be a text of at most {MAX_METADATA_VALUE} characters, with a name of at most "
                f"{MAX_METADATA_NAME}",
            )
    return dict(given)


def check_nesting(value: object) -> None:
    """Refuse what is nested so deeply that it could be read, and not be written once it is to be kept. Raises
    `InvalidRequest`, and `UnicodeEncodeError` for half a character."""
    for _ in range(SPARE_LEVELS):
        value = [value]
    try:
        _encode(value)
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error


def text_of(parts: Sequence[Mapping[str, Any]], *types: str) -> str:
    """The texts of the parts of these types, joined."""
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") in types)


def _checked(given: object, param: str, make_id: NewId) -> Item:
    if not isinstance(given, dict):
        raise _wrong(param, "must be an object")
    kind = given.get("type") or ("message" if "role" in given else "")
    if not isinstance(kind, str) or kind not in PREFIXES:
        known = ", ".join(PREFIXES)
        raise _wrong(f"{param}.type", f"must be one of {known}, got {str(kind)[:64]!r}: others are not supported here")
    item = _CHECKS[kind]({**given, "type": kind}, param)
    return {**item, "id": make_id(PREFIXES[kind])}


def _message(item: Item, param: str) -> Item:
    role = item.get("role")
    if role not in ROLES:
        raise _wrong(f"{param}.role", f"must be one of {', '.join(ROLES)}, got {str(role)[:64]!r}")
    content = item.get("content")
    is_answer = role == "assistant"
    if isinstance(content, str):
        content = [{"type": "output_text" if is_answer else "input_text", "text": content}]
    if not isinstance(content, list):
        raise _wrong(f"{param}.content", "must be a text or a list of parts")
    parts = [_part(each, f"{param}.content[{at}]", is_answer) for at, each in enumerate(content)]
    return {**item, "content": parts, "status": item.get("status") or "completed"}


def _part(given: object, param: str, is_answer: bool) -> Item:
    if not isinstance(given, dict):
        raise _wrong(param, "must be an object")
    kind = given.get("type")
    if kind in ("input_text", "output_text", "text"):
        _text(given, "text", param)
        own: Item = {"type": "output_text", "annotations": given.get("annotations") or []} if is_answer else {}
        return {**given, "type": "input_text", **own}
    if kind == "refusal" and is_answer:
        _text(given, "refusal", param)
        return given
    if is_answer:
        raise _wrong(f"{param}.type", f"must be output_text or refusal in what an assistant said, got {kind!r:.64}")
    if kind == "input_image":
        if given.get("file_id"):
            raise _no_files(param)
        _text(given, "image_url", param)
        return {**given, "detail": given.get("detail") or "auto"}
    if kind == "input_file":
        if given.get("file_id"):
            raise _no_files(param)
        if given.get("file_url"):
            raise _wrong(f"{param}.file_url", "is not supported here: send the file itself as file_data")
        _text(given, "file_data", param)
        return given
    if kind == "input_audio":
        audio = given.get("input_audio")
        if not isinstance(audio, dict):
            raise _wrong(f"{param}.input_audio", "must be an object")
        _text(audio, "data", f"{param}.input_audio")
        _text(audio, "format", f"{param}.input_audio")
        return given
    raise _wrong(f"{param}.type", f"must be input_text, input_image, input_file or input_audio, got {str(kind)[:64]!r}")


def _call(item: Item, param: str) -> Item:
    for member in ("call_id", "name", "arguments"):
        _text(item, member, param)
    return {**item, "status": item.get("status") or "completed"}


def _output(item: Item, param: str) -> Item:
    _text(item, "call_id", param)
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(each, f"{param}.output[{at}]", is_answer=False) for at, each in enumerate(output)]
    elif not isinstance(output, str):
        raise _wrong(f"{param}.output", "must be a text or a list of parts")
    return {**item, "output": output, "status": item.get("status") or "completed"}


def _reasoning(item: Item, param: str) -> Item:
    summary, content = item.get("summary") or [], item.get("content") or []
    for member, parts in (("summary", summary), ("content", content)):
        if not isinstance(parts, list):
            raise _wrong(f"{param}.{member}", "must be a list of parts")
        for at, part in enumerate(parts):
            if not isinstance(part, dict):
                raise _wrong(f"{param}.{member}[{at}]", "must be an object")
            _text(part, "text", f"{param}.{member}[{at}]")
    return {**item, "summary": summary, **({"content": content} if content else {})}


_CHECKS: dict[str, Callable[[Item, str], Item]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "function_call_output": _output,
}


def _text(given: Mapping[str, Any], member: str, param: str) -> None:
    if not isinstance(given.get(member), str):
        raise _wrong(f"{param}.{member}", "must be a text" if given.get(member) is not None else "is required")


def _no_files(param: str) -> InvalidRequest:
    return _wrong(f"{param}.file_id", "is not supported: no files are kept here; send the content itself")


def _wrong(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {what}", param=param)
