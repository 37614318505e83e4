"""Several hubs and many agents in one DDS domain: a request reaches its agent and no other, down to the DDS reader."""

from collections import Counter
from collections.abc import Callable

import pytest

from fleet_member import AgentCount, Request
from fleet_processes import fleet

AGENTS, HUBS, PROCESSES, TASKS = 12, 3, 3, 10
LEASE = 30.0
"""Seconds; long, so that nobody is lost on a machine that has no time for them."""


@pytest.mark.parametrize("multicast", ["on", "off"])
async def test_every_request_reaches_its_agent_and_no_other(dds_domain: int, multicast: str) -> None:
    options = {"domain": dds_domain, "multicast": multicast}
    async with fleet(AGENTS, HUBS, PROCESSES, options, lease=LEASE, meeting=60.0) as made:
        await made.open_at_once()
        assert (await made.open_last()).links == AGENTS * HUBS
        asked = await made.ask(TASKS)
        counts, hub_ids = await made.counts(), made.hub_ids
        assert await made.lost() == 0

    assert [each.wrong for each in asked] == [[]] * HUBS
    assert [each.answered for each in asked] == [AGENTS * TASKS] * HUBS
    levels: list[Callable[[AgentCount], list[Request]]] = [lambda count: count.taken, lambda count: count.run]
    for level in levels:
        assert {count.agent_id: Counter(level(count)) for count in counts} == {
            agent_id: Counter(Request(hub_id, agent_id, str(task)) for hub_id in hub_ids for task in range(TASKS))
            for agent_id in made.agent_ids
        }
    # Each hub has a writer for each agent, and a reader of requests is matched with those for its agent only.
    assert {count.agent_id: count.writers for count in counts} == dict.fromkeys(made.agent_ids, HUBS)
