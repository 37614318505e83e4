"""Peers that can crash or pause: processes of their own, or stand-ins for them where a transport stays in one."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import msgspec

from anywire.identity import agent_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.doubles import MODEL, ScriptedEngine
from anywire.testing.patience import PATIENCE, START_PATIENCE, Breaches
from anywire.testing.peer import PeerSpec, new_hub
from anywire.testing.recorder import Recorder


class Peer(Recorder):
    """A scripted agent or hub that can crash; its events are recorded here."""

    patience = START_PATIENCE

    async def crash(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError


class ProcessPeer(Peer):
    """A peer in a process of its own, killed with SIGKILL and paused with SIGSTOP.

    What its own laws find is added to ``breaches``.
    """

    def __init__(self, process: asyncio.subprocess.Process, breaches: Breaches | None = None) -> None:
        super().__init__()
        self._process, self._breaches = process, breaches
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: PeerSpec, breaches: Breaches | None = None) -> ProcessPeer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "anywire.testing.peer",
            msgspec.json.encode(spec).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        return cls(process, breaches)

    def order(self, *command: Any) -> None:
        """Have a bare end do something, see `anywire.testing.peer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")

    async def crash(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.send_signal(signal.SIGCONT)
        await self._ended()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self._process.returncode is None and self._process.stdin is not None:
            self.resume()
            self._process.stdin.close()
        await self._ended()

    async def _ended(self) -> None:
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            raise AssertionError(f"the peer's process did not end within {PATIENCE:g} s") from None
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if event[0] == "breach" and self._breaches is not None:
                self._breaches.add(event[1])
            self.add(*event)
        self.add("ended", await self._process.wait())


class LocalPeer(Peer):
    """A peer in this process, for transports that do not leave it; `crash` is the transport's own."""

    patience = PATIENCE

    def __init__(self, transport: Any, spec: PeerSpec) -> None:
        super().__init__()
        self._transport, self._spec = transport, spec
        self._agent: Agent | None = None
        self._hub: Orchestrator | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        spec = self._spec
        if spec.role == "agent":
            engine = ScriptedEngine(self)
            info = agent_info(spec.id, engine=engine, lease=spec.lease)
            self._agent = Agent(info, engine, [self._transport], slots=spec.slots)
            await self._agent.start()
            self.add("ready", info.incarnation)
        else:
            self._hub = new_hub(spec, self._transport)
            await self._hub.start()
            self._reading = asyncio.create_task(self._submit(self._hub))

    async def _submit(self, hub: Orchestrator) -> None:
        async for chunk in hub.submit(Submission("chat", MODEL, self._spec.script.body(), stream=True)):
            self.add("chunk", "".join(chunk.deltas), chunk.final)

    async def crash(self) -> None:
        self._transport.crash()
        await self.stop()

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._agent is not None:
            await self._agent.close()
        if self._hub is not None:
            await self._hub.close()
