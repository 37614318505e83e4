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
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

from cyclonedds.idl.types import int32, int64, sequence, uint64

_NUMBERS: dict[Any, str] = {uint64: "Q", int64: "q", int32: "i", bool: "?"}
HEADER = b"\x00\x01\x00\x00"
"""Plain CDR version 1, little endian."""

_PADDING = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")
"""What follows a string of ``length & 3``: its terminator and the way to the next multiple of four."""


LONG = 65536
"""Bytes of a sample whose texts are not copied before they are decoded."""

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

    ``rare`` names the first of the last members (strings, and all sequences) that are all empty as a rule: they cost
    less then.
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
    length = struct.Struct("<I")
    scope: dict[str, Any] = {
        "head": head.pack,
        "unhead": head.unpack_from,
        "length": length.pack,
        "unlength": length.unpack_from,
        "padding": _PADDING,
        "header": HEADER,
        "Malformed": Malformed,
        "foreign": lambda data: _foreign(cls, data),
        "errors": (struct.error, UnicodeDecodeError),
        "view": memoryview,
    }
    common = strings.index(rare) if rare else len(strings)
    if rare:
        empty = length.pack(1) + _PADDING[0]
        scope["empty_rest"] = empty * (len(strings) - common) + length.pack(0) * len(lists)
    source = _pack_source(numbers, strings, lists, common)
    source += _unpack_source("unpack", numbers, strings, lists, common, head.size)
    # The same, copying a text once instead of twice: that is quicker for long ones alone.
    source += _unpack_source("unpack_long", numbers, strings, lists, common, head.size)
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), scope)
    return Codec(scope["pack"], scope["unpack"])


def _pack_source(numbers: list[str], strings: list[str], lists: list[str], common: int) -> str:
    rest = strings[common:] + (lists if strings[common:] else [])
    lines = [f"def pack({', '.join(numbers + strings + lists)}):"]
    lines += [f"    {name} = {name}.encode()" for name in strings[:common]]
    pieces = ["header", f"head({', '.join(numbers)})"]
    for name in strings[:common]:
        pieces += _string_pieces(name)
    if rest:
        lines += [
            f"    if not ({' or '.join(rest)}):",
            f"        return b''.join(({', '.join([*pieces, 'empty_rest'])}))",
        ]
    for name in strings[common:]:
        lines += [f"    {name} = {name}.encode()"]
        pieces += _string_pieces(name)
    for name in lists:
        lines += [
            f"    parts_{name} = []",
            f"    for each in {name}:",
            "        each = each.encode()",
            f"        parts_{name} += (length(len(each) + 1), each, padding[len(each) & 3])",
        ]
        pieces += [f"length(len({name}))", f"*parts_{name}"]
    return "\n".join([*lines, f"    return b''.join(({', '.join(pieces)}))", ""])


def _string_pieces(name: str) -> list[str]:
    return [f"length(len({name}) + 1)", name, f"padding[len({name}) & 3]"]


def _unpack_source(name: str, numbers: list[str], strings: list[str], lists: list[str], common: int, size: int) -> str:
    read, begin = "str(data[at + 4 : at + 3 + size], 'utf-8')", ["    data = view(data)"]
    if name == "unpack":
        read = "data[at + 4 : at + 3 + size].decode()"
        begin = [f"    if len(data) > {LONG}:", "        return unpack_long(data)"]
    lines = [
        f"def {name}(data):",
        "    if data[:2] != header[:2]:",
        "        return foreign(data)",
        *begin,
        "    try:",
        f"        {', '.join(numbers)}, = unhead(data, 4)",
        f"        at = {4 + size}",
    ]
    for name in strings[:common]:
        lines += _read_string(name, read)
    if strings[common:]:
        nothing = ['""'] * len(strings[common:]) + ["()"] * len(lists)
        given = numbers + strings[:common] + nothing
        lines += ["        if data[at:] == empty_rest:", f"            return {', '.join(given)},"]
    for name in strings[common:]:
        lines += _read_string(name, read)
    for name in lists:
        lines += [
            "        count, = unlength(data, at)",
            "        at += 4",
            "        found = []",
            "        for _ in range(count):",
            "            size, = unlength(data, at)",
            f"            found.append({read})",
            "            at = at + size + 7 & ~3",
            f"        {name} = tuple(found)",
        ]
    lines += [
        "    except errors as error:",
        "        raise Malformed(str(error)) from error",
        "    if at > len(data) + 3:",
        "        raise Malformed(f'{len(data)} bytes where {at} are announced')",
        f"    return {', '.join(numbers + strings + lists)},",
        "",
    ]
    return "\n".join(lines)


def _read_string(name: str, read: str) -> list[str]:
    return [
        "        size, = unlength(data, at)",
        f"        {name} = {read}",
        "        at = at + size + 7 & ~3",
    ]


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
