"""CDR packers for flat structs, compiled from the wire types.

Cyclone's Python library walks a tree of objects for every member of every sample; for the types of this transport
the same bytes come from one ``struct`` call for all the numbers and one ``join`` for all the strings. A codec
is a pair of generated functions, and a test proves their bytes identical to the library's.

A type must hold its numbers first, widest first, then strings, then sequences of strings: nothing then needs padding
except the end of a string.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

from cyclonedds.idl.types import int32, int64, sequence, uint64

_NUMBERS: dict[Any, str] = {uint64: "Q", int64: "q", int32: "i", bool: "?"}
HEADER = b"\x00\x01\x00\x00"
"""Plain CDR version 1, little endian."""

_LENGTH = struct.Struct("<I")
_PADDING = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")
"""What follows a string of ``length & 3``: its terminator and the way to the next multiple of four."""


LONG = 65536
"""Bytes of a sample whose texts are not copied before they are decoded."""

KNOWN_RESTS, KNOWN_BYTES = 256, 512
"""Rare members that are kept decoded, and the most bytes of each: all tasks of one caller have the same."""

UNPACKABLE = (struct.error, UnicodeEncodeError, OverflowError, TypeError, AttributeError)
"""What a sample raises that cannot be packed: its values have the wrong type, or do not fit."""


class Malformed(Exception):
    """A sample that is not what its type says."""


class Codec(NamedTuple):
    """``pack(*members) -> bytes`` and ``unpack(bytes) -> members``, both in the order of the type.

    ``pack`` raises one of `UNPACKABLE` for a number out of its range, text that has no UTF-8, or what is neither;
    ``unpack`` raises `Malformed`.
    """

    pack: Callable[..., bytes]
    unpack: Callable[[bytes], tuple[Any, ...]]


def codec(cls: type, rare: str = "") -> Codec:
    """Compile the codec of a wire type. Raises `TypeError` when its members are not in packing order.

    ``rare`` names the first of the last members (strings, and all sequences) that are empty as a rule, or the same in
    many samples: they cost less then.
    """
    hints = get_type_hints(cls, include_extras=True)
    members = [(field.name, hints[field.name]) for field in dataclasses.fields(cls)]
    numbers = [name for name, hint in members if hint in _NUMBERS]
    strings = [name for name, hint in members if hint is str]
    lists = [name for name, hint in members if hint == sequence[str]]
    if [name for name, _ in members] != numbers + strings + lists:
        raise TypeError(f"{cls.__name__}: numbers come first, then strings, then sequences of strings, nothing else")
    layout = "<" + "".join(_NUMBERS[hint] for _, hint in members[: len(numbers)])
    if struct.calcsize(layout) != struct.calcsize("@" + layout[1:]):
        raise TypeError(f"{cls.__name__}: the widest numbers come first")
    head = struct.Struct(layout + "x" * (-struct.calcsize(layout) % 4))
    scope: dict[str, Any] = {
        "head": head.pack,
        "unhead": head.unpack_from,
        "length": _LENGTH.pack,
        "unlength": _LENGTH.unpack_from,
        "padding": _PADDING,
        "header": HEADER,
        "Malformed": Malformed,
        "foreign": lambda data: _foreign(cls, data),
        "errors": (struct.error, UnicodeDecodeError),
        "view": memoryview,
    }
    common = strings.index(rare) if rare else len(strings)
    source = _pack_source(numbers, strings, lists, common)
    behind, nothing = lists, ""
    if rare:
        behind, nothing = [], ", ".join(['""'] * len(strings[common:]) + ["()"] * len(lists))
    source += _unpack_source("unpack", numbers, strings[:common], behind, head.size, nothing)
    # The same, copying a text once instead of twice: that is quicker for long ones alone.
    source += _unpack_source("unpack_long", numbers, strings[:common], behind, head.size, nothing)
    if rare:
        scope |= {"empty": _packed_text(""), "none": _packed_texts(()), "text": _packed_text, "texts": _packed_texts}
        scope["empty_rest"] = scope["empty"] * (len(strings) - common) + scope["none"] * len(lists)
        source += _rest_source(strings[common:], lists)
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), scope)
    if rare:
        scope["known_rest"] = lru_cache(KNOWN_RESTS)(scope["unpack_rest"])
    return Codec(scope["pack"], scope["unpack"])


def _packed_text(text: str) -> bytes:
    encoded = text.encode()
    return b"".join((_LENGTH.pack(len(encoded) + 1), encoded, _PADDING[len(encoded) & 3]))


def _packed_texts(texts: Sequence[str]) -> bytes:
    return b"".join((_LENGTH.pack(len(texts)), *map(_packed_text, texts)))


def _pack_source(numbers: list[str], strings: list[str], lists: list[str], common: int) -> str:
    rest = strings[common:]
    lines = [f"def pack({', '.join(numbers + strings + lists)}):"]
    lines += [f"    {name} = {name}.encode()" for name in strings[:common]]
    pieces = ["header", f"head({', '.join(numbers)})"]
    for name in strings[:common]:
        pieces += [f"length(len({name}) + 1)", name, f"padding[len({name}) & 3]"]
    if rest:
        lines += [
            f"    if not ({' or '.join(rest + lists)}):",
            f"        return b''.join(({', '.join([*pieces, 'empty_rest'])}))",
        ]
        pieces += [f"text({name}) if {name} else empty" for name in rest]
        pieces += [f"texts({name}) if {name} else none" for name in lists]
        lists = []
    for name in lists:
        lines += [
            f"    parts_{name} = []",
            f"    for each in {name}:",
            "        each = each.encode()",
            f"        parts_{name} += (length(len(each) + 1), each, padding[len(each) & 3])",
        ]
        pieces += [f"length(len({name}))", f"*parts_{name}"]
    return "\n".join([*lines, f"    return b''.join(({', '.join(pieces)}))", ""])


def _unpack_source(
    function: str, numbers: list[str], strings: list[str], lists: list[str], size: int, nothing: str
) -> str:
    """Reads a sample whose numbers take ``size`` bytes. Where there are rare members, `_rest_source` reads them, and
    ``nothing`` is what they are when all are empty."""
    read, begin, rest = "str(data[at + 4 : at + 3 + size], 'utf-8')", ["    data = view(data)"], "bytes(data[at:])"
    if function == "unpack":
        read, rest = "data[at + 4 : at + 3 + size].decode()", "data[at:]"
        begin = [f"    if len(data) > {LONG}:", "        return unpack_long(data)"]
    lines = [
        f"def {function}(data):",
        "    if data[:2] != header[:2]:",
        "        return foreign(data)",
        *begin,
        "    try:",
        f"        {', '.join(numbers)}, = unhead(data, 4)",
        f"        at = {4 + size}",
        *(f"        {line}" for line in _read_members(strings, lists, read)),
    ]
    given = ", ".join(numbers + strings + lists)
    if nothing:
        known = f"known_rest(rest) if len(rest) <= {KNOWN_BYTES} else unpack_rest(rest)"
        lines += [
            f"        rest = {rest}",
            "        if rest == empty_rest:",
            f"            return {given}, {nothing},",
            f"        return {given}, *({known}),",
        ]
    lines += ["    except errors as error:", "        raise Malformed(str(error)) from error"]
    if not nothing:
        lines += [*_CHECK_END, f"    return {given},"]
    return "\n".join([*lines, ""])


def _rest_source(strings: list[str], lists: list[str]) -> str:
    """Reads the rare members from where they begin, at a multiple of four."""
    read = _read_members(strings, lists, "data[at + 4 : at + 3 + size].decode()")
    lines = ["def unpack_rest(data):", "    at = 0", *(f"    {line}" for line in read), *_CHECK_END]
    return "\n".join([*lines, f"    return {', '.join(strings + lists)},", ""])


_CHECK_END = (
    "    if at > len(data) + 3:",
    "        raise Malformed(f'{len(data)} bytes where {at} are announced')",
)


def _read_members(strings: list[str], lists: list[str], read: str) -> list[str]:
    lines = []
    for name in strings:
        lines += ["size, = unlength(data, at)", f"{name} = {read}", "at = at + size + 7 & ~3"]
    for name in lists:
        lines += [
            "count, = unlength(data, at)",
            "at += 4",
            "found = []",
            "for _ in range(count):",
            "    size, = unlength(data, at)",
            f"    found.append({read})",
            "    at = at + size + 7 & ~3",
            f"{name} = tuple(found)",
        ]
    return lines


def _foreign(cls: Any, data: bytes) -> tuple[Any, ...]:
    """Another byte order or CDR version: rare (no peer of ours writes it), so the library may take its time."""
    if len(data) <= len(HEADER):
        raise Malformed(f"{len(data)} bytes are no {cls.__name__}")
    try:
        sample = cls.deserialize(data)
    except Exception as error:
        raise Malformed(f"not readable as {cls.__name__}: {error}") from error
    values = (getattr(sample, field.name) for field in dataclasses.fields(cls))
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)
