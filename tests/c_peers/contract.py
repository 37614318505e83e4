"""What ``idl/*.idl`` say, and the Python classes that stand for it.

The parser knows just enough of OMG IDL for these contracts; anything else in them is an error, so that nothing is
passed over. Structs added to the IDL files, and classes added to a plugin, are found without being named here.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "idl").glob("*.idl"))

SCALARS = ("boolean", "long", "long long", "unsigned long", "unsigned long long", "float", "double", "string")


class Member(NamedTuple):
    name: str
    type: str
    """A scalar, the name of a struct of the same file, or ``sequence<...>`` of either."""
    key: bool

    @property
    def element(self) -> str | None:
        """What it is a sequence of, if it is one."""
        return self.type[len("sequence<") : -1] if self.type.startswith("sequence<") else None


class Struct(NamedTuple):
    module: str
    name: str
    final: bool
    members: tuple[Member, ...]

    @property
    def typename(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def keys(self) -> list[str]:
        return [member.name for member in self.members if member.key]


class Contract(NamedTuple):
    constants: dict[str, int]
    structs: dict[str, Struct]


def parse(text: str) -> Contract:
    """One IDL file. Raises `AssertionError` for what it does not know."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    outer = re.fullmatch(r"\s*module (\w+) \{(.*)\};\s*", text, re.DOTALL)
    assert outer is not None, "one module is expected"
    module, body = outer.groups()
    constants = {name: int(value) for name, value in re.findall(r"const long (\w+)\s*=\s*(\d+);", body)}
    body = re.sub(r"const long \w+\s*=\s*\d+;", "", body)
    structs: dict[str, Struct] = {}
    pattern = r"(@final\s+)?struct (\w+)\s*\{(.*?)\};"
    for annotation, name, members in re.findall(pattern, body, re.DOTALL):
        parsed = tuple(_member(each, set(structs)) for each in members.split(";") if each.strip())
        structs[name] = Struct(module, name, bool(annotation), parsed)
    rest = re.sub(pattern, "", body, flags=re.DOTALL).strip()
    assert not rest, f"not understood: {rest[:80]!r}"
    return Contract(constants, structs)


def _member(text: str, structs: set[str]) -> Member:
    found = re.fullmatch(r"\s*(@key\s+)?(\w[\w <>]*?)\s+(\w+)\s*", text)
    assert found is not None, f"not understood: {text!r}"
    member = Member(found[3], re.sub(r"\s*([<>])\s*", r"\1", found[2]), found[1] is not None)
    assert (member.element or member.type) in {*SCALARS, *structs}, f"not understood: {text!r}"
    return member


CONTRACTS = {path.name: parse(path.read_text()) for path in FILES}
STRUCTS = {struct.typename: struct for contract in CONTRACTS.values() for struct in contract.structs.values()}


@cache
def python_classes() -> dict[str, list[Any]]:
    """The classes of the plugins that are wire types, by the name of their struct: one, or one in each plugin."""
    found: dict[str, list[Any]] = {}
    for path in sorted((ROOT / "plugins").glob("*/*/anywire_*/**/*.py")):
        if "(IdlStruct" not in path.read_text():
            continue
        package = next(each for each in path.parents if each.name.startswith("anywire_"))
        module = importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts))
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "__idl_typename__"):
                found.setdefault(value.__idl_typename__, []).append(value)
    return found
