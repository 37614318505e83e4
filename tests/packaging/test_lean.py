"""What a distribution does not pull in: NATS and Ray come with those that need them alone."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = {
    described["name"]: described
    for path in [ROOT / "pyproject.toml", *ROOT.glob("plugins/**/pyproject.toml")]
    if (described := tomllib.loads(path.read_text()).get("project"))
}
WITH_NATS = {"anywire-nats", "anywire-service-nats"}


def direct(name: str) -> list[str]:
    """What one requires without extras."""
    if name in PROJECTS:
        return list(PROJECTS[name]["dependencies"])
    try:
        return [each for each in requires(name) or () if "extra ==" not in each]
    except PackageNotFoundError:  # for another Python, or another system
        return []


def pulled_in(name: str) -> set[str]:
    def visit(each: str) -> Iterator[str]:
        for requirement in direct(each):
            found = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
            if found not in seen:
                seen.add(found)
                yield found
                yield from visit(found)

    seen: set[str] = set()
    return set(visit(name))


@pytest.mark.parametrize("name", sorted(set(PROJECTS) - WITH_NATS))
def test_nats_and_ray_come_with_those_that_need_them_alone(name: str) -> None:
    assert not pulled_in(name) & {"nats-py", "nkeys", "ray"}


def test_it_sees_what_is_pulled_in() -> None:
    assert {"anywire", "anywire-service-deliberation", "nats-py", "msgspec"} <= pulled_in("anywire-service-nats")
    assert {"httpx", "pydantic-core", "anyio"} <= pulled_in("anywire-service-deliberation")
