"""CDR packers for flat structs, compiled from the wire types.

Cyclone's Python library walks a tree of objects for every member of every sample; for the types of this transport
the same bytes come from one ``struct`` call for all the numbers and one ``join`` for all the strings. A codec
is a pair of generated functions, and a test proves their bytes identical to the library's.

A type must hold its numbers first, widest first, then strings, then sequences of strings: nothing then needs padding
except the end of a string.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import sys
from collections.abc import Callable, Collection, Sequence
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

KNOWN_TEXTS, KNOWN_CHARS = 256, 64
"""Texts that come again which are kept packed, of each member together, and the most characters of one."""

_IS_LITTLE = sys.byteorder == "little"

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


def codec(cls: type, rare: str = "", again: Collection[str] = (), empty: Collection[str] = ()) -> Codec:
    """Compile the codec of a wire type. Raises `TypeError` when its members are not in packing order.

    ``rare`` names the first of the last members (strings, and all sequences) that are empty as a rule, or the same in
    many samples: they cost less then. So do strings in front of these whose texts come again and again (``again``), and
    those that are empty as a rule (``empty``).
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
        "errors": (struct.error, UnicodeDecodeError, IndexError),
        "view": memoryview,
        "text": _packed_text,
        "texts": _packed_texts,
        "known": lru_cache(KNOWN_TEXTS)(_packed_text),
        "nothing": _NOTHING,
        "read_texts": _read_texts,
    }
    common = strings.index(rare) if rare else len(strings)
    source = _pack_source(numbers, strings, lists, common, again, empty)
    behind, nothing = lists, ""
    if rare:
        behind, nothing = [], ", ".join(['""'] * len(strings[common:]) + ["()"] * len(lists))
    source += _unpack_source("unpack", numbers, strings[:common], behind, head.size, nothing, empty)
    # The same, copying a text once instead of twice: that is quicker for long ones alone.
    source += _unpack_source("unpack_long", numbers, strings[:common], behind, head.size, nothing, empty)
    if rare:
        scope["none"] = _packed_texts(())
        scope["empty_rest"] = _NOTHING * (len(strings) - common) + scope["none"] * len(lists)
        source += _rest_source(strings[common:], lists)
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), scope)
    if rare:
        scope["known_rest"] = lru_cache(KNOWN_RESTS)(scope["unpack_rest"])
    return Codec(scope["pack"], scope["unpack"])


def _packed_text(text: str) -> bytes:
    encoded = text.encode()
    return b"".join((_LENGTH.pack(len(encoded) + 1), encoded, _PADDING[len(encoded) & 3]))


_NOTHING = _packed_text("")
_SHORT = tuple(chr(size + 1) + "\0\0\0" for size in range(127))
"""What precedes an ASCII text of that length, as text: with these, many are packed by one join and one encoding."""
_ENDS = tuple(each.decode() for each in _PADDING)


def _packed_texts(texts: Sequence[str]) -> bytes:
    count = _LENGTH.pack(len(texts))
    if len(texts) > 1:
        with contextlib.suppress(IndexError):  # one is long
            text = "".join([part for each in texts for part in (_SHORT[len(each)], each, _ENDS[len(each) & 3])])
            if text.isascii():
                return count + text.encode()
    return b"".join((count, *map(_packed_text, texts)))


def _read_texts(data: Any, at: int) -> tuple[tuple[str, ...], int]:
    """A sequence of strings, and where what follows it begins. Raises what a codec takes for malformed."""
    (count,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    found = []
    if count > 1 and _IS_LITTLE and not len(data) & 3:
        rest = memoryview(data)[at:]
        text = str(rest, "latin-1")
        if text and text.isascii():  # then characters are bytes, and one decoding is enough for all
            lengths, place = rest.cast("I"), 0
            for _ in range(count):
                size = lengths[place >> 2]
                found.append(text[place + 4 : place + 3 + size])
                place = place + size + 7 & ~3
            return tuple(found), at + place
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, at)
        found.append(str(data[at + 4 : at + 3 + size], "utf-8"))
        at = at + size + 7 & ~3
    return tuple(found), at


def _pack_source(
    numbers: list[str], strings: list[str], lists: list[str], common: int, again: Collection[str], empty: Collection[str]
) -> str:
    rest = strings[common:]
    lines = [f"def pack({', '.join(numbers + strings + lists)}):"]
    pieces = ["header", f"head({', '.join(numbers)})"]
    for name in strings[:common]:
        if name in again:
            pieces.append(f"known({name}) if len({name}) <= {KNOWN_CHARS} else text({name})")
        elif name in empty:
            pieces.append(f"text({name}) if {name} else nothing")
        else:
            lines.append(f"    {name} = {name}.encode()")
            pieces += [f"length(len({name}) + 1)", name, f"padding[len({name}) & 3]"]
    if rest:
        lines += [
            f"    if not ({' or '.join(rest + lists)}):",
            f"        return b''.join(({', '.join([*pieces, 'empty_rest'])}))",
        ]
        pieces += [f"text({name}) if {name} else nothing" for name in rest]
        pieces += [f"texts({name}) if {name} else none" for name in lists]
    else:
        pieces += [f"texts({name})" for name in lists]
    return "\n".join([*lines, f"    return b''.join(({', '.join(pieces)}))", ""])


def _unpack_source(
    function: str,
    numbers: list[str],
    strings: list[str],
    lists: list[str],
    size: int,
    nothing: str,
    empty: Collection[str],
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
        *(f"        {line}" for line in _read_members(strings, lists, read, empty)),
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
    read = _read_members(strings, lists, "data[at + 4 : at + 3 + size].decode()", ())
    lines = ["def unpack_rest(data):", "    at = 0", *(f"    {line}" for line in read), *_CHECK_END]
    return "\n".join([*lines, f"    return {', '.join(strings + lists)},", ""])


_CHECK_END = (
    "    if at > len(data) + 3:",
    "        raise Malformed(f'{len(data)} bytes where {at} are announced')",
)


def _read_members(strings: list[str], lists: list[str], read: str, empty: Collection[str]) -> list[str]:
    lines = []
    for name in strings:
        reading = ["size, = unlength(data, at)", f"{name} = {read}", "at = at + size + 7 & ~3"]
        if name in empty:
            lines += [f"if data[at : at + {len(_NOTHING)}] == nothing:", f"    {name}, at = '', at + {len(_NOTHING)}"]
            lines += ["else:", *(f"    {line}" for line in reading)]
        else:
            lines += reading
    lines += [f"{name}, at = read_texts(data, at)" for name in lists]
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
