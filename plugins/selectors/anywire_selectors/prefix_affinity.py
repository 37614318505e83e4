"""The agent whose cache holds the beginning of the prompt."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import ClassVar, Literal

import pydantic

from anywire.scheduler import Outcome, QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig
from anywire_selectors.hash_ring import HashRing
from anywire_selectors.held_prompts import HeldPrompt, HeldPrompts

SLOT_ENGINES = ("llama", "llama_dds")
"""Engines that keep one prompt in each slot."""
MAX_TRIED = 16
"""Agents that hold the beginning that are looked at for one task."""
MAX_WALKED = 8
"""Agents of the ring that are looked at for one task."""
REFRESH = 64
"""Choices by the ring, at least, between two looks at all candidates."""
MAX_HELD = 32
"""Tasks that are held at once, at most: each is offered again whenever an agent has a free slot."""
MISSED = 8
"""Looks at all candidates at which an agent may be missing (it was busy) before it leaves the ring."""


class PrefixAffinityConfig(SelectorConfig):
    cache: Literal["auto", "slots", "shared"] = pydantic.Field(
        default="auto",
        description="What an agent's cache does. `slots`: each slot keeps its newest prompt for the next task in it, "
        "as llama.cpp does. `shared`: tasks that run at once share what it holds, as in vLLM. `auto`: `slots` for "
        "agents with the engine `llama` or `llama_dds`, `shared` for others.",
    )
    prompts: int = pydantic.Field(
        default=0,
        ge=0,
        le=100_000,
        description="Prompts that an agent's cache holds. 0: as many as the offer has slots, and 16 for each of them "
        "where it is `shared`.",
    )
    min_match: float = pydantic.Field(
        default=0.25, gt=0, le=1, description="Share of the prompt that an agent must hold to be preferred."
    )
    load_factor: float = pydantic.Field(
        default=1.5,
        gt=1,
        allow_inf_nan=False,
        description="How many times as loaded as the least loaded candidate an agent may become by this preference.",
    )
    idle_load: float = pydantic.Field(
        default=0.25, gt=0, le=1, description="Share of slots in use up to which all agents count as equally loaded."
    )
    skips: int = pydantic.Field(
        default=32,
        ge=0,
        le=1000,
        description="Times a task is held, at most, while the slot with its beginning is in use and waiting for it is "
        "expected to be shorter than reading the prompt anew. It is offered again when an agent has a free slot, and "
        "after 1 s.",
    )
    remembered: int = pydantic.Field(
        default=50_000, ge=1, description="Blocks of prompts (of 512 bytes) that are known; 10 MB of memory by default."
    )


class PrefixAffinity(Selector):
    """The agent whose cache holds most of the prompt's beginning, while it is not loaded too much. A beginning that
    nobody holds goes where consistent hashing puts it: to the first of the ring whose cache has room, else to the
    first, where it takes the place of another one. Without a beginning of a block, the least loaded agent.

    What a cache holds is derived from what was sent to it: an agent with n slots of llama.cpp holds the n newest
    prompts, a task overwrites the slot with the longest match, and a slot in use serves nobody else. A restart or a
    failure empties it. An agent may have ``load_factor`` times the load of the least loaded candidate, rounded up to
    whole slots; loads below ``idle_load`` count as that. So no agent has more than ``load_factor`` times the mean load
    of the candidates, or ``idle_load``, plus one task.

    Methods: consistent hashing with bounded loads, V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018 (with the least
    load for the mean: it is found without a scan, and is no greater); the longest known beginning as in SGLang's
    router (L. Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS 2024); delay
    scheduling (M. Zaharia et al., EuroSys 2010) for a slot in use, as long as what was measured says that it pays.
    """

    name: ClassVar[str] = "prefix_affinity"
    Config = PrefixAffinityConfig
    config: PrefixAffinityConfig
    wants_prefix = True

    def __init__(self, config: PrefixAffinityConfig) -> None:
        super().__init__(config)
        self._held = HeldPrompts(config.remembered)
        self._max_tasks = max(1, config.remembered // 5)
        """Tasks of which it is known that they were held, and those of which it is known what they read."""
        self._ring = HashRing()
        self._seen: dict[str, int] = {}
        """The look at all candidates at which an agent of the ring was last seen."""
        self._look = self._until_look = 0
        self._skipped: OrderedDict[str, tuple[int, str, int]] = OrderedDict()
        """Tasks that are held: how many times they were, for which agent, and in which round the last time."""
        self._lines, self._in_lines = Counter[str](), 0
        """How many tasks were held for each agent in this round, and for all together. An end of an attempt begins a
        new one, in which those that still wait are offered again: who was cancelled stands in no line any more."""
        self._round = 0
        self._unread: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Blocks that an agent had to read for a task of which its cache held nothing."""
        self._block_ms = self._task_ms = 0.0
        """Smoothed milliseconds for such a block, and for a task of which a cache held something."""
        self._scored: tuple[tuple[int, ...], dict[str, tuple[float, float]]] = ((), {})
        """The shares of the prompt asked about last that agents hold, by agent id: idle, and at all."""

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice | None:
        prefix, least = task.prefix, next(candidates.by_load())
        if not prefix:
            self._put(task, least, None)
            return Choice(least, reason="the prompt has no beginning of a block")
        need = max(1, math.ceil(self.config.min_match * len(prefix)))
        # The agent whose slot in use holds most, and how many blocks.
        home, most, bound = "", 0, self._bound(least)
        for depth, held in islice(self._held.matches(prefix, need), MAX_TRIED):
            agent = candidates.get(held.agent_id)
            if agent is None or (held.task_id and self._in_use(held, agent)):
                if held.task_id and not home:
                    home, most = held.agent_id, depth
            elif held.incarnation == agent.info.incarnation and (_is_below(agent, bound) or agent is least):
                if home and self._holds(task.task_id, home, most - depth):
                    return None
                self._put(task, agent, held)
                return Choice(agent, reason=f"its cache holds {depth} of {len(prefix)} blocks of the prompt")
        if home and self._holds(task.task_id, home, most):
            return None
        agent = self._by_hash(task, prefix[need - 1], candidates, least)
        self._put(task, agent, None)
        self._unread[task.task_id, agent.agent_id] = len(prefix)
        if len(self._unread) > self._max_tasks:
            self._unread.popitem(last=False)
        return Choice(agent, reason="no cache with room for it holds the prompt")

    def observed(self, outcome: Outcome) -> None:
        self._held.end(outcome.task_id, outcome.agent_id, outcome.agent_failed)
        self._round += 1
        self._lines.clear()
        self._in_lines = 0
        blocks = self._unread.pop((outcome.task_id, outcome.agent_id), 0)
        if not outcome.error:
            if blocks:
                self._block_ms = _smoothed(self._block_ms, (outcome.first_ms or outcome.total_ms) / blocks)
            if not blocks or self._task_ms == 0.0:
                self._task_ms = _smoothed(self._task_ms, outcome.total_ms)

    def within_bound(self, agent: AgentView, least: AgentView) -> bool:
        """Whether one more task leaves the agent within the bound, where ``least`` is the least loaded candidate."""
        return agent is least or _is_below(agent, self._bound(least))

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """The share of the prompt's blocks that its cache holds and that are not in use."""
        idle, all_ = self._scores(task).get(agent.agent_id, (0.0, 0.0))
        return all_ if self._shares(agent) or not agent.in_flight else idle

    def proposed(self, task: QueuedTask, candidates: Candidates) -> Iterable[AgentView]:
        """The candidates that hold some of the prompt."""
        found = (candidates.get(agent_id) for agent_id in self._scores(task))
        return [agent for agent in found if agent is not None]

    def chosen(self, task: QueuedTask, agent: AgentView) -> None:
        """Remember that ``agent`` gets the task."""
        matches = self._held.matches(task.prefix, 1)
        found = (held for _, held in matches if held.agent_id == agent.agent_id and not self._in_use(held, agent))
        self._put(task, agent, next(found, None))

    def _bound(self, least: AgentView) -> float:
        """The share of its slots that an agent may have in use, where ``least`` is the least loaded candidate."""
        return self.config.load_factor * max(least.load, self.config.idle_load)

    def _scores(self, task: QueuedTask) -> dict[str, tuple[float, float]]:
        prefix = task.prefix
        if self._scored[0] is not prefix or not prefix:
            shares: dict[str, tuple[float, float]] = {}
            for depth, held in self._held.matches(prefix, 1):
                share = depth / len(prefix)
                idle, all_ = shares.get(held.agent_id, (0.0, 0.0))
                shares[held.agent_id] = max(idle, 0.0 if held.task_id else share), max(all_, share)
                if len(shares) == MAX_TRIED:
                    break
            self._scored = prefix, shares
        return self._scored[1]

    def _shares(self, agent: AgentView) -> bool:
        """Whether tasks that run at once share its cache."""
        cache = self.config.cache
        return cache == "shared" or (cache == "auto" and agent.info.engine not in SLOT_ENGINES)

    def _in_use(self, held: HeldPrompt, agent: AgentView) -> bool:
        return held.task_id != "" and agent.in_flight > 0 and not self._shares(agent)

    def _put(self, task: QueuedTask, agent: AgentView, held: HeldPrompt | None) -> None:
        """A task goes to an agent, where ``held`` is the prompt in its cache that it begins with."""
        shares = self._shares(agent)
        capacity = self._capacity(task, agent, shares)
        if shares:
            # Nothing of another prompt is overwritten but what is a part of this one.
            held = held or self._held.whole(task.prefix, agent.agent_id)
            if held is not None and task.prefix[: len(held.prefix)] != held.prefix:
                held = None
        self._held.put(task.task_id, agent.agent_id, agent.info.incarnation, task.prefix, capacity, held)
        self._forget_skips(task.task_id)
        self._scored = (), {}

    def _capacity(self, task: QueuedTask, agent: AgentView, shares: bool) -> int:
        """How many prompts the agent's cache holds for the task's model; ``shares`` as `_shares` says."""
        if self.config.prompts:
            return self.config.prompts
        offer = agent.offers.get(task.keys[0].model)
        slots = (offer.slots if offer is not None else 0) or agent.status.slots or 1
        return slots * 16 if shares else slots

    def _holds(self, task_id: str, agent_id: str, blocks: int) -> bool:
        """Whether the task is held once more for a slot in use that holds ``blocks`` more of its prompt than any that
        is idle. Waiting, for half of the task there and for those held before, must be expected to be shorter than
        reading them."""
        times = self._forget_skips(task_id)
        if times >= self.config.skips or self._in_lines >= MAX_HELD:
            return False
        if self._block_ms * blocks <= self._task_ms * (0.5 + self._lines[agent_id]):
            return False
        self._skipped[task_id] = times + 1, agent_id, self._round
        self._lines[agent_id] += 1
        self._in_lines += 1
        if len(self._skipped) > self._max_tasks:
            self._skipped.popitem(last=False)
        return True

    def _forget_skips(self, task_id: str) -> int:
        """How many times the task was held; it stands in no line any more."""
        times, agent_id, round_ = self._skipped.pop(task_id, (0, "", 0))
        if times and round_ == self._round:
            self._lines[agent_id] -= 1
            self._in_lines -= 1
        return times

    def _by_hash(self, task: QueuedTask, key: int, candidates: Candidates, least: AgentView) -> AgentView:
        """The first candidate within the bound from the place of ``key`` on the ring whose cache has room for one more
        prompt, else the first."""
        if len(candidates) == 1:
            return least
        self._until_look -= 1
        if self._until_look < 0 or len(candidates) > len(self._ring):
            self._look_at_all(candidates)
        bound, first = self._bound(least), None
        for agent_id in islice(self._ring.walk(key), MAX_WALKED):
            agent = candidates.get(agent_id)
            if agent is not None and (_is_below(agent, bound) or agent is least):
                if self._held.count(agent_id, agent.info.incarnation) < self._capacity(
                    task, agent, self._shares(agent)
                ):
                    return agent
                first = first or agent
        return first or least

    def _look_at_all(self, candidates: Candidates) -> None:
        """Take new agents into the ring, and those out of it that were not seen for long. What this costs is spread
        over as many choices as there are candidates."""
        self._look += 1
        self._until_look = max(REFRESH, len(candidates))
        for agent in candidates:
            self._seen[agent.agent_id] = self._look
        oldest = self._look - MISSED
        if any(seen <= oldest for seen in self._seen.values()):
            self._seen = {agent_id: seen for agent_id, seen in self._seen.items() if seen > oldest}
            self._ring.keep(self._seen)
        self._ring.add(self._seen)


def _is_below(agent: AgentView, bound: float) -> bool:
    """Whether one more task leaves the agent within the bound, rounded up to whole slots. What rounding adds to a whole
    number is no further task."""
    return agent.in_flight < bound * agent.status.slots - 1e-9


def _smoothed(mean: float, value: float) -> float:
    return mean + 0.1 * (value - mean) if mean else value
