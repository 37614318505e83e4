"""Commands and their results arrive as they were sent, and are bounded and ended like tasks."""

from __future__ import annotations

from functools import partial

import pytest

from anywire import errors
from anywire.messages import MAX_COMMAND_BYTES, Cancel, Command, CommandResult, Credit
from anywire.testing.kit.answers import following, rest, result_each
from anywire.testing.patience import FACTOR, expect
from anywire.testing.recorder import Recorder
from anywire.testing.rig import Rig
from anywire.transport import Reply

FAILED = errors.to_wire(errors.EngineFailed("no such model: ü€😀"))


def came(recorder: Recorder, kind: str, count: int) -> bool:
    return len(recorder.named(kind)) == count


class CommandTests:
    async def test_a_command_arrives_as_sent_and_its_results_as_answered(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        sent = Command(
            info.hub_id, "c1", "load", '{"model": "ü\\n€😀"}', ("child", "b/ü"), 60_000, 3, "tenant ü", "observe"
        )
        hub.send("a", sent)
        _, _, _, received, reply, *_ = await agent.event("command", "c1")
        assert received == sent
        results = [
            CommandResult(info.hub_id, "c1", 0, '{"loaded": 0.5, "of": "ü€😀"}'),
            CommandResult(info.hub_id, "c1", 1, ""),
            CommandResult(info.hub_id, "c1", 2, "", True, FAILED),
        ]
        for result in results:
            reply.send(result)
        await sink.final_result("c1")
        assert sink.results("c1") == results

    async def test_results_keep_their_order_and_credit_for_them_arrives(self, rig: Rig) -> None:
        """Eight results for each credit, as an agent sends them."""
        answering: dict[str, tuple[Reply, int]] = {}

        def begin(command: Command, reply: Reply) -> None:
            answering[command.id] = (reply, 0)
            go_on(command.hub_id, command.id, command.credit)

        def go_on(hub_id: str, command_id: str, credit: int) -> None:
            reply, seq = answering[command_id]
            for number in range(seq, seq + credit):
                reply.send(CommandResult(hub_id, command_id, number, f'"{number}"', number == 99))
            answering[command_id] = (reply, seq + credit)

        _, agent, _ = await rig.port("a", on_command=begin)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Command(info.hub_id, "c1", "logs", credit=10))
        for read in range(10, 100, 10):
            await sink.until(partial(came, sink, "result", read), f"{read} results came")
            hub.send("a", Credit(info.hub_id, "c1", 0, 10))
            await agent.until(partial(came, agent, "credit", read // 10), "the credit came")
            assert agent.named("credit")[-1][1:3] == ("c1", 0)
            go_on(info.hub_id, "c1", 10)
        await sink.final_result("c1")
        assert [result.seq for result in sink.results("c1")] == list(range(100))
        assert [result.data for result in sink.results("c1")] == [f'"{number}"' for number in range(100)]

    async def test_cancel_of_a_command_has_attempt_0_and_may_overtake_it(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Cancel(info.hub_id, "early", 0, "first"))
        hub.send("a", Command(info.hub_id, "early", "logs"))
        hub.send("a", Command(info.hub_id, "late", "logs"))
        reply: Reply = (await agent.event("command", "late"))[4]
        hub.send("a", Cancel(info.hub_id, "late", 0, "because"))
        assert (await agent.event("cancel", "late"))[3] == Cancel(info.hub_id, "late", 0, "because")
        assert (await agent.event("cancel", "early"))[3] == Cancel(info.hub_id, "early", 0, "first")
        await agent.event("command", "early")
        cancelled = errors.to_wire(errors.TaskCancelled("because"))
        reply.send(CommandResult(info.hub_id, "late", 0, "", True, cancelled))
        assert (await sink.final_result("late")).error == cancelled

    async def test_a_pipeline_is_given_the_results_in_order(self, rig: Rig) -> None:
        """More than may be under way at once, so that credit must pass."""
        _, engine = await rig.agent("a")
        pipeline = await rig.pipeline("a")
        results = await rest(pipeline.command(("a",), "count", {"count": 300, "text": "ü€😀"}))
        assert results == list(range(300))
        assert engine.named("command") == [("command", {"count": 300, "text": "ü€😀"})]

    async def test_a_command_ends_with_the_engine_s_error(self, rig: Rig) -> None:
        await rig.agent("a")
        pipeline = await rig.pipeline("a")
        failing = pipeline.command(("a",), "count", {"count": 3, "fail": True})
        assert [await following(failing, number) for number in range(3)] == [0, 1, 2]
        with pytest.raises(errors.EngineFailed, match="the command says so"):
            await following(failing, 3)
        with pytest.raises(errors.UnknownCommand, match="nonsense"):
            await rest(pipeline.command(("a",), "nonsense"))

    async def test_a_command_that_nobody_waits_for_is_cancelled_at_the_engine(self, rig: Rig) -> None:
        _, engine = await rig.agent("a")
        pipeline = await rig.pipeline("a")
        held = pipeline.command(("a",), "count", {"count": 1, "hold": True})
        assert await following(held) == 0
        await held.aclose()
        await engine.event("command_cancelled")

    async def test_a_lost_agent_ends_its_command(self, rig: Rig) -> None:
        agent, _ = await rig.agent("a")
        pipeline = await rig.pipeline("a")
        held = pipeline.command(("a",), "count", {"count": 1, "hold": True})
        assert await following(held) == 0
        await agent.close()
        with pytest.raises((errors.AgentLost, errors.TaskCancelled, errors.ShuttingDown)):
            await following(held, 1)

    async def test_a_command_sent_twice_comes_twice(self, rig: Rig) -> None:
        """That it is done once is the agent's rule, and not the wire's."""
        _, agent, _ = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for _ in range(2):
            hub.send("a", Command(info.hub_id, "c1", "load"))
        await agent.until(lambda: len(agent.named("command")) == 2, "both commands of one id arrive")

    async def test_none_of_many_commands_is_lost(self, rig: Rig) -> None:
        _, agent, _ = await rig.port("a", on_command=result_each(3))
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        for number in range(100):
            hub.send("a", Command(info.hub_id, f"c{number}", "load"))

        def missing() -> list[int]:
            came = {event[1] for event in agent.named("command")}
            return [number for number in range(100) if f"c{number}" not in came]

        try:
            await agent.until(lambda: not missing(), "each of 100 commands arrives", 4.0 * FACTOR)
        except AssertionError as error:
            raise AssertionError(f"accepted by send and never delivered, of 100: {missing()}; {error}") from None
        for number in range(100):
            await sink.final_result(f"c{number}")
            assert [result.seq for result in sink.results(f"c{number}")] == [0, 1, 2, 3]

    async def test_the_largest_arguments_and_results_travel(self, rig: Rig) -> None:
        text = "ü" * (MAX_COMMAND_BYTES // 2)

        def answer(command: Command, reply: Reply) -> None:
            for seq in range(5):
                reply.send(CommandResult(command.hub_id, command.id, seq, command.arguments, seq == 4))

        await rig.port("a", on_command=answer)
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Command(info.hub_id, "c1", "load", text))
        await sink.final_result("c1")
        assert [result.data == text for result in sink.results("c1")] == [True] * 5, "a result arrived changed"

    async def test_accepted_results_come_before_the_goodbye_of_a_closing_agent(self, rig: Rig) -> None:
        port, _, agent_info = await rig.port("a", on_command=result_each(300, "x" * 1000))
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Command(info.hub_id, "c1", "logs"))
        await sink.event("result", "c1")
        await expect(port.close(), "an agent's close returned")
        await sink.event("lost", "a", agent_info.incarnation)
        count = len(sink.results("c1"))
        assert count == 301, f"{count} of 301 accepted results were delivered before the link was lost"

    async def test_a_lost_link_ends_commands_at_both_ends(self, rig: Rig) -> None:
        port, agent, agent_info = await rig.port("a")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Command(info.hub_id, "c1", "logs"))
        reply: Reply = (await agent.event("command", "c1"))[4]
        await expect(hub.close(), "a hub's close returned")
        await agent.event("hub_lost", info.hub_id, info.incarnation)
        for data in ("late", "\ud800"):
            reply.send(CommandResult(info.hub_id, "c1", 0, data, True))
        await expect(reply.drain(), "drain of a lost hub returned")
        hub, sink, info = await rig.hub()
        await sink.event("joined", "a")
        hub.send("a", Command(info.hub_id, "c2", "logs"))
        await agent.event("command", "c2")
        await expect(port.close(), "an agent's close returned")
        await sink.event("lost", "a", agent_info.incarnation)
        assert sink.named("result") == [], "a result came of a command that was never answered"
        with pytest.raises(errors.AgentUnavailable):
            hub.send("a", Command(info.hub_id, "c3", "logs"))
