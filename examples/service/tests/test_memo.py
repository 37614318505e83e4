"""The conformance kit, and what this service is for."""

from pathlib import Path

import msgspec
import pytest

from anywire.caller import Caller
from anywire.errors import EngineFailed
from anywire.route import Response
from anywire.testing.doubles import Script, ScriptedEngine
from anywire.testing.service_bench import service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_memo import Memo, MemoConfig


class TestMemo(ServiceConformance):
    service = "memo"


def body(tag: str, temperature: float = 0, chunks: int = 1, fail_after: int = -1) -> str:
    script = msgspec.to_builtins(Script(tag, chunks, fail_after=fail_after))
    return msgspec.json.encode({**script, "temperature": temperature}).decode()


async def test_what_was_asked_before_is_answered_without_an_agent(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(Memo(MemoConfig()), state=tmp_path, engine=engine) as bench:
        for stream in (False, True, False):
            assert await bench.ask(body("same", chunks=3), stream=stream) == Script("same", 3).text()
        assert len(engine.recorder.named("started")) == 1
        answer = await bench.call("GET", "/memo")
        assert isinstance(answer, Response)
        assert msgspec.json.decode(answer.body) == {"entries": 1}


async def test_what_is_left_to_chance_fails_or_is_another_tenants_is_asked_again(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(Memo(MemoConfig()), state=tmp_path, engine=engine) as bench:
        for _ in range(2):
            await bench.ask(body("chance", 0.7))
            with pytest.raises(EngineFailed):
                await bench.ask(body("failing", fail_after=0))
        for tenant in ("a", "b"):
            await bench.ask(body("secret"), caller=Caller(tenant=tenant))
        asked = [event[1] for event in engine.recorder.named("started")]
        assert asked == ["chance", "failing", "chance", "failing", "secret", "secret"]


async def test_the_oldest_answer_goes_first(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with service_bench(Memo(MemoConfig(entries=2)), state=tmp_path, engine=engine) as bench:
        for tag in ("1", "2", "3", "2", "1"):
            await bench.ask(body(tag))
        assert [event[1] for event in engine.recorder.named("started")] == ["1", "2", "3", "1"]
