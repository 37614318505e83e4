"""The conformance kit for a service that is a file, and its model."""

import json
from pathlib import Path

import pytest

from anywire.errors import InvalidRequest
from anywire.events import TaskEnded
from anywire.testing.service_kit import ServiceConformance

ECHO = Path(__file__).with_name("echo.py")


class TestEcho(ServiceConformance):
    service = "echo"
    plugins = (str(ECHO),)

    async def test_it_says_what_the_user_said_last(self, tmp_path: Path) -> None:
        messages = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]
        ended: list[TaskEnded] = []
        async with self.running(tmp_path) as (_, bench):
            unsubscribe = bench.orchestrator.events.subscribe("test", ended.append, TaskEnded)
            for stream in (False, True):
                assert await bench.ask(json.dumps({"messages": messages}), model="echo", stream=stream) == "a b c "
            for body in ("[]", '{"messages": []}', '{"messages": [{"role": "user", "content": 3}]}'):
                with pytest.raises(InvalidRequest):
                    await bench.ask(body, model="echo")
            unsubscribe()
        assert [each.tokens for each in ended][:2] == [3, 3]
