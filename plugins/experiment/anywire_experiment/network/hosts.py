"""The two hosts and how they are made and taken away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from anywire.errors import ConfigError
from anywire_experiment.plan.network import Network

Kind = Literal["netem", "userspace"]
_PATIENCE = 10.0


class Host(msgspec.Struct, frozen=True):
    """A network namespace. ``address`` is on the link."""

    name: str
    address: str
    interface: str

    def command(self, *arguments: str) -> list[str]:
        """``arguments`` as a command line that runs there."""
        return ["ip", "netns", "exec", self.name, *arguments]


class Hosts:
    """Two hosts with a link between them. ``kind`` tells who shapes it."""

    def __init__(self, orchestrator: Host, agents: Host, network: Network, kind: Kind, wire: _Wire) -> None:
        self.orchestrator, self.agents, self.network, self.kind = orchestrator, agents, network, kind
        self._wire = wire

    async def cut(self, towards: Host | None = None) -> None:
        """Lose every frame from now on, without a word to either side: a partition. ``towards``: only those that are
        sent to this host. Returns when it is cut."""
        ends = (self.orchestrator, self.agents)
        await self._wire.cut(None if towards is None else ends.index(towards))

    async def lose(self, share: float) -> None:
        """Lose this share of the frames from now on, each way: 0.05 is one in twenty. Returns when it is so."""
        await self._wire.lose(share)

    async def lost(self) -> int:
        """How many frames it was told to lose, and lost, so far: both ways together."""
        return await self._wire.lost()

    async def restore(self) -> None:
        """Carry frames again, and lose no more of them than the network of the plan does."""
        await self._wire.restore()


def unavailable() -> str:
    """Why networks cannot be made here; empty when they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "tc") if shutil.which(name) is None]:
        return f"there is no `{missing[0]}` (Debian package iproute2)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun, and without it no TAP device"
    return ""


@asynccontextmanager
async def link(network: Network, *, seed: int = 0, kind: Kind | None = None) -> AsyncIterator[Hosts]:
    """Two hosts for as long as the context lasts. ``kind`` None takes netem where the kernel has it. Raises
    `ConfigError` saying what is missing."""
    if why := unavailable():
        raise ConfigError(f"a network cannot be emulated here: {why}")
    tag = os.urandom(3).hex()
    names = (f"aw-hub-{tag}", f"aw-agents-{tag}")
    async with AsyncExitStack() as stack:
        for name in names:
            await ip("netns", "add", name)
            stack.push_async_callback(ip, "netns", "del", name)
        chosen = kind or ("netem" if await _has_netem(names[0]) else "userspace")
        devices = (f"aw0-{tag}", f"aw1-{tag}")
        wire: _Wire = (
            _Netem(names, devices, network) if chosen == "netem" else _Userspace(names, devices, network, seed)
        )
        stack.push_async_callback(wire.close)
        await wire.open()
        hosts = []
        for number, (name, device) in enumerate(zip(names, devices, strict=True), 1):
            address = f"10.78.0.{number}"
            await ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            await ip("-n", name, "link", "set", "lo", "up")
            await ip("-n", name, "link", "set", device, "up", "multicast", "on")
            await ip("-n", name, "route", "add", "default", "dev", device)
            hosts.append(Host(name, address, device))
        yield Hosts(hosts[0], hosts[1], network, chosen, wire)


async def run_on(host: Host, *command: str) -> None:
    """Run a command on a host to its end. Raises `ConfigError` with what it says when it fails."""
    await _run(*host.command(*command))


async def ip(*arguments: str) -> None:
    await _run("ip", *arguments)


async def _run(*command: str) -> str:
    """What it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise ConfigError(f"`{' '.join(command)}` failed: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")


async def _has_netem(namespace: str) -> bool:
    try:
        await _run("tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    except ConfigError:
        return False
    await _run("tc", "-n", namespace, "qdisc", "del", "dev", "lo", "root")
    return True


class _Wire:
    """What is between the two devices."""

    async def open(self) -> None:
        """Make the devices, each in its namespace."""
        raise NotImplementedError

    async def cut(self, towards: int | None) -> None:
        raise NotImplementedError

    async def lose(self, share: float) -> None:
        raise NotImplementedError

    async def lost(self) -> int:
        raise NotImplementedError

    async def restore(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class _Netem(_Wire):
    """A pair of virtual Ethernet devices, with the kernel's own emulation on both."""

    def __init__(self, names: Sequence[str], devices: Sequence[str], network: Network) -> None:
        self._ends = list(zip(names, devices, strict=True))
        self._settings = [f"delay {network.delay_ms}ms {network.jitter_ms}ms", "limit 10000"]
        self._settings += [f"rate {network.bandwidth_mbit}mbit"] if network.bandwidth_mbit else []
        self._loss = network.loss

    async def open(self) -> None:
        (first, one), (second, other) = self._ends
        await ip("link", "add", one, "netns", first, "type", "veth", "peer", "name", other, "netns", second)
        await self._set("add", self._losing(self._loss))

    async def cut(self, towards: int | None) -> None:
        # Each end shapes what it sends.
        await self._set("change", "loss 100%", None if towards is None else 1 - towards)

    async def lose(self, share: float) -> None:
        await self._set("change", self._losing(share))

    async def lost(self) -> int:
        told = [await _run("tc", "-n", name, "-j", "-s", "qdisc", "show", "dev", device) for name, device in self._ends]
        return sum(each["drops"] for text in told for each in json.loads(text))

    async def restore(self) -> None:
        await self.lose(self._loss)

    async def close(self) -> None:
        """The devices go with their namespaces."""

    def _losing(self, share: float) -> str:
        return " ".join([*self._settings, f"loss {share * 100}%"])

    async def _set(self, verb: str, settings: str, only: int | None = None) -> None:
        for name, device in self._ends if only is None else [self._ends[only]]:
            await _run("tc", "-n", name, "qdisc", verb, "dev", device, "root", "netem", *settings.split())


class _Userspace(_Wire):
    """The process of `anywire_experiment.network.userspace`."""

    def __init__(self, names: Sequence[str], devices: Sequence[str], network: Network, seed: int) -> None:
        self._names, self._devices = names, devices
        self._arguments = [network.model_dump_json(), str(seed), *devices]
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "anywire_experiment.network.userspace", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the runner, which ends this one in its turn
        )
        await self._heard()
        for name, device in zip(self._names, self._devices, strict=True):
            await ip("link", "set", device, "netns", name)

    async def cut(self, towards: int | None) -> None:
        await self._tell({None: b"cut\n", 0: b"cut-to-a\n", 1: b"cut-to-b\n"}[towards])

    async def lose(self, share: float) -> None:
        await self._tell(f"lose {share}\n".encode())

    async def lost(self) -> int:
        told: dict[str, int] = json.loads(await self._tell(b"lost\n"))
        return told["frames"]

    async def restore(self) -> None:
        await self._tell(b"restore\n")

    async def close(self) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _tell(self, what: bytes) -> bytes:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(what)
        return await self._heard()

    async def _heard(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(_PATIENCE):
            if not (line := await self._process.stdout.readline()):
                said = (await self._process.stderr.read()).decode(errors="replace").strip()
                raise ConfigError(
                    f"the link in user space ended: {said.splitlines()[-1] if said else 'it said nothing'}"
                )
        return line
