"""What a deliberation takes on paper, and what it takes here: tasks, messages, tokens and bytes.

    python benchmarks/deliberation_numbers.py [--members 2 3 5 10] [--rounds 0 1 2] [--answer 100] [--critique 50]

The pipeline and the service are the real ones, in one process over the transport ``memory``, whose messages are
counted. The engine writes proposals and revisions of ``--answer`` words, critiques of ``--critique`` words, and gives
all the same points, so that no score is spared. A word is a token. Tasks, messages and tokens must be what `on_paper`
says, else the command fails; bytes within 3 %. What each kind of prompt has beside the texts, and what is kept
of a task beside its text, is taken from the smallest deliberations.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple
from uuid import uuid4

import msgspec

from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.caller import OPERATOR
from anywire.engine import Delta, Engine, EngineStatus
from anywire.identity import agent_info, hub_info
from anywire.messages import TaskRequest
from anywire.offers import offers
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.roles.context import OrchestratorContext
from anywire.roles.service_host import ServiceHost
from anywire.testing.doubles import MODEL, ScriptedConfig, fifo, least_loaded
from anywire_service_deliberation.config import DeliberationConfig
from anywire_service_deliberation.deliberations import KeptDeliberations
from anywire_service_deliberation.prompts import CRITIQUE, REVISION
from anywire_service_deliberation.record import Deliberation
from anywire_service_deliberation.service import DeliberationService
from counted_transport import Counted

TASK = "How do I reverse a list ?"
WORD = "word "
POINTS = "correctness: 3\ncompleteness: 3\nclarity: 3"
CRITIC = "Critic A:\n<critique>\n\n</critique>\n\n"
"""What stands around each critique that an author reads."""
CLOSE = 0.03
"""Part by which bytes may differ from what is told on paper."""
PATIENCE = 600.0


class Lengths(NamedTuple):
    """Of each text, in tokens or in bytes. ``frames`` are what each kind of prompt has beside others' texts."""

    answer: int
    critique: int
    points: int
    critic: int
    frames: dict[str, int]


class Kept(NamedTuple):
    """Bytes that are kept beside the texts: of the whole, and of each member, task, and score."""

    whole: float
    member: float
    task: float
    score: float

    def beside(self, members: int, tasks: int) -> float:
        return self.whole + members * self.member + tasks * self.task + members * (members - 1) * self.score


class Numbers(NamedTuple):
    """``reports``: statuses of agents, which tell how many slots are free. Of several that wait the newest is sent, so
    paper says nothing of them."""

    tasks: int
    messages: int
    tokens: int
    wire_bytes: int
    kept_bytes: int
    reports: int = 0


def tasks_of(members: int, rounds: int) -> int:
    """Where all goes well and no score is spared: n proposals, n (n - 1) scores, and in each round n (n - 1) critiques
    and n revisions. Each has two messages: a request, and an answer of one chunk."""
    return (rounds + 1) * members**2


def read_and_written(members: int, rounds: int, of: Lengths) -> int:
    """All prompts and answers together."""
    n, pairs = members, members * (members - 1)
    proposals = n * (of.frames["proposal"] + of.answer)
    critiques = pairs * (of.frames["critique"] + of.answer + of.critique)
    criticised = of.answer + (n - 1) * (of.critic + of.critique)
    revisions = n * (of.frames["revision"] + criticised + of.answer)
    scores = pairs * (of.frames["score"] + of.answer + of.points)
    return proposals + rounds * (critiques + revisions) + scores


def written(members: int, rounds: int, of: Lengths) -> int:
    """All answers together."""
    n, pairs = members, members * (members - 1)
    return n * of.answer + rounds * (pairs * of.critique + n * of.answer) + pairs * of.points


class Writer(Engine):
    """Notes how long the last prompt of each kind was, in tokens, and in bytes with what tells how many these were."""

    name: ClassVar[str] = "writer"
    Config = ScriptedConfig

    def __init__(self, answer: int, critique: int) -> None:
        super().__init__(ScriptedConfig())
        self.texts = {"proposal": WORD * answer, "revision": WORD * answer, "critique": WORD * critique}
        self.texts["score"] = POINTS
        self.tokens: dict[str, int] = {}
        self.bytes: dict[str, int] = {}

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", offers(MODEL))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        messages = msgspec.json.decode(task.body)["messages"]
        said = messages[-1]["content"]
        marks = {CRITIQUE: "critique", REVISION: "revision", "Score the proposal": "score"}
        kind = next((kind for mark, kind in marks.items() if mark in said), "proposal")
        text = self.texts[kind]
        prompt, made = sum(len(message["content"].split()) for message in messages), len(text.split())
        usage = json.dumps({"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made})
        self.tokens[kind], self.bytes[kind] = prompt, len(task.body) + len(usage)
        yield Delta(text, "", "stop", usage)

    def lengths(self, unit: Callable[[str], int], prompts: dict[str, int]) -> Lengths:
        """After two members and one round, whose ``prompts`` were so long."""
        texts = {kind: unit(text.strip()) for kind, text in self.texts.items()}
        answer, critique, critic = texts["proposal"], texts["critique"], unit(CRITIC)
        read = {"proposal": 0, "critique": answer, "revision": answer + critic + critique, "score": answer}
        frames = {kind: prompts[kind] - read[kind] for kind in read}
        return Lengths(answer, critique, texts["score"], critic, frames)


class Stand:
    """A service with its orchestrator, and an agent."""

    def __init__(self, deliberations: KeptDeliberations, transport: Counted, engine: Writer) -> None:
        self._deliberations, self._transport, self._engine = deliberations, transport, engine

    async def calibrate(self) -> None:
        """Learn from the smallest deliberations what paper cannot know. What is kept beside the texts has a part for
        the whole, and one each for every member, task, and score."""
        small = {(n, r): await self.measured(n, r) for n, r in ((1, 0), (3, 0), (2, 0), (2, 1))}
        self.tokens = self._engine.lengths(lambda text: len(text.split()), self._engine.tokens)
        self.bytes = self._engine.lengths(len, self._engine.bytes)
        beside = {at: found.kept_bytes - written(*at, self.bytes) for at, found in small.items()}
        task = (beside[2, 1] - beside[2, 0]) / 4
        score = (beside[3, 0] - 2 * beside[2, 0] + beside[1, 0]) / 2 - task
        member = beside[2, 0] - beside[1, 0] - 3 * task - 2 * score
        self.kept = Kept(beside[1, 0] - member - task, member, task, score)

    def on_paper(self, members: int, rounds: int) -> Numbers:
        tasks = tasks_of(members, rounds)
        return Numbers(
            tasks,
            2 * tasks,
            read_and_written(members, rounds, self.tokens),
            read_and_written(members, rounds, self.bytes),
            round(self.kept.beside(members, tasks) + written(members, rounds, self.bytes)),
        )

    async def measured(self, members: int, rounds: int) -> Numbers:
        """What one deliberation took. Its members differ in nothing."""
        transport = self._transport
        before, bytes_before = Counter(transport.messages), transport.bytes
        asked = {"task": TASK, "members": [{"style": ""}] * members, "rounds": rounds, "rubric": "answer"}
        question = self._deliberations.question({**asked, "timeout": PATIENCE}, OPERATOR)
        await self._deliberations.submit(question)
        state = await self._deliberations.get(question.id, OPERATOR, PATIENCE)
        assert state is not None
        assert state.status == "completed", state.reason
        counted = transport.messages - before
        tokens = sum(each.prompt_tokens + each.completion_tokens for each in state.answers.values())
        messages, reports = counted.total() - counted["AgentStatus"], counted["AgentStatus"]
        wire = transport.bytes - bytes_before
        return Numbers(len(state.answers), messages, tokens, wire, kept_bytes(state), reports)


def kept_bytes(state: Deliberation) -> int:
    """As it is kept: the question, a row for each answer, and the rest, in JSON."""
    rest = msgspec.structs.replace(state, answers={})
    return len(msgspec.json.encode(rest)) + sum(len(msgspec.json.encode(each)) for each in state.answers.values())


@asynccontextmanager
async def stand(folder: Path, answer: int, critique: int) -> AsyncIterator[Stand]:
    network = MemoryConfig(network=f"numbers-{uuid4()}")
    transport, engine = Counted(network), Writer(answer, critique)
    orchestrator = Orchestrator(hub_info(), [transport], fifo(), least_loaded(), plugins=Plugins())
    service = DeliberationService(DeliberationConfig(folder=folder / "kept", max_works=20_000, max_tokens=100_000))
    agent = Agent(agent_info("agent", engine=engine), engine, [MemoryTransport(network)], slots=4096)

    def context(name: str) -> OrchestratorContext:
        return OrchestratorContext(orchestrator, name, state=folder, is_service=True)

    host = ServiceHost([service], orchestrator, context)
    try:
        await orchestrator.start()
        await agent.start()
        await asyncio.wait_for(orchestrator.agents_until(lambda agents: bool(agents)), PATIENCE)
        await host.start()
        made = Stand(service.offered, transport, engine)
        await made.calibrate()
        yield made
    finally:
        closing = asyncio.ensure_future(orchestrator.close())
        await asyncio.sleep(0)
        host.gate_closed()
        await closing
        await host.close()
        await agent.close()


async def compare(members: list[int], rounds: list[int], answer: int, critique: int) -> list[str]:
    """Print what was found; sentences about what is not as it is on paper."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="anywire-") as name:
        async with stand(Path(name), answer, critique) as at:
            for unit, of in (("tokens", at.tokens), ("bytes", at.bytes)):
                print(f"{unit}: answer {of.answer}, critique {of.critique}, points {of.points}; prompts {of.frames}")
            print(
                "bytes kept beside the texts: "
                + ", ".join(f"{each:.0f} {of}" for of, each in at.kept._asdict().items())
            )
            print("members rounds: tasks, messages, tokens, bytes on the wire, bytes kept (on paper); reports")
            for n in members:
                for r in rounds:
                    paper, found = at.on_paper(n, r), await at.measured(n, r)
                    told = [f"{each} ({paper[index]})" for index, each in enumerate(found[:-1])]
                    print(f"{n} {r}: {', '.join(told)}; {found.reports}", flush=True)
                    wrong += differences(paper, found, f"{n} members, {r} rounds")
    return wrong


def differences(paper: Numbers, found: Numbers, what: str) -> list[str]:
    """Sentences about what is not as it is on paper."""
    wrong = []
    for name, allowed in (
        ("tasks", 0.0),
        ("messages", 0.0),
        ("tokens", 0.0),
        ("wire_bytes", CLOSE),
        ("kept_bytes", CLOSE),
    ):
        said, is_so = getattr(paper, name), getattr(found, name)
        if abs(is_so - said) > allowed * said:
            wrong.append(f"{what}: {name}: {said} on paper, {is_so} found")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--rounds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--answer", type=int, default=100)
    parser.add_argument("--critique", type=int, default=50)
    given = parser.parse_args()
    wrong = asyncio.run(compare(given.members, given.rounds, given.answer, given.critique))
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
