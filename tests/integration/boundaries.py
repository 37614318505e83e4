"""What a peer's or a plugin's fault may cost, what a bound is, and what a pause is: for transports with one address."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from tests.integration import bare_peer
from tests.integration.wire_bench import Bench, echo, final, log_of, request

from anywire import errors
from anywire.messages import AgentStatus, Chunk, HubInfo
from anywire.testing.recorder import PATIENCE, RecordingHubSink
from anywire.testing.rig import ProcessPeer
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES
from reserved import free_ports

LEASE_MS = 1000

ODD = {
    "number for text": Chunk("h", "t", 1, 0, (5,)),  # type: ignore[arg-type]
    "nothing for text": Chunk("h", "t", 1, 0, extra=None),  # type: ignore[arg-type]
    "no deltas": Chunk("h", "t", 1, 0, None),  # type: ignore[arg-type]
    "half a character": Chunk("h", "t", 1, 0, ("\ud800",)),
    "text for number": Chunk("h", "t", 1, "first"),  # type: ignore[arg-type]
    "number over 64 bits": Chunk("h", "t", 1, 2**70),
}


class Boundaries:
    """Subclass it beside a fixture ``bench`` of the transport."""

    transport: ClassVar[str]
    scheme: ClassVar[str] = ""

    def here(self, port: int) -> dict[str, Any]:
        return {"agent_addresses": [f"{self.scheme}127.0.0.1:{port}"]}

    async def peer(self, bench: Bench, role: str, port: int, peer_id: str) -> ProcessPeer:
        peer = await bare_peer.start(role, self.transport, self.here(port), peer_id, LEASE_MS)
        bench.stack.push_async_callback(peer.stop)
        return peer

    # Faults

    async def test_callbacks_that_raise_are_logged_and_cost_nothing_else(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(**self.here(port))
        _, agent, _ = await bench.port(on_task=echo, **self.here(port))
        await sink.event("joined", "a")
        task_received, chunk_received = agent.task_received, sink.chunk_received

        def failing_task(hub_id: str, incarnation: int, task: Any, reply: Any) -> None:
            if task.task_id == "bad task":
                raise RuntimeError("the agent's own fault")
            task_received(hub_id, incarnation, task, reply)

        def failing_chunk(agent_id: str, incarnation: int, chunk: Chunk) -> None:
            if chunk.task_id == "bad chunk":
                raise RuntimeError("the hub's own fault")
            chunk_received(agent_id, incarnation, chunk)

        agent.task_received, sink.chunk_received = failing_task, failing_chunk  # type: ignore[method-assign]
        with log_of("") as log:
            for task_id in ("bad task", "bad chunk", "good"):
                hub.send("a", request(task_id, body=task_id))
            assert (await sink.final("good")).deltas == ("good",)
            await log.says("failing_task", "failing_chunk")
        assert not sink.named("lost")
        assert not agent.named("hub_lost")

    @pytest.mark.parametrize("chunk", ODD.values(), ids=ODD)
    async def test_chunk_that_cannot_be_encoded_is_refused_and_the_link_goes_on(
        self, bench: Bench, chunk: Chunk
    ) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(**self.here(port))
        _, agent, _ = await bench.port(**self.here(port))
        await sink.event("joined", "a")
        hub.send("a", request("t"))
        reply = (await agent.event("task", "t"))[4]
        with pytest.raises(errors.TransportError) as caught:
            reply.send(chunk)
        assert type(caught.value) is errors.TransportError
        reply.send(final(request("t"), "better"))
        assert (await sink.final("t")).deltas == ("better",)
        assert not sink.named("lost")

    async def test_older_life_of_a_hub_is_lost_first_and_refused_afterwards(self, bench: Bench) -> None:
        ports = free_ports(3)
        addresses: dict[str, Any] = {"agent_addresses": [self.here(port)["agent_addresses"][0] for port in ports]}
        await bench.hub("h", incarnation=5, **self.here(ports[0]))
        _, agent, _ = await bench.port(on_task=echo, **addresses)
        await agent.event("hub_joined", "h", 5)
        newer, sink = await bench.hub("h", incarnation=7, **self.here(ports[1]))
        await agent.event("hub_joined", "h", 7)
        with log_of("") as log:
            await bench.hub("h", incarnation=6, **self.here(ports[2]))
            await log.says("in a later life")
        await sink.event("joined", "a")
        newer.send("a", request("t"))
        await sink.final("t")
        kinds = [event[:3] for event in agent.events if event[0] in ("hub_joined", "hub_lost")]
        assert kinds == [("hub_joined", "h", 5), ("hub_lost", "h", 5), ("hub_joined", "h", 7)]

    # Bounds

    async def test_bounds_are_settings_in_effect(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        transport = bench.transport(**self.here(port), buffer_bytes=100_000)
        hub = await transport.open_hub(HubInfo("h", 1), "agent", RecordingHubSink())
        bench.stack.push_async_callback(hub.close)
        settings = transport.effective_settings()
        assert (settings["max_message_bytes"], settings["buffer_bytes"]) == (str(MAX_MESSAGE_BYTES), "100000")

    @pytest.mark.parametrize("character", ["x", '"', "\x01"], ids=["plain", "quotes", "control"])
    async def test_largest_payload_travels_both_ways_whatever_it_holds(self, bench: Bench, character: str) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(**self.here(port))
        await bench.port(on_task=echo, **self.here(port))
        await sink.event("joined", "a")
        body = character * MAX_MESSAGE_BYTES
        hub.send("a", request("t", body=body))
        assert (await sink.final("t")).deltas[0] == body
        with pytest.raises(errors.PayloadTooLarge, match=str(MAX_MESSAGE_BYTES)):
            hub.send("a", request("u", body=body + "x"))

    async def test_after_drain_a_message_of_any_legal_size_is_accepted(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(**self.here(port))
        _, agent, _ = await bench.port(**self.here(port))
        await sink.event("joined", "a")
        for number in range(4):
            await asyncio.wait_for(hub.drain("a"), PATIENCE)
            hub.send("a", request(f"t{number}", body="x" * 3 * BUFFER_BYTES))
            with pytest.raises(errors.Congested, match="buffer_bytes"):
                hub.send("a", request("second", body="x" * 3 * BUFFER_BYTES))
        await agent.event("task", "t3")
        reply = agent.named("task")[0][4]
        for number in range(4):
            await asyncio.wait_for(reply.drain(), PATIENCE)
            reply.send(Chunk("h", "t0", 1, number, ("y" * 3 * BUFFER_BYTES,), final=number == 3))
        await sink.final("t0")
        assert [chunk.seq for chunk in sink.chunks("t0")] == [0, 1, 2, 3]

    async def test_paused_agent_congests_its_hub_and_gets_everything_when_it_goes_on(self, bench: Bench) -> None:
        (port,) = free_ports(1)
        hub, sink = await bench.hub(lease_ms=60_000, **self.here(port))
        agent = await self.peer(bench, "agent", port, "slow")
        await bench.port("quick", echo, **self.here(port))
        await sink.event("joined", "slow")
        await sink.event("joined", "quick")
        agent.pause()
        sent, body = 0, "x" * 20_000

        async def fill() -> None:
            nonlocal sent
            while True:
                hub.send("slow", request(f"t{sent}", body=body))
                sent += 1
                await asyncio.sleep(0)

        with pytest.raises(errors.Congested, match="buffer_bytes"):
            await asyncio.wait_for(fill(), PATIENCE)
        hub.send("quick", request("q"))
        await sink.final("q")
        room = asyncio.ensure_future(hub.drain("slow"))
        agent.resume()
        await asyncio.wait_for(room, PATIENCE)
        hub.send("slow", request("last", body="x" * 2 * BUFFER_BYTES))
        await sink.final("last")
        await sink.until(lambda: len([each for each in sink.named("chunk") if each[1] != "q"]) == sent + 1)
        arrived = [event[1] for event in agent.named("task")]
        assert arrived == [*(f"t{number}" for number in range(sent)), "last"]
        assert not sink.named("lost")

    # Pauses

    @pytest.mark.parametrize("leases", [1.3, 3])
    async def test_hub_that_was_paused_keeps_its_agents_and_its_streams(self, bench: Bench, leases: float) -> None:
        (port,) = free_ports(1)
        hub = await self.peer(bench, "hub", port, "h")
        end, agent, info = await bench.port("a", lease_ms=LEASE_MS, **self.here(port))
        _, idle, _ = await bench.port("idle", lease_ms=LEASE_MS, **self.here(port))
        reply = (await agent.event("task", "for a"))[4]
        await idle.event("task", "for idle")
        reply.send(Chunk("h", "for a", 1, 0, ("x",)))
        await hub.event("chunk", "for a", 0)
        hub.pause()
        for number in range(1, 11):  # the pause itself: nothing is waited for
            reply.send(Chunk("h", "for a", 1, number, ("x",)))
            end.report(AgentStatus("a", info.incarnation, active=number))
            await asyncio.sleep(leases * LEASE_MS / 1000 / 10)
        hub.resume()
        await hub.event("chunk", "for a", 10)
        reply.send(Chunk("h", "for a", 1, 11, final=True))
        await hub.event("chunk", "for a", 11, True)
        (idle.named("task")[0][4]).send(final(request("for idle")))
        await hub.event("chunk", "for idle", 0, True)
        assert [event[2] for event in hub.named("chunk") if event[1] == "for a"] == list(range(12))
        assert len(hub.named("joined")) == 2
        assert not hub.named("lost")
        assert not agent.named("hub_lost")
        assert not idle.named("hub_lost")
