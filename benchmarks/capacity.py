"""What each task uses of processor time and memory with a real model, and that none is lost.

    python benchmarks/capacity.py [--out capacity.csv] [--each 20] [--mixed 500] [--clients 4] [--engine llama]

``anywire up`` runs with one agent of two slots. First 20 tasks of each kind are served one after the other, then 500
mixed ones by four clients that always ask: two tasks run and two wait, which is as much as the agent bears without a
queue that grows. Each task is a row of the file: its kind, outcome, seconds and tokens, the processor time of the
orchestrator and of the agent (llama.cpp with it) while it ran, and their memory at its end. The processor time of a
moment in which several tasks ran is divided equally among them, so that the rows add up to what was used. A table is
printed; the command fails when a task got no whole answer, or when two got the same task id.

The times are of this machine and what else runs on it: some five minutes on two cores that are free.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import yaml

from anywire.builtin.synthetic import WORDS
from cost_probe import cpu_seconds
from patience import FACTOR
from transport_stack import anywire_process, new_event_loop, options_of

PATIENCE = 300.0 * FACTOR
"""Seconds for the start, and for one task."""
SLOTS, CONTEXT, TOKENS, LONG_WORDS = 2, 2048, 16, 300
SEED = 45
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}


class Kind(NamedTuple):
    """A kind of task. ``share`` is its part of the mixed ones; ``ask`` makes the path and the body of one with that
    text, of so many ``words``; ``text`` reads what an answer says, empty when it says nothing."""

    share: int
    ask: Callable[[str], tuple[str, dict[str, Any]]]
    text: Callable[[dict[str, Any]], str]
    words: int = 12


def _chat(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    return "/v1/chat/completions", {"messages": messages, "max_tokens": TOKENS, "temperature": 0} | more


def _content(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"] or "")


KINDS = {
    "chat": Kind(6, _chat, _content),
    "streamed chat": Kind(
        6, lambda text: _chat(text, stream=True, stream_options={"include_usage": True}), lambda answer: ""
    ),
    "completion": Kind(
        3,
        lambda text: ("/v1/completions", {"prompt": text, "max_tokens": TOKENS, "temperature": 0}),
        lambda answer: str(answer["choices"][0]["text"]),
    ),
    "embedding": Kind(
        3, lambda text: ("/v1/embeddings", {"input": text}), lambda answer: str(answer["data"][0]["embedding"] or "")
    ),
    "structured output": Kind(
        1,
        lambda text: _chat(
            text, response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        ),
        _content,
    ),
    "long prompt": Kind(1, _chat, _content, LONG_WORDS),
}


class Row(NamedTuple):
    """A task of the file. Processor times are in ms, memory in MiB, ``seconds`` from sending to the end."""

    number: int
    phase: str
    kind: str
    outcome: str
    task_id: str
    seconds: float
    tokens: int
    orchestrator_cpu_ms: float
    agent_cpu_ms: float
    orchestrator_mib: float
    agent_mib: float


class Meter:
    """Divides the processor time of groups of processes among the tasks that run."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        self._groups = groups
        self._running: dict[int, dict[str, float]] = {}
        self._last = self._read()

    def begin(self, number: int) -> None:
        self._divide()
        self._running[number] = dict.fromkeys(self._groups, 0.0)

    def end(self, number: int) -> dict[str, float]:
        """Milliseconds of each group that fall to this task."""
        self._divide()
        return self._running.pop(number)

    def memory_mib(self) -> dict[str, float]:
        return {
            name: sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
            for name, pids in self._groups.items()
        }

    def _read(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) * 1e3 for name, pids in self._groups.items()}

    def _divide(self) -> None:
        now = self._read()
        for used in self._running.values():
            for name in used:
                used[name] += (now[name] - self._last[name]) / len(self._running)
        self._last = now


class Audit:
    """Serves tasks through ``client`` and keeps a row of each."""

    def __init__(self, client: httpx.AsyncClient, meter: Meter, model: str) -> None:
        self._client, self._meter, self._model = client, meter, model
        self._rng = random.Random(SEED)
        self.rows: list[Row] = []
        self._number = 0

    async def one_by_one(self, each: int) -> None:
        for kind in KINDS:
            for _ in range(each):
                await self._serve("alone", kind)

    async def mixed(self, tasks: int, clients: int) -> None:
        shares = [kind.share for kind in KINDS.values()]
        waiting = iter(self._rng.choices(list(KINDS), shares, k=tasks))

        async def ask() -> None:
            for kind in waiting:
                await self._serve("mixed", kind)

        await asyncio.gather(*(ask() for _ in range(clients)))

    async def _serve(self, phase: str, kind: str) -> None:
        self._number += 1
        number = self._number
        text = f"[{number}] {' '.join(self._rng.choices(WORDS, k=KINDS[kind].words))}?"
        path, body = KINDS[kind].ask(text)
        task_id, tokens = "", 0
        self._meter.begin(number)
        began = time.perf_counter()
        try:
            task_id, tokens = await self._answer(path, body | {"model": self._model}, KINDS[kind])
            outcome = "ok"
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        seconds = time.perf_counter() - began
        cpu, memory = self._meter.end(number), self._meter.memory_mib()
        self.rows.append(
            Row(
                number,
                phase,
                kind,
                outcome,
                task_id,
                round(seconds, 4),
                tokens,
                *(round(cpu[name], 3) for name in ("orchestrator", "agent")),
                *(round(memory[name], 1) for name in ("orchestrator", "agent")),
            )
        )

    async def _answer(self, path: str, body: dict[str, Any], kind: Kind) -> tuple[str, int]:
        """The task's id and the tokens of the answer. Raises ValueError when it is not whole."""
        async with self._client.stream("POST", path, json=body) as response:
            if body.get("stream"):
                text, usage = await _read_stream(response)
            else:
                answer = json.loads(await response.aread())
                text, usage = kind.text(answer) if response.status_code == 200 else "", answer.get("usage") or {}
                if response.status_code != 200:
                    raise ValueError(f"{response.status_code} {answer['error']['message']}")
            # A model may end at once: that one token is all of its answer.
            if not text.strip() and usage.get("completion_tokens") != 1:
                raise ValueError("an answer without text")
            return response.headers.get("x-anywire-task", ""), usage.get("completion_tokens", 0)


async def _read_stream(response: httpx.Response) -> tuple[str, dict[str, Any]]:
    """The text of a stream and its usage. Raises ValueError when it does not come to its end."""
    text, ended = "", False
    usage: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            ended = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(f"a stream ended with {event['error']}")
            usage = event.get("usage") or usage
            text += "".join(each["delta"].get("content") or "" for each in event["choices"])
    if not ended:
        raise ValueError(f"a stream that does not end, {response.status_code}")
    return text, usage


@asynccontextmanager
async def fleet(engine: str) -> AsyncIterator[tuple[str, dict[str, list[int]]]]:
    """The address, and the processes of orchestrator and agent."""
    options: dict[str, Any] = {"name": engine}
    if engine == "llama":
        options |= {"context": CONTEXT, "embedding": True, "prompt_cache": 0}
    with options_of("dds") as transport, tempfile.TemporaryDirectory(prefix="anywire-") as folder:
        config = Path(folder) / "anywire.yaml"
        settings = {
            "server": {"port": 0},
            "transports": {"dds": transport},
            "engine": options,
            "agent": {"slots": SLOTS},
            "lease": {"timeout": 10.0},
            "log_level": "error",
        }
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        async with anywire_process("up", "--agents", "1", "--config", str(config)) as process:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            address = re.search(r"http://\S+", line)
            assert address, f"anywire up said: {line!r}"
            children = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
            yield address[0], {"orchestrator": [process.pid], "agent": children}


def write(rows: Sequence[Row], out: Path) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def show(rows: Sequence[Row]) -> None:
    print(f"{'':6} {'kind':18} {'tasks':>5} {'lost':>4} {'p50':>8} {'slowest':>8}  CPU: {'agent':>8} {'orch.':>7}")
    for phase, kind in dict.fromkeys((each.phase, each.kind) for each in rows):
        some = [each for each in rows if (each.phase, each.kind) == (phase, kind)]
        lost = sum(each.outcome != "ok" for each in some)
        seconds = [each.seconds for each in some]
        agent = statistics.fmean(each.agent_cpu_ms for each in some)
        orchestrator = statistics.fmean(each.orchestrator_cpu_ms for each in some)
        print(
            f"{phase:6} {kind:18} {len(some):5} {lost:4} {statistics.median(seconds):6.2f} s {max(seconds):6.2f} s "
            f"      {agent:5.0f} ms {orchestrator:4.1f} ms"
        )
    for name in ("orchestrator", "agent"):
        sizes = [getattr(each, f"{name}_mib") for each in rows]
        print(
            f"memory of the {name}: {sizes[0]:.0f} MiB after the first task, {max(sizes):.0f} at most, "
            f"{sizes[-1]:.0f} after the last"
        )


async def run(out: Path, each: int, mixed: int, clients: int, engine: str) -> list[str]:
    """What is wrong, a sentence each."""
    async with fleet(engine) as (url, processes):
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
            model = (await client.get("/v1/models")).json()["data"][0]["id"]
            audit = Audit(client, Meter(processes), model)
            try:
                await audit.one_by_one(each)
                began = time.perf_counter()
                await audit.mixed(mixed, clients)
                rate = mixed / (time.perf_counter() - began)
            finally:
                write(audit.rows, out)
    show(audit.rows)
    print(f"mixed: {rate:.2f} tasks per second with {clients} clients; all rows are in {out}")
    ids = Counter(each.task_id for each in audit.rows if each.outcome == "ok")
    return [
        *(f"task {each.number}, {each.kind}: {each.outcome}" for each in audit.rows if each.outcome != "ok"),
        *(f"{times} answers have the task id {name!r}" for name, times in ids.items() if times > 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("capacity.csv"))
    parser.add_argument("--each", type=int, default=20, help="tasks of each kind that are served alone")
    parser.add_argument("--mixed", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--engine", default="llama", help="the real model; synthetic tries the audit itself")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        faults = runner.run(run(**vars(parser.parse_args())))
    for each in faults:
        print(f"error: {each}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
