"""Each selector of the package in the real pipeline: every task is answered, and the selector fails at none."""

import asyncio

import pytest
from tests.conformance import package_selectors
from tests.integration.gateway_serving import says, serving

from anywire.plugins import Plugins
from anywire.submission import Submission

TEXT = "A beginning that many prompts have in common. " * 40


@pytest.mark.parametrize("name", sorted(package_selectors.NAMES))
async def test_every_task_is_answered(name: str) -> None:
    plugins = Plugins()
    plugins.manager.register(package_selectors)
    selector = plugins.create("selectors", name, {"policies": {"x": "prefix_affinity"}} if name == "by_policy" else {})
    async with serving(says("an", "swer"), slots=2, selector=selector) as served:

        async def ask(number: int) -> str:
            body = f'{{"messages": [{{"role": "user", "content": "{TEXT} {number}"}}]}}'
            stream = served.orchestrator.submit(
                Submission("chat", "m", body, session=f"s{number % 3}", policy="x", hints={"urgency": "high"})
            )
            return "".join([delta async for chunk in stream for delta in chunk.deltas])

        answers = await asyncio.gather(*(ask(number) for number in range(30)))
        assert answers == ["answer"] * 30
        assert not served.orchestrator.boundary.failures
