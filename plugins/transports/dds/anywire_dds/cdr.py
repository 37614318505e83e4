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
KNOWN_TEXTS = 256
"""Texts that are kept encoded, of `KNOWN_BYTES` characters each."""

UNPACKABLE = (struct.error, UnicodeEncodeError, OverflowError, TypeError, AttributeError)
"""What a sample raises that cannot be packed: its values have the wrong type, or do not fit."""


class Malformed(Exception):
    """A sample that is not what its type says."""


class Usual(NamedTuple):
    """What most samples of a type have in common: it costs less then, and changes nothing else.

    ``alike`` are its first strings, each as long in one sample as in the next, ``known`` strings that are the same in
    many samples, ``empty`` strings behind the first ones that are empty. ``rare`` names the first of its last members
    (strings, and all sequences) that are empty or the same in many samples.
    """

    alike: Sequence[str] = ()
    known: Sequence[str] = ()
    empty: Sequence[str] = ()
    rare: str = ""


NOTHING_USUAL = Usual()


class Codec(NamedTuple):
    """``pack(*members) -> bytes`` and ``unpack(bytes) -> members``, both in the order of the type.

    ``pack`` raises one of `UNPACKABLE` for a number out of its range, text that has no UTF-8, or what is neither;
    ``unpack`` raises `Malformed`.
    """

    pack: Callable[..., bytes]
    unpack: Callable[[bytes], tuple[Any, ...]]


def codec(cls: type, usual: Usual = NOTHING_USUAL) -> Codec:
    """Compile the codec of a wire type. Raises `TypeError` when its members are not in packing order."""
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
    rare, alike = usual.rare, list(usual.alike)
    if strings[: len(alike)] != alike:
        raise TypeError(f"{cls.__name__}: its first strings are not {', '.join(alike)}")
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
        "shorter": struct.error,
        "view": memoryview,
        "text": _packed_text,
        "known": lru_cache(KNOWN_TEXTS)(_packed_text),
        "empty": _packed_text(""),
        "empties": [_packed_text("") * count for count in range(len(strings))],
    }
    common = strings.index(rare) if rare else len(strings)
    source = _pack_source(numbers, strings, lists, common, usual)
    behind, nothing = lists, ""
    if rare:
        behind, nothing = [], ", ".join(['""'] * len(strings[common:]) + ["()"] * len(lists))
    source += _unpack_source("unpack", numbers, strings[:common], behind, head.size, nothing, usual)
    # The same, copying a text once instead of twice: that is quicker for long ones alone.
    source += _unpack_source("unpack_long", numbers, strings[:common], behind, head.size, nothing)
    if rare:
        scope |= {"none": _packed_texts(()), "texts": _packed_texts}
        scope["empty_rest"] = scope["empty"] * (len(strings) - common) + scope["none"] * len(lists)
        source += _rest_source(strings[common:], lists)
    if alike:
        scope |= {"learn": _Shape(layout, len(alike), scope).learn}
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), scope)
    if rare:
        scope["known_rest"] = lru_cache(KNOWN_RESTS)(scope["unpack_rest"])
    return Codec(scope["pack"], scope["unpack"])


class _Shape:
    """Reads the numbers of a sample and its first strings in one step, where these are as long as those of the last two
    samples that were not as expected: ``unshaped`` of the codec's ``scope``, ``sizes`` and ``behind``."""

    def __init__(self, layout: str, strings: int, scope: dict[str, Any]) -> None:
        self._layout, self._scope = layout, scope
        self._missed: tuple[int, ...] = ()
        self._take((1,) * strings)

    def learn(self, sizes: tuple[int, ...]) -> None:
        """A sample had first strings of these sizes, their terminators included."""
        if sizes == self._missed and min(sizes) > 0 and sum(sizes) <= KNOWN_BYTES:
            self._take(sizes)
        self._missed = sizes

    def _take(self, sizes: tuple[int, ...]) -> None:
        pad = "x" * (-struct.calcsize(self._layout) % 4)
        parts = [f"I{size - 1}s{'x' * (1 + -size % 4)}" for size in sizes]
        read = struct.Struct(self._layout + pad + "".join(parts))
        self._scope |= {"unshaped": read.unpack_from, "sizes": sizes, "behind": len(HEADER) + read.size}


def _packed_text(text: str) -> bytes:
    encoded = text.encode()
    return b"".join((_LENGTH.pack(len(encoded) + 1), encoded, _PADDING[len(encoded) & 3]))


def _packed_texts(texts: Sequence[str]) -> bytes:
    return b"".join((_LENGTH.pack(len(texts)), *map(_packed_text, texts)))


def _pack_source(numbers: list[str], strings: list[str], lists: list[str], common: int, usual: Usual) -> str:
    rest = strings[common:]
    lines = [f"def pack({', '.join(numbers + strings + lists)}):"]
    pieces = ["header", f"head({', '.join(numbers)})"]
    for name in strings[:common]:
        if name in usual.known:
            pieces.append(f"known({name}) if len({name}) <= {KNOWN_BYTES} else text({name})")
        elif name in usual.empty:
            pieces.append(f"text({name}) if {name} else empty")
        else:
            lines.append(f"    {name} = {name}.encode()")
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
    function: str,
    numbers: list[str],
    strings: list[str],
    lists: list[str],
    size: int,
    nothing: str,
    usual: Usual = NOTHING_USUAL,
) -> str:
    """Reads a sample whose numbers take ``size`` bytes. Where there are rare members, `_rest_source` reads them, and
    ``nothing`` is what they are when all are empty. With ``usual`` it looks for that first."""
    read, begin, rest = "str(data[at + 4 : at + 3 + size], 'utf-8')", ["    data = view(data)"], "bytes(data[at:])"
    if function == "unpack":
        read, rest = "data[at + 4 : at + 3 + size].decode()", "data[at:]"
        begin = [f"    if len(data) > {LONG}:", "        return unpack_long(data)"]
    alike = list(usual.alike)
    others = _read_strings(strings[len(alike) :], usual.empty, read) + _read_members([], lists, read)
    one_by_one = [f"{', '.join(numbers)}, = unhead(data, 4)", f"at = {4 + size}", *_read_members(alike, [], read, "s_")]
    if alike:
        sizes = f"({', '.join(f's_{name}' for name in alike)},)"
        shaped = ", ".join([*numbers, *(f"s_{name}, {name}" for name in alike)])
        one_by_one = [
            "try:",
            f"    {shaped}, = unshaped(data, 4)",
            f"    is_usual = {sizes} == sizes",
            "except shorter:",
            "    is_usual = False",
            "if is_usual:",
            *(f"    {name} = {name}.decode()" for name in alike),
            "    at = behind",
            "else:",
            *(f"    {line}" for line in one_by_one),
            f"    learn({sizes})",
        ]
    lines = [
        f"def {function}(data):",
        "    if data[:2] != header[:2]:",
        "        return foreign(data)",
        *begin,
        "    try:",
        *(f"        {line}" for line in one_by_one + others),
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


def _read_members(strings: list[str], lists: list[str], read: str, keeps: str = "") -> list[str]:
    """Reads them from ``at`` on. With ``keeps`` the size of each string stays in a variable that begins so."""
    lines = []
    for name in strings:
        lines += ["size, = unlength(data, at)", f"{name} = {read}", "at = at + size + 7 & ~3"]
        if keeps:
            lines.append(f"{keeps}{name} = size")
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


def _read_strings(strings: list[str], empty: Sequence[str], read: str) -> list[str]:
    """As `_read_members`. Looks first whether those are empty that mostly are and stand together; before that at all of
    these strings, where the first is such a one."""
    lines, together = [], list[str]()
    for name in strings:
        if name in empty:
            together.append(name)
            continue
        lines += _unless_empty(together, read) + _read_members([name], [], read)
        together = []
    lines += _unless_empty(together, read)
    return _unless_empty(strings, read, lines) if strings[:1] and strings[0] in empty else lines


def _unless_empty(strings: list[str], read: str, otherwise: list[str] | None = None) -> list[str]:
    """Reads strings one by one, or as ``otherwise`` says, unless all of them are empty."""
    if not strings:
        return []
    size = 8 * len(strings)
    return [
        f"if data[at : at + {size}] == empties[{len(strings)}]:",
        f"    {' = '.join(strings)} = ''",
        f"    at += {size}",
        "else:",
        *(f"    {line}" for line in (otherwise or _read_members(strings, [], read))),
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
