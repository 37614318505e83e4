"""Opening and closing."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from anywire.messages import Chunk
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, Script
from anywire.testing.kit.answers import answer_each, chat, status
from anywire.testing.patience import expect
from anywire.testing.rig import Rig, read, request, submit


class EndTests:
    transport: str
    plugins: tuple[str, ...] = ()

    async def test_closing_twice_is_once(self, rig: Rig) -> None:
        port, _, _ = await rig.port("a")
        hub, sink, _ = await rig.hub()
        await sink.event("joined", "a")
        await port.close()
        await port.close()
        await hub.close()
        await hub.close()

    async def test_nothing_is_called_after_close(self, rig: Rig) -> None:
        """The laws see what is called while the other end goes on for a while."""
        _, second_sink, _ = await rig.hub()
        port, agent, agent_info = await rig.port("a", answer_each(50))
        other, _, other_info = await rig.port("b", answer_each(5))
        hub, sink, info = await rig.hub()
        for name in ("a", "b"):
            await sink.event("joined", name)
            await second_sink.event("joined", name)
            hub.send(name, request(info, f"to {name}"))
        await expect(hub.close(), "a hub's close returned")
        told = len(sink.events)
        await agent.event("hub_lost", info.hub_id)
        for number in range(10):
            port.report(status("a", agent_info.incarnation, f"{number}"))
            other.report(status("b", other_info.incarnation, f"{number}"))
        await second_sink.detail("a", "9")
        await expect(port.close(), "an agent's close returned")
        told_agent = len(agent.events)
        await second_sink.event("lost", "a")
        await asyncio.sleep(0.15)  # nothing is awaited here: it is the time in which nothing may be called
        assert (len(sink.events), len(agent.events)) == (told, told_agent)

    async def test_accepted_chunks_come_before_the_goodbye_of_a_closing_agent(self, rig: Rig) -> None:
        port, _, agent_info = await rig.port("a", answer_each(300, "{task}:{number}" + "x" * 1000))
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", request(info, "t"))
        await sink.event("chunk", "t")
        await expect(port.close(), "an agent's close returned")
        await sink.event("lost", "a", agent_info.incarnation)
        count = len(sink.chunks("t"))
        assert count == 301, f"{count} of 301 accepted chunks were delivered before the link was lost"

    async def test_accepted_tasks_come_before_the_goodbye_of_a_closing_hub(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for number in range(100):
            hub.send("a", request(info, f"t{number}", body="x" * 1000))
        await expect(hub.close(), "a hub's close returned")
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        count = len(agent.named("task"))
        assert count == 100, f"{count} of 100 accepted tasks were delivered before the link was lost"

    async def test_reply_after_the_hub_was_lost_is_silent(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a", options={"max_message_bytes": 100_000})
        hub, sink, info = await rig.hub(options={"max_message_bytes": 100_000})
        await sink.event("joined", "a")
        hub.send("a", request(info, "t"))
        reply = (await agent.event("task", "t"))[4]
        await expect(hub.close(), "a hub's close returned")
        await agent.event("hub_lost", info.hub_id)
        for text in ("late", "x" * 100_001, "\ud800"):
            reply.send(Chunk(info.hub_id, "t", 1, 0, (text,), final=True))
        await expect(reply.drain(), "drain of a lost hub returned")

    async def test_effective_settings_name_the_bounds(self, rig: Rig) -> None:
        transport = rig.new_transport(max_message_bytes=123_456, buffer_bytes=234_567)
        assert transport.effective_settings() == {}, "before opening nothing is in force"
        await rig.hub(transport=transport)
        settings = transport.effective_settings()
        for bound, value in (("max_message_bytes", "123456"), ("buffer_bytes", "234567")):
            assert settings.get(bound) == value, f"effective_settings does not name {bound} = {value}: {settings}"
        assert all(isinstance(value, str) for value in settings.values())

    async def test_declared_limit_is_that_of_the_default_options(self, rig: Rig) -> None:
        transport = rig.new_transport()
        assert (
            transport.capabilities.max_message_bytes == type(transport.config).model_fields["max_message_bytes"].default
        )

    async def test_nothing_is_left_behind(self, options: dict[str, Any]) -> None:
        packages = {"anywire"}

        async def use() -> None:
            async with Rig(self.transport, options, self.plugins) as rig:
                packages.add(rig.transport_class.__module__.partition(".")[0])
                await rig.agent("a")
                pipeline = await rig.pipeline("a")
                await read(submit(pipeline, Script(tag="t", chunks=20)))
                await expect(pipeline.submit(Submission("chat", MODEL, Script(tag="u").body())).result(), "an answer")
                await rig.fleet(pipeline, "client")
                await chat(await rig.client(), Script(tag="v"))

        def held() -> set[str]:
            gc.collect()
            threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
            names = {f"{fd} {_target(fd)}" for fd in Path("/proc/self/fd").glob("*")}
            return threads | _timers(packages) | {name for name in names if "socket:" in name or "pipe:" in name}

        async def gone() -> None:
            # A thread of a library that was told to end tells nobody when it has.
            while held() - before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        await use()  # what a library sets up once for the process is not a leak
        before, tasks = held(), len(asyncio.all_tasks())
        await use()
        await expect(gone(), "closed ends left nothing", seen=lambda: f": left are {held() - before}")
        assert len(asyncio.all_tasks()) == tasks, f"closed ends left tasks of the event loop: {asyncio.all_tasks()}"


def _timers(packages: set[str]) -> set[str]:
    """The timers of this event loop that call something of ``packages``, numbered; none where a loop hides them."""
    calls: Counter[str] = Counter()
    for handle in getattr(asyncio.get_running_loop(), "_scheduled", ()):
        called = getattr(handle, "_callback", None)
        if not handle.cancelled() and (getattr(called, "__module__", None) or "").partition(".")[0] in packages:
            calls[getattr(called, "__qualname__", repr(called))] += 1
    return {f"timer {name} {number}" for name, count in calls.items() for number in range(count)}


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""
