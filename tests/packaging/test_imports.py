"""What may import what, read from the source: no circles, and data that walks one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = sorted([*ROOT.glob("plugins/*/anywire_*"), *ROOT.glob("plugins/*/*/anywire_*")])


def modules() -> dict[str, Path]:
    """Every module of the core and of the plugins by name."""
    found = {}
    for folder in (ROOT / "core" / "anywire", *PLUGINS):
        for path in folder.rglob("*.py"):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that one imports anywhere in it, for the types alone too."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named.update(f"{node.module}.{each.name}" for each in node.names)
            named.add(node.module)
    return {name for name in named if name in known}


KNOWN = modules()
GRAPH = {name: imports(path, KNOWN) - {name} for name, path in KNOWN.items()}


def circles() -> Iterator[list[str]]:
    """Groups of modules that reach each other: Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(GRAPH[name]):
            # A package's own text holds what its modules share, and imports them for its users.
            if name.startswith(f"{other}."):
                continue
            if other not in index:
                yield from visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                yield sorted(group)

    for name in sorted(GRAPH):
        if name not in index:
            yield from visit(name)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert len(KNOWN) > 200
    assert list(circles()) == []


def _importers(package: str) -> set[str]:
    return {
        name
        for name, used in GRAPH.items()
        if any(each == package or each.startswith(f"{package}.") for each in used) and not name.startswith(package)
    }


def test_only_roles_and_testing_import_the_pipeline() -> None:
    outside = {
        name for name in _importers("anywire.pipeline") if not name.startswith(("anywire.roles", "anywire.testing"))
    }
    assert outside == set()


def test_nothing_but_itself_imports_the_command_line() -> None:
    assert _importers("anywire.cli") == set()


def test_of_the_plugins_the_experiment_alone_uses_roles() -> None:
    """And the core's own package, which gives `anywire.Client` to who asks for it."""
    assert {name.split(".")[0] for name in _importers("anywire.roles")} <= {"anywire", "anywire_experiment"}


ALLOWED = {
    # They speak the same types, or the same protocol, and declare it.
    ("anywire_gateway_llama_dds", "anywire_dds"),
    ("anywire_engine_llama_dds", "anywire_dds"),
    ("anywire_gateway_predecessor", "anywire_dds"),
    ("anywire_gateway_predecessor", "anywire_gateway_openai"),
    ("anywire_gateway_grpc", "anywire_service_deliberation"),
    ("anywire_service_nats", "anywire_nats"),
    ("anywire_service_nats", "anywire_service_deliberation"),
    ("anywire_engine_llama", "anywire_engine_openai"),
    ("anywire_engine_models", "anywire_engine_openai"),
    ("anywire_engine_llama", "anywire_engine_models"),
    ("anywire_engine_mcp", "anywire_engine_models"),
    ("anywire_desktop", "anywire_engine_models"),
    ("anywire_desktop", "anywire_engine_mcp"),
}


def test_no_plugin_imports_another_but_these_and_the_core_imports_none() -> None:
    owner = {name: name.split(".")[0] for name in KNOWN}
    crossing = {(owner[name], owner[other]) for name, used in GRAPH.items() for other in used}
    assert {each for each in crossing if each[1] not in ("anywire", each[0])} <= ALLOWED


PIPELINE = ("tasks", "health", "fleet", "observation", "queue", "services", "attempts", "orders", "intake")


def test_packages_of_the_pipeline_import_only_those_before_them() -> None:
    wrong = []
    for name, others in GRAPH.items():
        parts = name.split(".")
        if parts[:2] != ["anywire", "pipeline"] or len(parts) < 4:
            continue
        allowed = PIPELINE[: PIPELINE.index(parts[2]) + 1]
        inside = [other for other in others if other.startswith("anywire.pipeline.")]
        wrong += [f"{name} imports {other}" for other in inside if other.split(".")[2] not in allowed]
    assert not wrong
