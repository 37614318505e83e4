"""The Python wire types against ``idl/*.idl``, which are the contract: names, order, types, keys."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, get_type_hints

import pytest
from cyclonedds.idl.types import float32, float64, int32, int64, sequence, uint32, uint64
from tests.c_peers.contract import CONTRACTS, STRUCTS, Struct, parse, python_classes

from anywire_dds.endpoints import _TYPES

SCALARS: dict[str, Any] = {
    "boolean": bool,
    "long": int32,
    "long long": int64,
    "unsigned long": uint32,
    "unsigned long long": uint64,
    "float": float32,
    "double": float64,
    "string": str,
}
CLASSES = [
    pytest.param(STRUCTS[name], cls, id=f"{cls.__module__}.{cls.__name__}")
    for name, classes in python_classes().items()
    if name in STRUCTS
    for cls in classes
]


def test_every_struct_has_its_class_and_the_other_way_round() -> None:
    assert set(python_classes()) == set(STRUCTS)
    assert all(struct.final for struct in STRUCTS.values())


def test_what_the_transport_uses_is_in_the_contract() -> None:
    assert {cls.__idl_typename__ for plane in _TYPES.values() for cls in plane.values()} <= set(STRUCTS)


@pytest.mark.parametrize(("struct", "cls"), CLASSES)
def test_members_are_those_of_the_contract(struct: Struct, cls: Any) -> None:
    def expected(type_: str) -> Any:
        return SCALARS[type_] if type_ in SCALARS else getattr(sys.modules[cls.__module__], type_)

    hints = get_type_hints(cls, include_extras=True)
    assert [(field.name, hints[field.name]) for field in dataclasses.fields(cls)] == [
        (member.name, sequence[expected(member.element)] if member.element else expected(member.type))
        for member in struct.members
    ]


@pytest.mark.parametrize(("struct", "cls"), CLASSES)
def test_names_keys_and_extensibility_are_those_of_the_contract(struct: Struct, cls: Any) -> None:
    assert cls.__name__ == struct.name
    assert cls.__idl_annotations__.get("keylist", []) == struct.keys
    assert cls.__idl_annotations__["extensibility"] == "final"


@pytest.mark.parametrize("file", CONTRACTS)
def test_constants_are_those_of_the_contract(file: str) -> None:
    contract = CONTRACTS[file]
    modules = {
        sys.modules[cls.__module__]
        for struct in contract.structs.values()
        for cls in python_classes().get(struct.typename, [])
    }
    assert modules
    for name, value in contract.constants.items():
        assert {getattr(module, name) for module in modules if hasattr(module, name)} == {value}
    frames = {name for module in modules for name in vars(module) if name.startswith("FRAME_")}
    assert frames == {name for name in contract.constants if name.startswith("FRAME_")}


@pytest.mark.parametrize("name", ["Request", "Response"])
def test_both_planes_have_the_same_layout(name: str) -> None:
    assert STRUCTS[f"anywire.Task{name}"].members == STRUCTS[f"anywire.Client{name}"].members


@pytest.mark.parametrize(
    "text",
    [
        "module m { union U switch (long) { case 1: long a; }; };",
        "module m { @final struct S { octet a; }; };",
        "module m { @final struct S { Other a; }; };",
        "module m { @final struct S { string<8> a; }; };",
        "module m { @final struct S { long a[2]; }; };",
        "module m { @final struct S { @optional long a; }; };",
        "module m { @mutable struct S { long a; }; };",
        'module m { const string C = "c"; };',
    ],
)
def test_the_parser_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(AssertionError, match="not understood"):
        parse(text)
