"""From a request's bytes to a checked task: what is wrong, where, and what was expected instead."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from anywire.errors import InvalidRequest
from anywire.large_body import LARGE_BYTES, read_large_body
from anywire.messages import Kind
from anywire_gateway_openai import chat_schema, text_schema

Checked = chat_schema.ChatRequest | text_schema.CompletionRequest | text_schema.EmbeddingRequest

_DECODERS: dict[Kind, msgspec.json.Decoder[Any]] = {
    "chat": chat_schema.decoder,
    "completion": text_schema.completion_decoder,
    "embedding": text_schema.embedding_decoder,
}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_members = msgspec.json.Decoder(dict[str, Any])

TOO_DEEP = "the body is nested too deeply"

Fields = TypeVar("Fields")
Members = dict[str, Any]


class CheckedBody(NamedTuple):
    """The fields of a request, its text, and the text's outline where it is large."""

    fields: Checked
    text: str
    outline: str = ""


class CheckedChat(NamedTuple):
    """As `CheckedBody`."""

    fields: chat_schema.ChatRequest
    text: str
    outline: str = ""


async def check(kind: Kind, body: bytes, max_bytes: int) -> CheckedBody:
    """Check the body of a request, of at most ``max_bytes`` bytes. A large one is read in pieces, between which the
    event loop runs; see `anywire.large_body`. Raises `InvalidRequest`, and `PayloadTooLarge` for a large body that
    exceeds a bound."""
    decoder = _DECODERS[kind]
    return CheckedBody(*(_check_small(decoder, body) or await _check(decoder, body, max_bytes)))


async def check_streamed_chat(body: bytes, max_bytes: int) -> CheckedChat:
    """The same for a chat request that is streamed when it does not say otherwise. Raises as `check` does."""
    decoder = chat_schema.streamed_decoder
    return CheckedChat(*(_check_small(decoder, body) or await _check(decoder, body, max_bytes)))


class CheckedFields(NamedTuple, Generic[Fields]):
    """As `CheckedBody`, of a request of another form: where there is an outline, long strings of the fields are cut."""

    fields: Fields
    text: str
    outline: str


async def check_fields(decoder: msgspec.json.Decoder[Fields], body: bytes, max_bytes: int) -> CheckedFields[Fields]:
    """The same for a request of another form: its fields as ``decoder`` has them."""
    return CheckedFields(*await _check(decoder, body, max_bytes))


async def members_of(decoder: msgspec.json.Decoder[Fields], checked: CheckedFields[Fields]) -> tuple[Fields, Members]:
    """The whole fields of a request, and all of its members. Raises `InvalidRequest` for a number that is too large to
    be read."""
    fields, text, outline = checked
    whole = text.encode()
    if outline:
        await asyncio.sleep(0)
        fields = _decoded(decoder, whole)
        await asyncio.sleep(0)
    return fields, _decoded(_any_members, whole)


async def check_members(decoder: msgspec.json.Decoder[Fields], body: bytes, max_bytes: int) -> tuple[Fields, Members]:
    """Both: check a request of another form, and read all of it."""
    return await members_of(decoder, await check_fields(decoder, body, max_bytes))


async def _check(decoder: msgspec.json.Decoder[Any], body: bytes, max_bytes: int) -> tuple[Any, str, str]:
    small = _check_small(decoder, body)
    if small is not None:
        return small
    try:
        text, outline = await read_large_body(body.removeprefix(codecs.BOM_UTF8), max_bytes)
        await asyncio.sleep(0)
        fields = _decoded(decoder, outline.encode())
        await asyncio.sleep(0)
        _check_duplicates(outline.encode())
        await asyncio.sleep(0)
    except RecursionError as error:  # of any of the looks at it
        raise InvalidRequest(TOO_DEEP) from error
    return fields, text, outline


def _check_small(decoder: msgspec.json.Decoder[Any], body: bytes) -> tuple[Any, str, str] | None:
    """Check a body; None for one that is to be read in pieces."""
    if body[:3] == codecs.BOM_UTF8:  # some clients write one, and JSON's standard lets it be passed over
        body = body[3:]
    if len(body) > LARGE_BYTES:
        return None
    try:
        return _read(decoder, body)
    except RecursionError as error:
        raise InvalidRequest(TOO_DEEP) from error


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> tuple[Any, str, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    fields = _decoded(decoder, body)
    _check_duplicates(body)
    if b"\\u" in body and _HALF.search(body):
        _check_characters(body)
    return fields, text, ""


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except msgspec.DecodeError as error:
        raise unreadable(body, error, "the body is not valid JSON: ") from error


def unreadable(body: bytes, error: Exception, said_before: str) -> InvalidRequest:
    """What tells the client why its body cannot be read as JSON, where ``error`` came of it: the place of half a
    character, or else the fault after ``said_before``."""
    if _HALF.search(body):
        try:
            _check_characters(body)
        except InvalidRequest as found:
            return found
        except (ValueError, RecursionError):
            pass  # no JSON in any case
    return InvalidRequest(
        said_before + (_diagnose(body, error) if isinstance(error, msgspec.DecodeError) else str(error))
    )


def _check_duplicates(body: bytes) -> None:
    """Refuse a field given twice: gateway and engine might each believe another one.

    Every member takes at least its own length, so a body as long as its distinct members in the most compact
    form has no other. Spaces are taken out where there are any. Only names with escapes or characters outside of ASCII
    need the slow look.
    """
    if _is_sum_of_members(body) or _is_sum_of_members(msgspec.json.format(body, indent=-1)):
        return
    seen = set()
    for name, _ in json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str):
        if name in seen:
            raise InvalidRequest(f"{name} is given more than once", param=name)
        seen.add(name)


def _is_sum_of_members(body: bytes) -> bool:
    members = _members.decode(body)
    # Quotes and colon of each member, the commas between them, the two braces: 4 per member and 1.
    return sum(map(len, members)) + sum(map(len, members.values())) + 4 * len(members) + 1 == len(body)


_HALF = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL)
"""What may be half of a surrogate pair, or follow a backslash that is one itself."""


def _check_characters(body: bytes) -> None:
    """Refuse half of a surrogate pair, which no engine can read. It is named by its place."""
    waiting: list[tuple[str, Any]] = [("", json.loads(body, parse_int=str, parse_float=str))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and not _is_unicode(value):
            raise InvalidRequest(f"{path} holds half a surrogate pair, which is no character", param=path)
        if isinstance(value, dict):
            if not all(map(_is_unicode, value)):
                raise InvalidRequest(f"a name in {path or 'the body'} holds half a surrogate pair", param=path)
            waiting += [(_join(path, name), each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{at}]", each) for at, each in enumerate(value)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_FAULT = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key in )?\$\.?(?P<path>.*)`)?", re.DOTALL)
_OWN = re.compile(r"`(?P<field>\w+)` (?P<what>.*)", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`")
_EXPECTED = re.compile(r"Expected `(?P<type>[^`]*)`(?: of length (?P<length>[<>=]+ \d+)| (?P<range>[<>=]+ \S+))?"
                       r"(?:, got `(?P<got>\w+)`)?")  # fmt: skip
_JSON_TYPES = {"str": "a string", "int": "an integer", "float": "a number", "bool": "true or false",
               "array": "a list", "object": "an object"}  # fmt: skip
_BOUNDS = {">=": "at least", "<=": "at most"}


def _invalid(fault: str) -> InvalidRequest:
    """A validation fault in a client's words, its ``param`` the way OpenAI writes it (``messages[0].role``)."""
    found = _FAULT.fullmatch(fault)
    what, path = (found["what"], found["path"] or "") if found else (fault, "")
    field = _OWN.fullmatch(what)
    missing = _MISSING.fullmatch(what)
    if field:
        path, what = _join(path, field["field"]), field["what"]
    elif missing:
        path, what = _join(path, missing["field"]), "is required"
    else:
        expected = _EXPECTED.fullmatch(what)
        what = _expected(expected) if expected else f"is not valid: {what}"
    return InvalidRequest(f"{path or 'the body'} {what}", param=path)


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _expected(found: re.Match[str]) -> str:
    kinds = [_JSON_TYPES.get(each, each) for each in found["type"].split(" | ") if each != "null"]
    if not kinds:
        return "must be left out"
    if "a number" in kinds:
        kinds = [each for each in kinds if each != "an integer"]
    if found["length"]:
        sign, size = found["length"].split()
        unit = {"a string": "characters", "a list": "items"}.get(kinds[0], "entries")
        return f"must be {kinds[0]} of {_BOUNDS.get(sign, sign)} {size} {unit}"
    if found["range"]:
        sign, bound = found["range"].split()
        return f"must be {kinds[0]} of {_BOUNDS.get(sign, sign)} {bound.removesuffix('.0')}"
    got = _JSON_TYPES.get(found["got"] or "", found["got"])
    return f"must be {' or '.join(kinds)}, got {'a boolean' if found['got'] == 'bool' else got}"


def _diagnose(body: bytes, error: msgspec.DecodeError) -> str:
    """Where the JSON breaks, by line and column, which the fast decoder does not tell."""
    if not body.strip():
        return "it is empty"
    if len(body) > LARGE_BYTES:
        return str(error)
    try:
        json.loads(body, parse_int=str, parse_float=str)
    except ValueError as found:
        return str(found)
    except RecursionError:
        return str(error)
    # Python's decoder is lenient about exactly these.
    return f"{error} (NaN, Infinity and unpaired surrogates are not JSON)"
