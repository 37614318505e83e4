"""What has gone is forgotten: agents with ever new ids and models come, take a task, and go."""

from churn import Churn, sizes

AGENTS = 1_000
REMEMBERED = {
    ".registry._former",
    ".registry._rejected",
    ".registry.serving._formerly",
    ".attempts._abandoned",
    "._dropped._once._logged",
    "._kept._ended",
    "._waiting._models",
    ".health._records",
    ".health._away",
    ".health._doubtful",
    "._retries._budgets._budgets",
}
"""What is kept of the past, each bounded by a number."""


async def test_nothing_but_a_bounded_past_is_kept_of_agents_that_have_gone() -> None:
    """The seeded tenth of benchmarks/soak/test_memory.py: objects are counted here, and bytes there."""
    churn = Churn()
    await churn.orchestrator.start()
    try:
        await churn.pass_through(20)
        before = dict(sizes(churn.orchestrator))
        await churn.pass_through(AGENTS)
        after = dict(sizes(churn.orchestrator))
        assert set(after) >= REMEMBERED
        grown = {path for path, size in after.items() if size > before.get(path, 0) + 3}
        assert grown <= REMEMBERED
        assert not churn.orchestrator.agents()
        assert not churn.orchestrator.attempts.open
        assert after[".registry._former"] <= 1024
        assert after[".attempts._abandoned"] <= 256
        assert after["._dropped._once._logged"] <= 1000
        assert after["._kept._ended"] <= 1000
        assert after["._waiting._models"] <= 1024
        assert after[".health._records"] <= 1024
        assert after[".health._away"] <= 1024
        assert after[".health._doubtful"] <= 1024
        assert after["._retries._budgets._budgets"] <= 4096
    finally:
        await churn.orchestrator.close()
