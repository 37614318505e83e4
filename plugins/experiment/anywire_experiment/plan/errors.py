"""What is wrong in a plan, in sentences: file and line, key, and what would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from anywire.config_layers import File
from anywire.near import nearest
from anywire.plugins import told_fault


def describe(error: pydantic.ValidationError, model: type[pydantic.BaseModel], source: File) -> str:
    """One sentence per fault."""
    sentences = []
    for fault in error.errors():
        keys = _keys(fault["loc"], source.tree)
        place = source.origin(keys) or source.label
        path = ".".join(map(str, keys))
        if fault["type"] == "extra_forbidden":
            known = sorted({name for each in _models_at(model, fault["loc"][:-1]) for name in each.model_fields})
            near = nearest(str(fault["loc"][-1]), known)
            hint = f"did you mean {near!r}? " if near else ""
            sentences.append(f"{place}: unknown key {path!r}: {hint}known keys: {', '.join(known)}")
            continue
        told = told_fault(fault)
        sentences.append(f"{place}: {path}: {told}" if path else f"{place}: {told}")
    return "; ".join(sentences)


def _keys(loc: Sequence[int | str], tree: object) -> list[int | str]:
    """The place of a fault as the file has it: without the tags of unions that pydantic puts in between."""
    keys: list[int | str] = []
    for number, part in enumerate(loc):
        inside: object = None
        if isinstance(tree, Mapping):
            inside = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            inside = tree[part]
        if inside is None and number + 1 < len(loc):
            continue
        keys.append(part)
        tree = inside
    return keys


def _models_at(model: type[pydantic.BaseModel], loc: Sequence[int | str]) -> list[type[pydantic.BaseModel]]:
    found: list[Any] = [model]
    for part in loc:
        inside: list[Any] = []
        for each in found:
            if isinstance(each, type) and issubclass(each, pydantic.BaseModel):
                if str(part) in each.model_fields:
                    inside.extend(_alternatives(each.model_fields[str(part)].annotation))
                elif each.model_fields.get("kind") and part == each.model_fields["kind"].default:
                    inside.append(each)  # the tag of a union
            elif get_origin(each) in (dict, list, tuple):
                inside.extend(_alternatives(get_args(each)[-1]))
        found = inside
    return [each for each in found if isinstance(each, type) and issubclass(each, pydantic.BaseModel)]


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation
