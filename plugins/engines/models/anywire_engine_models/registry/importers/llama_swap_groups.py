"""Which models of llama-swap may be loaded together, as groups of Anywire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anywire_engine_models.registry.importers.imported import Report


class GroupOf(NamedTuple):
    """``name`` is empty for a model that may be loaded with all others."""

    name: str
    pinned: bool = False


def groups_of(config: Mapping[str, Any], models: Sequence[str], report: Report) -> dict[str, GroupOf]:
    """The group of each of ``models``.

    llama-swap loads one model at a time unless a group says otherwise: such a model gets a group of its own. Members of
    a group without ``swap`` are loaded together: they share one, or where the group is not ``exclusive`` have none.
    ``persistent`` pins. A group with ``swap`` that is not ``exclusive`` has no counterpart, and is taken for exclusive.
    """
    found = {name: GroupOf(_alone(name)) for name in models}
    router = _mapping(_mapping(config.get("routing")).get("router"))
    if router.get("use") == "matrix":
        report.note("routing", "its matrix is not carried over: the memory budget decides what is loaded together")
        return {name: GroupOf("") for name in models}
    groups = _mapping(config.get("groups")) or _mapping(_mapping(router.get("settings")).get("groups"))
    for name, group in groups.items():
        settings = _mapping(group)
        swap, exclusive = settings.get("swap", True) is not False, settings.get("exclusive", True) is not False
        if swap and not exclusive:
            report.note(f"groups.{name}", "its members are loaded one at a time, and not beside those of other groups")
        shared = str(name)[:200] if exclusive else ""
        members = settings.get("members")
        for member in members if isinstance(members, list) else ():
            if isinstance(member, str) and member in found:
                found[member] = GroupOf(_alone(member) if swap else shared, settings.get("persistent") is True)
    if not groups and len(models) > 1:
        report.note(
            "groups", "one model is loaded at a time, as before: clear `settings.group` of those that fit together"
        )
    return found


def _alone(model: str) -> str:
    return f"{model[:200]} alone"


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
