"""The Python wire types against ``idl/OrchestratorDDS.idl``, which is the contract: names, order, types, keys."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
from cyclonedds.idl.types import int32, int64, sequence, uint64

from anywire_dds import types
from anywire_dds.endpoints import _TYPES

IDL = Path(__file__).parents[2] / "idl" / "OrchestratorDDS.idl"

PYTHON_TYPES: dict[str, Any] = {
    "long": int32,
    "long long": int64,
    "unsigned long long": uint64,
    "boolean": bool,
    "string": str,
    "sequence<string>": sequence[str],
}


class Member(NamedTuple):
    name: str
    type: str
    key: bool


class Contract(NamedTuple):
    constants: dict[str, int]
    structs: dict[str, list[Member]]
    final: set[str]


def parse(text: str) -> Contract:
    """Enough of OMG IDL for this contract; anything else in it is an error here."""
    text = re.sub(r"//[^\n]*", "", text)
    outer = re.fullmatch(r"\s*module anywire \{(.*)\};\s*", text, re.DOTALL)
    assert outer is not None, "one module named anywire is expected"
    body = outer[1]
    constants = {name: int(value) for name, value in re.findall(r"const long (\w+)\s*=\s*(\d+);", body)}
    body = re.sub(r"const [^;]*;", "", body)
    structs, final = {}, set()
    for annotation, name, members in re.findall(r"(@final\s+)?struct (\w+) \{(.*?)\};", body, re.DOTALL):
        structs[name] = [_member(each) for each in members.split(";") if each.strip()]
        if annotation:
            final.add(name)
    rest = re.sub(r"(@final\s+)?struct \w+ \{.*?\};", "", body, flags=re.DOTALL).strip()
    assert not rest, f"not understood: {rest[:80]!r}"
    return Contract(constants, structs, final)


def _member(text: str) -> Member:
    found = re.fullmatch(r"\s*(@key\s+)?([a-z<> ]+?)\s+(\w+)\s*", text)
    assert found is not None, f"not understood: {text!r}"
    return Member(found[3], found[2], found[1] is not None)


CONTRACT = parse(IDL.read_text())


def test_every_struct_has_its_class_and_the_other_way_round() -> None:
    classes = {cls.__name__ for plane in _TYPES.values() for cls in plane.values()}
    assert classes == set(CONTRACT.structs) == CONTRACT.final


@pytest.mark.parametrize("name", sorted(CONTRACT.structs))
def test_members_are_those_of_the_contract(name: str) -> None:
    cls = getattr(types, name)
    hints = get_type_hints(cls, include_extras=True)
    expected = [(member.name, PYTHON_TYPES[member.type]) for member in CONTRACT.structs[name]]
    assert [(field.name, hints[field.name]) for field in dataclasses.fields(cls)] == expected


@pytest.mark.parametrize("name", sorted(CONTRACT.structs))
def test_keys_and_names_are_those_of_the_contract(name: str) -> None:
    cls = getattr(types, name)
    assert cls.__idl_typename__ == f"anywire.{name}"
    keys = [member.name for member in CONTRACT.structs[name] if member.key]
    assert cls.__idl_annotations__.get("keylist", []) == keys
    assert cls.__idl_annotations__["extensibility"] == "final"


def test_constants_are_those_of_the_contract() -> None:
    assert {name: getattr(types, name) for name in CONTRACT.constants} == CONTRACT.constants
    assert {name for name in vars(types) if name.startswith("FRAME_")} == set(CONTRACT.constants)


def test_both_planes_have_the_same_layout() -> None:
    assert CONTRACT.structs["TaskRequest"] == CONTRACT.structs["ClientRequest"]
    assert CONTRACT.structs["TaskResponse"] == CONTRACT.structs["ClientResponse"]


def test_the_parser_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="not understood"):
        parse("module anywire { union U switch (long) { case 1: long a; }; };")
