"""From a request's bytes to a checked task: what is wrong, where, and what was expected instead."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from anywire.errors import InvalidRequest
from anywire.messages import Kind
from anywire_gateway_openai import chat_schema, text_schema

Checked = chat_schema.ChatRequest | text_schema.CompletionRequest | text_schema.EmbeddingRequest

_DECODERS: dict[Kind, msgspec.json.Decoder[Any]] = {
    "chat": chat_schema.decoder,
    "completion": text_schema.completion_decoder,
    "embedding": text_schema.embedding_decoder,
}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check(kind: Kind, body: bytes) -> tuple[Checked, str]:
    """The fields of a request and its text. Raises `InvalidRequest`."""
    try:
        text = body.decode()
        fields: Checked = _DECODERS[kind].decode(body)
        _check_duplicates(body, text)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {_diagnose(body, error)}") from error
    return fields, text


def _check_duplicates(body: bytes, text: str) -> None:
    """Refuse a field given twice: gateway and engine might each believe another one.

    Every member takes at least its own length, so a body as long as its distinct members in the most compact
    form has no other. Only a body with spaces between its members needs the slow look.
    """
    members = _members.decode(body)
    # Quotes and colon of each member, the commas between them, the two braces: 4 per member and 1.
    if sum(map(len, members)) + sum(map(len, members.values())) + 4 * len(members) + 1 == len(body):
        return
    seen = set()
    for name, _ in json.loads(text, object_pairs_hook=list):
        if name in seen:
            raise InvalidRequest(f"{name} is given more than once", param=name)
        seen.add(name)


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
    try:
        json.loads(body)
    except ValueError as found:
        return str(found)
    # Python's decoder is lenient about exactly these.
    return f"{error} (NaN, Infinity and unpaired surrogates are not JSON)"
