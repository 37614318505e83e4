"""What the prompt caches of agents hold, as far as it follows from what was sent to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

MAX_HOLDERS = 8
"""Prompts, the newest ones, that are found by one beginning."""


class HeldPrompt(msgspec.Struct, eq=False):
    """A prompt in the cache of an agent, in that life of it. ``task_id`` is the task that reads or writes it now."""

    agent_id: str
    incarnation: int
    prefix: tuple[int, ...]
    task_id: str = ""


class _Holders:
    """The prompts that hold each of some blocks, the one used last at the end; ``blocks`` is how many blocks these
    are. All of them are beginnings of the same prompt."""

    __slots__ = ("blocks", "prompts")

    def __init__(self, prompts: list[HeldPrompt], blocks: int) -> None:
        self.prompts, self.blocks = prompts, blocks

    def used(self, held: HeldPrompt, is_known: bool) -> None:
        """A prompt was used that may be one of them if it ``is_known``."""
        prompts = self.prompts
        if is_known and held in prompts:
            prompts.remove(held)
        elif len(prompts) == MAX_HOLDERS:
            del prompts[0]
        prompts.append(held)


class HeldPrompts:
    """Prompts by each of their beginnings. At most ``max_blocks`` blocks are known, a prompt counting as one more than
    it has: those used longest ago are forgotten first."""

    def __init__(self, max_blocks: int) -> None:
        self._max_blocks, self._blocks = max_blocks, 0
        self._all: OrderedDict[int, HeldPrompt] = OrderedDict()
        """By ``id``, the one used last at the end; so is that of each agent."""
        self._of_agent: dict[str, OrderedDict[int, HeldPrompt]] = {}
        self._by_block: dict[int, _Holders] = {}
        """Prompts that begin with a block begin with all before it: one that newer ones have put out of a block's
        holders is no holder of the blocks before. Blocks that always came together have theirs together, so that a
        prompt with a long beginning that many have costs little."""
        self._of_task: dict[tuple[str, str], HeldPrompt] = {}

    def matches(self, prefix: tuple[int, ...], least: int) -> Iterator[tuple[int, HeldPrompt]]:
        """Prompts that begin with at least ``least`` of these blocks, each once, and with how many: the longest match
        first, of equals the one used last."""
        seen, longer = set[int](), None
        for _, depth, holders in self._runs(prefix):
            if depth < least:
                return
            # Where many prompts begin alike, the newest of them hold most blocks together.
            if holders is None or holders.prompts == longer:
                continue
            longer = holders.prompts.copy()
            for held in reversed(longer):
                if id(held) not in seen:
                    seen.add(id(held))
                    yield depth, held

    def whole(self, prefix: tuple[int, ...], agent_id: str) -> HeldPrompt | None:
        """The prompt of this agent used last that begins with all of these blocks."""
        holders = self._by_block.get(prefix[-1]) if prefix else None
        if holders is not None:
            for held in reversed(holders.prompts):
                if held.agent_id == agent_id:
                    return held
        return None

    def count(self, agent_id: str, incarnation: int) -> int:
        """How many prompts the cache of the agent holds in that life of it."""
        of_agent = self._of_agent.get(agent_id)
        if of_agent is None or next(iter(of_agent.values())).incarnation != incarnation:
            return 0
        return len(of_agent)

    def put(
        self,
        task_id: str,
        agent_id: str,
        incarnation: int,
        prefix: tuple[int, ...],
        capacity: int,
        replaced: HeldPrompt | None,
    ) -> None:
        """A task is sent to an agent that keeps ``capacity`` prompts; it overwrites ``replaced``."""
        is_known = replaced is not None and replaced.prefix == prefix and id(replaced) in self._all
        if is_known and replaced is not None:
            held = replaced
            self._all.move_to_end(id(held))
            self._of_agent[agent_id].move_to_end(id(held))
            self._of_task.pop((held.task_id, agent_id), None)
            held.task_id = task_id
        else:
            if replaced is not None:
                self.remove(replaced)
            held = HeldPrompt(agent_id, incarnation, prefix, task_id)
            self._all[id(held)] = held
            of_agent = self._of_agent.get(agent_id)
            if of_agent is None:
                of_agent = self._of_agent[agent_id] = OrderedDict()
            of_agent[id(held)] = held
            self._blocks += 1 + len(prefix)
        by_block = self._by_block
        for start, end, holders in self._runs(prefix):
            if holders is None:
                holders = _Holders([held], end - start)
            elif holders.blocks == end - start:
                holders.used(held, is_known)
                continue
            else:
                holders.blocks -= end - start
                holders = _Holders(holders.prompts.copy(), end - start)
                holders.used(held, is_known)
            for block in prefix[start:end]:
                by_block[block] = holders
        self._of_task[task_id, agent_id] = held
        self._bound(agent_id, incarnation, capacity)

    def end(self, task_id: str, agent_id: str, failed: bool) -> None:
        """A task has ended at an agent. What one that failed has left in the cache is unknown."""
        held = self._of_task.pop((task_id, agent_id), None)
        if held is not None and held.task_id == task_id:
            held.task_id = ""
            if failed:
                self.remove(held)

    def remove(self, held: HeldPrompt) -> None:
        """Forget a prompt; it need not be known any more."""
        if self._all.pop(id(held), None) is None:
            return
        of_agent = self._of_agent[held.agent_id]
        del of_agent[id(held)]
        if not of_agent:
            del self._of_agent[held.agent_id]
        self._blocks -= 1 + len(held.prefix)
        if self._of_task.get((held.task_id, held.agent_id)) is held:
            del self._of_task[held.task_id, held.agent_id]
        for start, end, holders in self._runs(held.prefix):
            if holders is None or held not in holders.prompts:
                break
            holders.prompts.remove(held)
            if not holders.prompts:
                for block in held.prefix[start:end]:
                    self._by_block.pop(block, None)

    def _runs(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, int, _Holders | None]]:
        """The blocks in runs that have their holders together, from the end on: where each begins, where it is over,
        and the holders, None where there are none."""
        find, end = self._by_block.get, len(prefix)
        while end:
            holders = find(prefix[end - 1])
            if holders is None:
                start = end - 1
                while start and find(prefix[start - 1]) is None:
                    start -= 1
            else:
                start = max(0, end - holders.blocks)
                while find(prefix[start]) is not holders:
                    start += 1
            yield start, end, holders
            end = start

    def _bound(self, agent_id: str, incarnation: int, capacity: int) -> None:
        """Forget what the agent's cache has no room for, or has lost with an earlier life of it, and what is too much
        here."""
        of_agent = self._of_agent[agent_id]
        if next(iter(of_agent.values())).incarnation != incarnation:
            for held in [held for held in of_agent.values() if held.incarnation != incarnation]:
                self.remove(held)
        while len(of_agent) > capacity:
            self.remove(next((held for held in of_agent.values() if not held.task_id), next(iter(of_agent.values()))))
        while self._blocks > self._max_blocks and len(self._all) > 1:
            self.remove(next(iter(self._all.values())))
