"""types.c for peer.c, generated from the IDL: each struct built from literals, and shown member by member.

A variant is a sample of a struct that is the same in C, where it is compiled from literals, and in Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.c_peers.contract import STRUCTS, Struct

VARIANTS = ("empty", "lowest", "highest", "texts", "long", "large")
LARGE = 1024 * 1024

_TEXTS = (
    "e\u0301 n\u0303 combining",
    "👩‍👩‍👧‍👦 🇪🇺 emoji",
    "漢字 かな 한국어",
    "quotes \" ' \\ and \b\f\n\r\t\x7f??/ controls",
    "עברית \u200f العربية",
    "\ufeff\ufffd\U0010ffff ends of Unicode",
)
_INTEGERS = {
    "long": (-(2**31), 2**31 - 1),
    "long long": (-(2**63), 2**63 - 1),
    "unsigned long": (0, 2**32 - 1),
    "unsigned long long": (0, 2**64 - 1),
}
_REALS = {
    "float": ((-3.4028234663852886e38, 1.401298464324817e-45), (3.4028234663852886e38, 1.1754943508222875e-38)),
    "double": ((-1.7976931348623157e308, 5e-324), (1.7976931348623157e308, 2.2250738585072014e-308)),
}


class Repeated(NamedTuple):
    """A text, or the elements of a sequence, as many times: too much for a literal in C."""

    unit: Any
    times: int


def variant(struct: Struct, name: str) -> dict[str, Any]:
    """The values of a variant by member; `plain` makes values of Python of them. No two members have the same value
    where they can differ, so that two that change places are noticed."""
    large = next((m.name for m in struct.members if m.name == "body"), None) or next(
        (m.name for m in struct.members if m.type == "string" and not m.key), None
    )
    return {
        member.name: _value(struct, member.type, name, salt, member.name == large)
        for salt, member in enumerate(struct.members)
    }


def _value(struct: Struct, type_: str, name: str, salt: int, large: bool) -> Any:
    if type_.startswith("sequence<"):
        elements = [_value(struct, type_[9:-1], name, salt + i, False) for i in range(3)]
        return {"empty": [], "lowest": elements[:1], "long": Repeated(elements, 500)}.get(name, elements)
    if type_ == "boolean":
        return name == "highest" or (name != "empty" and salt % 2 == 0)
    if type_ == "string":
        if name == "empty":
            return ""
        if name == "large" and large:
            return Repeated("1 MiB of näïve text: ", LARGE // len("1 MiB of näïve text: ".encode()) + 1)
        return f"{salt} {_TEXTS[salt % len(_TEXTS)]}"
    if type_ in _INTEGERS:
        lowest, highest = _INTEGERS[type_]
        return {"empty": 0, "lowest": lowest + salt, "highest": highest - salt}.get(name, 1000 + salt)
    if type_ in _REALS:
        lowest_two, highest_two = _REALS[type_]
        return {"empty": 0.0, "lowest": lowest_two[salt % 2], "highest": highest_two[salt % 2]}.get(name, 0.5 + salt)
    return variant(STRUCTS[f"{struct.module}.{type_}"], name)


def plain(value: Any) -> Any:
    match value:
        case Repeated(unit, times):
            return plain(unit) * times
        case list():
            return [plain(each) for each in value]
        case dict():
            return {name: plain(each) for name, each in value.items()}
    return value


def kind_of(struct: Struct) -> str:
    """Which of the QoS that are documented beside the types."""
    if struct.module == "llama":
        return "service_status" if struct.name == "ServerStatus" else "service"
    if struct.name == "AgentStatus":
        return "status"
    return "announcement" if struct.name.endswith("Registration") else "message"


def types_c(headers: list[str]) -> str:
    lines = ['#include "peer.h"', *(f'#include "{header}"' for header in headers), ""]
    for struct in STRUCTS.values():
        name = f"{struct.module}_{struct.name}"
        lines += [f"static void build_{name}(void *sample, int variant) {{", f"  {name} *s = sample;"]
        lines += ["  switch (variant) {"]
        for number, each in enumerate(VARIANTS):
            lines += [f"  case {number}: {{", *_build_members("s->", struct, variant(struct, each)), "  break; }"]
        lines += ["  }", "}", ""]
        lines += [f"static void show_{name}(FILE *out, const void *sample) {{", f"  const {name} *s = sample;"]
        lines += [*_show_members("s->", struct), "}", ""]
    lines += ["const struct type types[] = {"]
    for struct in STRUCTS.values():
        name = f"{struct.module}_{struct.name}"
        kind = kind_of(struct).upper()
        lines.append(f'  {{"{struct.typename}", &{name}_desc, {kind}, build_{name}, show_{name}}},')
    lines += ["};", "const size_t type_count = sizeof types / sizeof *types;", ""]
    return "\n".join(lines)


def _build_members(prefix: str, struct: Struct, values: dict[str, Any], depth: int = 0) -> list[str]:
    return [
        line
        for member in struct.members
        for line in _build(f"{prefix}{member.name}", struct, member.type, values[member.name], depth)
    ]


def _build(target: str, struct: Struct, type_: str, value: Any, depth: int) -> list[str]:
    if not type_.startswith("sequence<"):
        if isinstance(value, dict):
            return _build_members(f"{target}.", STRUCTS[f"{struct.module}.{type_}"], value, depth)
        return [f"  {target} = {_literal(value, type_)};"]
    elements, times = value if isinstance(value, Repeated) else (value, 1)
    if not elements:
        return []
    lines = [f"  make_room(&{target}, {len(elements) * times});"]
    index = f"i{depth}"
    lines += [f"  for (size_t {index} = 0; {index} < {len(elements) * times}; {index} += {len(elements)}) {{"]
    for offset, element in enumerate(elements):
        place = f"{target}._buffer[{index} + {offset}]"
        lines += _build(place, struct, type_[9:-1], element, depth + 1)
    return [*lines, "  }"]


def _literal(value: Any, type_: str) -> str:
    if type_ == "string":
        unit, times = value if isinstance(value, Repeated) else (value, 1)
        return f'text("{"".join(_character(byte) for byte in unit.encode())}", {times})'
    if type_ == "boolean":
        return "true" if value else "false"
    if type_ in _REALS:
        return f"{value.hex()}{'f' if type_ == 'float' else ''}"
    if value == -(2**63):
        return "INT64_MIN"
    return f"{value}{'u' if type_.startswith('unsigned') else ''}"


def _character(byte: int) -> str:
    return chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) == " ") else f"\\{byte:03o}"


def _show_members(prefix: str, struct: Struct, depth: int = 0) -> list[str]:
    lines = ["  fputc('{', out);"]
    for number, member in enumerate(struct.members):
        comma = "," if number else ""
        lines.append(f'  fputs("{comma}\\"{member.name}\\":", out);')
        lines += _show(f"{prefix}{member.name}", struct, member.type, depth)
    return [*lines, "  fputc('}', out);"]


def _show(source: str, struct: Struct, type_: str, depth: int) -> list[str]:
    if not type_.startswith("sequence<"):
        nested = STRUCTS.get(f"{struct.module}.{type_}")
        return _show_members(f"{source}.", nested, depth) if nested else [f"  show_value(out, {source});"]
    index = f"i{depth}"
    return [
        "  fputc('[', out);",
        f"  for (uint32_t {index} = 0; {index} < {source}._length; {index}++) {{",
        f"  if ({index} > 0) fputc(',', out);",
        *_show(f"{source}._buffer[{index}]", struct, type_[9:-1], depth + 1),
        "  }",
        "  fputc(']', out);",
    ]
