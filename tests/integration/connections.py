"""What holds for every transport whose hubs listen at addresses, beyond the contract that the conformance kit tests."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from tests.integration.wire_bench import Bench, echo, final, request
from tests.integration.wire_faults import Log

from anywire import errors
from anywire.messages import AgentStatus, Cancel, Chunk, HubInfo
from anywire.testing.recorder import PATIENCE, RecordingHubSink
from anywire.transport import BUFFER_BYTES
from reserved import free_ports


class ListeningHubs:
    """Subclass it beside fixtures ``bench`` and ``log`` of the transport."""

    scheme: ClassVar[str] = ""
    settled: ClassVar[dict[str, str]]
    """Settings in effect by default; ``{address}`` stands for where the hub listens."""

    def address(self, port: int) -> str:
        return f"{self.scheme}127.0.0.1:{port}"

    async def test_agent_that_was_there_first_joins_a_hub_that_comes_and_its_successor(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        _, agent, _ = await bench.port(on_task=echo, agent_addresses=self.address(port))
        first, sink = await bench.hub("first", agent_addresses=self.address(port))
        await sink.event("joined", "a")
        await first.close()
        await agent.event("hub_lost", "first")
        second, sink = await bench.hub("second", agent_addresses=self.address(port))
        await sink.event("joined", "a")
        second.send("a", request("t", "second", "anew"))
        assert (await sink.final("t")).deltas == ("anew",)

    async def test_a_newer_incarnation_wins_and_the_older_is_refused(self, bench: Bench, log: Log) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        await bench.port(incarnation=5, agent_addresses=self.address(port))
        await sink.event("joined", "a", 5)
        _, newer, _ = await bench.port(incarnation=7, on_task=echo, agent_addresses=self.address(port))
        await sink.event("joined", "a", 7)
        await bench.port(incarnation=6, agent_addresses=self.address(port))
        await log.says("in a later life")
        hub.send("a", request("t"))
        await sink.final("t")
        assert newer.named("task")
        kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
        assert kinds == [("joined", "a", 5), ("lost", "a", 5), ("joined", "a", 7)]

    async def test_hubs_take_the_first_free_address_until_none_is_left(self, bench: Bench) -> None:
        ports = free_ports(2)
        addresses = [self.address(port) for port in ports]
        for number, expected in enumerate(addresses):
            transport = bench.transport(agent_addresses=addresses)
            assert transport.effective_settings() == {}
            hub = await transport.open_hub(HubInfo(f"h{number}", 1), "agent", RecordingHubSink())
            bench.stack.push_async_callback(hub.close)
            settled = {key: value.format(address=expected) for key, value in self.settled.items()}
            assert transport.effective_settings().items() >= settled.items()
        with pytest.raises(errors.TransportUnavailable, match=f"{ports[0]}.*in use.*{ports[1]}.*in use") as caught:
            await bench.hub(agent_addresses=addresses)
        assert caught.value.code == "transport_unavailable"


class OneConnection(ListeningHubs):
    """Where a link is one connection, which the agent makes."""

    async def test_cut_connection_loses_the_link_on_both_sides_and_it_joins_again(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        proxy = await bench.proxy(port)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        _, agent, info = await bench.port(agent_addresses=self.address(proxy.port))
        await sink.event("joined", "a")
        hub.send("a", request("t1"))
        reply = (await agent.event("task", "t1"))[4]
        proxy.cut()
        await sink.event("lost", "a", info.incarnation)
        await agent.event("hub_lost", "h")
        reply.send(final(request("t1"), "too late"))
        await asyncio.wait_for(reply.drain(), PATIENCE)
        await sink.until(lambda: len(sink.named("joined")) == 2)
        hub.send("a", request("t2"))
        (await agent.event("task", "t2"))[4].send(final(request("t2"), "in time"))
        assert (await sink.final("t2")).deltas == ("in time",)
        assert sink.chunks("t1") == []
        assert [event[0] for event in sink.events if event[0] in ("joined", "lost")] == ["joined", "lost", "joined"]

    async def test_what_an_agent_sent_before_it_closed_arrives_before_it_is_lost(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        end, agent, _ = await bench.port(agent_addresses=self.address(port))
        await sink.event("joined", "a")
        hub.send("a", request("t"))
        reply = (await agent.event("task", "t"))[4]
        for number in range(2000):
            reply.send(Chunk("h", "t", 1, number, ("x" * 1000,)))
        reply.send(Chunk("h", "t", 1, 2000, final=True))
        await end.close()
        await sink.event("lost", "a")
        assert [chunk.seq for chunk in sink.chunks("t")] == list(range(2001))
        assert sink.events[-1][0] == "lost"

    async def test_full_queue_is_congested_disturbs_nobody_and_loses_nothing(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        proxy = await bench.proxy(port)
        hub, sink = await bench.hub(agent_addresses=self.address(port), lease_ms=60_000)
        _, slow, _ = await bench.port("slow", agent_addresses=self.address(proxy.port), lease_ms=60_000)
        await bench.port("quick", echo, agent_addresses=self.address(port))
        await sink.event("joined", "slow")
        await sink.event("joined", "quick")
        proxy.hold()
        body, sent = "x" * 10_000, 0
        for round_ in range(100):  # what the kernel takes in the meantime makes room, until it takes no more
            before = sent
            with pytest.raises(errors.Congested, match="wait for"):  # noqa: PT012
                while True:
                    hub.send("slow", request(f"t{sent}", body=body))
                    sent += 1
            assert sent > before  # there was room
            assert (sent + 1) * (len(body) + 200) > BUFFER_BYTES  # the next one would have been over the bound
            if round_ == 0:
                hub.send("slow", Cancel("h", "t0", 1))
            room = asyncio.ensure_future(hub.drain("slow"))
            hub.send("quick", request(f"q{round_}", body="unhindered"))
            assert (await sink.final(f"q{round_}")).deltas == ("unhindered",)
            if not room.done():
                break
        assert not room.done()
        proxy.flow()
        await asyncio.wait_for(room, PATIENCE)
        hub.send("slow", request("last"))
        await slow.event("task", "last")
        assert [event[1] for event in slow.named("task")] == [*(f"t{number}" for number in range(sent)), "last"]
        assert slow.named("cancel")

    @pytest.mark.parametrize("chars", [10_000, 100_000])
    async def test_reply_to_a_hub_that_does_not_read_is_congested_and_loses_nothing(
        self, bench: Bench, chars: int
    ) -> None:
        (port,) = free_ports(1)
        proxy = await bench.proxy(port)
        hub, sink = await bench.hub(agent_addresses=self.address(port), lease_ms=60_000)
        end, agent, info = await bench.port(agent_addresses=self.address(proxy.port), lease_ms=60_000)
        await sink.event("joined", "a")
        hub.send("a", request("t"))
        reply = (await agent.event("task", "t"))[4]
        proxy.hold()
        sent = 0
        with pytest.raises(errors.Congested):  # noqa: PT012
            while True:
                reply.send(Chunk("h", "t", 1, sent, ("y" * chars,)))
                sent += 1
        end.report(AgentStatus("a", info.incarnation))  # best effort: no error
        proxy.flow()
        await asyncio.wait_for(reply.drain(), PATIENCE)
        reply.send(Chunk("h", "t", 1, sent, final=True))
        await sink.final("t")
        assert [chunk.seq for chunk in sink.chunks("t")] == list(range(sent + 1))

    async def test_receiver_with_a_lower_limit_loses_the_link_and_nothing_else(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        _, agent, _ = await bench.port(agent_addresses=self.address(port), max_message_bytes=2000)
        await bench.port("b", echo, agent_addresses=self.address(port))
        await sink.event("joined", "a")
        await sink.event("joined", "b")
        hub.send("a", request("t", body="x" * 100_000))
        await sink.event("lost", "a")
        self.check_told_of_the_limit((await agent.event("hub_lost", "h"))[3])
        await sink.until(lambda: len([event for event in sink.named("joined") if event[1] == "a"]) == 2)
        hub.send("b", request("u"))
        await sink.final("u")

    def check_told_of_the_limit(self, reason: str) -> None:
        """For transports whose library says why a connection ended."""

    async def test_address_of_another_machine_is_passed_over(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        both = [f"{self.scheme}192.0.2.1:50051", self.address(port)]
        _, sink = await bench.hub(agent_addresses=both)
        await bench.port(agent_addresses=both)
        await sink.event("joined", "a")


class OneLifeAtATime:
    """Laws of incarnations and of callbacks that raise; subclass it beside a fixture ``bench`` of the transport."""

    scheme: ClassVar[str] = ""

    def address(self, port: int) -> str:
        return f"{self.scheme}127.0.0.1:{port}"

    async def test_the_later_of_two_lives_wins_and_the_earlier_joins_when_it_has_ended(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        _, earlier, _ = await bench.port(incarnation=5, on_task=echo, agent_addresses=self.address(port))
        await sink.event("joined", "a", 5)
        later, _, _ = await bench.port(incarnation=7, on_task=echo, agent_addresses=self.address(port))
        await sink.event("joined", "a", 7)
        await earlier.event("hub_lost", "h")
        await later.close()
        await sink.until(lambda: len(sink.named("joined")) == 3)
        hub.send("a", request("t", body="back"))
        assert (await sink.final("t")).deltas == ("back",)
        kinds = [event[:3] for event in sink.events if event[0] in ("joined", "lost")]
        assert kinds == [
            ("joined", "a", 5),
            ("lost", "a", 5),
            ("joined", "a", 7),
            ("lost", "a", 7),
            ("joined", "a", 5),
        ]

    async def test_a_callback_that_raises_costs_nothing_else(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(agent_addresses=self.address(port))
        add = sink.add

        def add_and_raise(*event: Any) -> None:
            add(*event)
            raise RuntimeError("an owner that fails in every callback")

        sink.add = add_and_raise  # type: ignore[method-assign]
        _, agent, _ = await bench.port(agent_addresses=self.address(port))
        other, _, _ = await bench.port("b", on_task=echo, agent_addresses=self.address(port))
        for agent_id in ("a", "b"):
            await sink.event("joined", agent_id)
            await sink.event("reported", agent_id)
        hub.send("a", request("t"))
        reply = (await agent.event("task", "t"))[4]
        for number in range(3):
            reply.send(Chunk("h", "t", 1, number, (f"{number}",), final=number == 2))
        await sink.final("t")
        assert [chunk.seq for chunk in sink.chunks("t")] == [0, 1, 2]
        await other.close()
        await sink.event("lost", "b")
        hub.send("a", request("u"))
        (await agent.event("task", "u"))[4].send(final(request("u"), "still linked"))
        assert (await sink.final("u")).deltas == ("still linked",)
