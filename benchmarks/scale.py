"""The tables of docs/explanation/scale.md: what a fleet of many machines takes, computed from measured figures.

    python benchmarks/scale.py                                   print them
    python benchmarks/scale.py --write                           put them into the page
    python benchmarks/scale.py --wire mine.json --tree mine-tree.json --agents 2000 --slots 4 --rate 30

The inputs are what `wire_cost.py` and `tree_cost.py` measured, by default those of docs/results/scale. With figures of
another cluster the tables are about that one. The arithmetic is in `scale_arithmetic.py`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from scale_arithmetic import (
    DELIBERATION_MS,
    DELIBERATIONS,
    FULL,
    PROCESS_MIB,
    QUEUED_KIB,
    Costs,
    Fleet,
    Level,
    added_by_level,
    costs_of,
    deliberation_bytes,
    deliberation_tasks,
    discovery_seconds,
    idle_us,
    levels_of,
    messages_of,
    orchestrators,
    per_core,
    server_cores,
    stream_bytes,
    task_bytes,
    tree_of,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/scale.md"
MEASURED = ROOT / "docs/results/scale"
LEASES = (1.0, 10.0)
_TABLE = re.compile(r"\A\n(\|.*\n)*\n*")
FLEETS = (100, 1_000, 10_000)
PARTICIPANTS = (10, 103, 1_000, 10_000)
FAN_OUTS = (10, 22, 100, 1_000)


def number(value: float) -> str:
    """With two digits that count, and commas."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:g}"


def exact(value: int) -> str:
    return f"{value:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), "|".join(["---", *["---:"] * (len(head) - 1)]), *map(" | ".join, rows)]
    return "\n".join(f"|{line}|" if line.startswith("---") else f"| {line} |" for line in lines)


def measured(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What was measured, of one task, token and idle agent."""
    head = ("", *(f"`{each.name}`" for each in costs))
    what: list[tuple[str, Callable[[Costs], float | None]]] = [
        ("packets of a task alone", lambda of: of.alone["packets"]),
        ("bytes of a task alone", lambda of: of.alone["bytes"]),
        ("bytes of a token", lambda of: of.chunk["bytes"]),
        ("µs of a task, orchestrator", lambda of: of.task["hub_us"]),
        ("µs of a task, agent", lambda of: of.task["agent_us"]),
        ("µs of a task, server", lambda of: of.task.get("server_us")),
        ("µs of a token, orchestrator", lambda of: of.chunk["hub_us"]),
        ("µs of a token, agent", lambda of: of.chunk["agent_us"]),
        ("µs of a token, server", lambda of: of.chunk.get("server_us")),
        ("µs of a request over HTTP, orchestrator", lambda of: of.request["hub_us"]),
        ("µs of a token over HTTP, orchestrator", lambda of: of.token["hub_us"]),
        ("packets of an idle agent, per second", lambda of: of.idle["packets"]),
        ("bytes of an idle agent, per second", lambda of: of.idle["bytes"]),
        ("µs of an idle agent per second, orchestrator", lambda of: of.idle["hub_us"]),
        ("µs of an idle agent per second, server", lambda of: of.idle.get("server_us")),
        ("KiB of an agent in the orchestrator", lambda of: of.idle["hub_kib"]),
    ]
    return table(
        head,
        [(name, *("–" if (value := get(each)) is None else number(value) for each in costs)) for name, get in what],
    )


def messages(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """Messages and bytes of a task and of a deliberation over one link."""
    answer = 5 * fleet.answer_tokens
    rows: list[tuple[str, ...]] = [
        (
            f"task that comes whole, {exact(fleet.prompt_bytes)} bytes of prompt and {exact(answer)} of answer",
            exact(messages_of(fleet.answer_tokens, stream=False).all),
            *(number(task_bytes(each, fleet.prompt_bytes + answer)) for each in costs),
        ),
        (
            f"the same as a stream of {fleet.answer_tokens} tokens",
            exact(messages_of(fleet.answer_tokens, stream=True).all),
            *(number(stream_bytes(each, fleet.prompt_bytes, fleet.answer_tokens)) for each in costs),
        ),
    ]
    rows += [
        (
            f"deliberation of {members} members, {rounds} round{'s' * (rounds > 1)}",
            exact(2 * deliberation_tasks(members, rounds)),
            *(number(deliberation_bytes(each, members, rounds)) for each in costs),
        )
        for members, rounds in DELIBERATIONS
    ]
    return table(("", "messages", *(f"`{each.name}`, bytes" for each in costs)), rows)


def saturation(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What one orchestrator does at most."""
    rows = [
        (
            f"`{each.name}`",
            number(per_core(each.request["hub_us"])),
            number(per_core(each.token["hub_us"])),
            number(per_core(each.token["hub_us"]) / fleet.rate),
            *(number(per_core(idle_us(each, lease))) for lease in LEASES),
        )
        for each in costs
    ]
    head = (
        "",
        "requests/s of one token",
        "tokens/s of streams",
        f"streams of {fleet.rate:g} tokens/s",
        *(f"idle agents, lease {lease:g} s" for lease in LEASES),
    )
    return table(head, rows)


def fleets(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """How many orchestrators side by side a fleet needs."""
    rows = []
    for agents in FLEETS:
        of = fleet._replace(agents=agents)
        told = (exact(agents), exact(round(of.streams)), number(of.tasks), number(of.tokens))
        rows.append((*told, *(exact(orchestrators(of, each, LEASES[-1])) for each in costs)))
    head = ("agents", "streams", "tasks/s", "tokens/s", *(f"`{each.name}`" for each in costs))
    return table(head, rows)


def broker(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What the server of `nats` takes."""
    rows = []
    for each in costs:
        if each.hops < 2:
            continue
        for agents in FLEETS:
            of = fleet._replace(agents=agents)
            idle = [server_cores(of._replace(busy=0.0), each, lease) for lease in LEASES]
            size = of.tasks * stream_bytes(each, of.prompt_bytes, of.answer_tokens) * 8 / 1e9
            packets = agents * each.idle["packets"]
            rows.append(
                (
                    exact(agents),
                    number(packets),
                    *map(number, idle),
                    number(server_cores(of, each, LEASES[-1])),
                    number(size),
                )
            )
    head = (
        "agents",
        "idle: packets/s",
        *(f"idle, lease {lease:g} s: cores" for lease in LEASES),
        "busy: cores",
        "busy: Gbit/s, both ways",
    )
    return table(head, rows)


def discovery(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What it takes until all participants of a DDS domain have found each other."""
    rows = [
        (
            exact(each),
            exact(each * (each - 1)),
            number(discovery_seconds(each)),
            number(discovery_seconds(each) / each),
        )
        for each in PARTICIPANTS
    ]
    return table(("participants", "findings", "seconds of processor, all", "seconds, each process"), rows)


def trees(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """Trees over all agents of the fleet, by how many are below each orchestrator."""
    (of,) = [each for each in costs if each.name == "zeromq"] or costs[:1]
    added = added_by_level(list(levels))
    rows = []
    for fan_out in FAN_OUTS:
        made = tree_of(fleet.agents, fan_out)
        above = len(made) - 1
        rows.append(
            (
                exact(fan_out),
                exact(len(made)),
                exact(sum(made)),
                number(levels[0].alone_ms + above * added.alone_ms),
                number(above * added.task_us),
                number(above * added.chunk_us),
                number(fan_out * idle_us(of, LEASES[-1]) / 1e4),
            )
        )
    head = (
        "below each",
        "levels",
        "orchestrators",
        "ms of a task alone",
        "µs more for a task",
        "µs more for a token",
        f"idle, % of a core (lease {LEASES[-1]:g} s)",
    )
    return table(head, rows)


def top(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What one orchestrator at the top passes, and what the fleet can answer."""
    deepest = levels[-1]
    tasks, tokens = per_core(deepest.task_us["top"]), per_core(deepest.chunk_us["top"])
    middle = per_core(deepest.chunk_us[f"level {deepest.levels}"])
    rows = [
        ("one at the top, without a gateway", number(tasks), number(tokens)),
        ("one in the middle, which is hub and agent", "–", number(middle)),
        (f"{exact(fleet.agents)} agents, {fleet.busy:.0%} busy", number(fleet.tasks), number(fleet.tokens)),
        ("tops that are needed", number(fleet.tasks / tasks), number(fleet.tokens / tokens)),
    ]
    return table(("", "tasks/s", "tokens/s"), rows)


def memory(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """What is kept where."""
    kib = max(each.idle["hub_kib"] for each in costs)
    rows = [
        ("an agent, in its orchestrator", f"{number(kib)} KiB at most", f"{number(kib * fleet.agents / 1024)} MiB"),
        ("a task that waits", f"{number(QUEUED_KIB)} KiB and its body", f"{number(QUEUED_KIB * 10_000 / 1024)} MiB"),
        (
            "a stream whose reader stands still, with texts of 100 bytes",
            "a window of chunks",
            f"{number(64 * 100 * fleet.streams / 2**20)} MiB",
        ),
        ("an agent's process", f"{PROCESS_MIB} MiB", f"{number(PROCESS_MIB * fleet.agents / 1024)} GiB, all hosts"),
    ]
    return table(("", "each", f"{exact(fleet.agents)} agents, 10,000 tasks that wait"), rows)


def limits(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> str:
    """Deliberations of one orchestrator."""
    each = per_core(DELIBERATION_MS * 1e3)
    tasks = deliberation_tasks(3, 1)
    return table(
        ("deliberations of 3 members, 1 round", "of one orchestrator"),
        [("per second", number(each)), ("tasks per second of these", number(each * tasks))],
    )


TABLES: dict[str, Callable[[Sequence[Costs], Sequence[Level], Fleet], str]] = {
    each.__name__: each
    for each in (measured, messages, saturation, limits, fleets, broker, discovery, trees, top, memory)
}


def tables(costs: Sequence[Costs], levels: Sequence[Level], fleet: Fleet) -> dict[str, str]:
    return {name: make(costs, levels, fleet) for name, make in TABLES.items()}


def with_tables(page: str, made: dict[str, str]) -> str:
    """The page with each table below its mark, in the place of the one that is there. Raises ValueError for a mark that
    is missing, or there twice."""
    for name, text in made.items():
        mark = f"<!-- benchmarks/scale.py: {name} -->\n"
        before, *after = page.split(mark)
        if len(after) != 1:
            raise ValueError(f"the page has {len(after)} marks {mark.strip()}, not one")
        page = f"{before}{mark}\n{text}\n\n{_TABLE.sub('', after[0], count=1)}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into the page")
    parser.add_argument("--wire", type=Path, default=MEASURED / "wire_cost.json")
    parser.add_argument("--tree", type=Path, default=MEASURED / "tree_cost.json")
    usual = Fleet()
    parser.add_argument("--agents", type=int, default=usual.agents)
    parser.add_argument("--slots", type=int, default=usual.slots, help="of each agent")
    parser.add_argument("--busy", type=float, default=usual.busy, help="share of the slots that answer")
    parser.add_argument("--rate", type=float, default=usual.rate, help="tokens per second of one stream")
    parser.add_argument("--answer-tokens", type=int, default=usual.answer_tokens)
    parser.add_argument("--prompt-bytes", type=int, default=usual.prompt_bytes)
    given = vars(parser.parse_args())
    write, costs, levels = given.pop("write"), costs_of(given.pop("wire")), levels_of(given.pop("tree"))
    made = tables(costs, levels, Fleet(**given))
    if write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
        return
    print(f"one core is full at {FULL:.0%}")
    for name, text in made.items():
        print(f"\n{name}: {TABLES[name].__doc__}\n\n{text}")


if __name__ == "__main__":
    main()
