"""A fleet that is opened to its network by --lan, and joined from another machine by the line that this prints; and
what another machine reaches of one that is not opened."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.two_hosts import REASON, UNAVAILABLE, TwoHosts
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.cli.invite_codes import decode, encode
from anywire.testing.recorder import Recorder

pytestmark = [pytest.mark.skipif(UNAVAILABLE, reason=REASON), pytest.mark.timeout(180)]

TRANSPORTS = ["dds", "zeromq", "http", "grpc"]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


class Program:
    """A process on a host, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.output, self.log = process, Recorder(), Recorder()
        self._readers = [
            asyncio.create_task(_read(process.stdout, self.output)),
            asyncio.create_task(_read(process.stderr, self.log)),
        ]

    async def says(self, start: str) -> str:
        """The line of its output that begins so."""

        def found() -> list[str]:
            return [line for (line,) in self.output.events if line.startswith(start)]

        await self.output.until(lambda: bool(found()), f"{start}: {self.log.events}")
        return found()[0]

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        await asyncio.gather(*self._readers)


async def _read(stream: asyncio.StreamReader, lines: Recorder) -> None:
    async for line in stream:
        lines.add(line.decode().rstrip())


class Machines:
    """Runs commands on two hosts whose users share nothing. ``as_user`` is one who runs them as somebody else."""

    def __init__(self, hosts: TwoHosts, folder: Path, stack: AsyncExitStack, user: int | None = None) -> None:
        self._hosts, self._folder, self._stack, self._user = hosts, folder, stack, user

    def as_user(self, number: int) -> Machines:
        return Machines(self._hosts, self._folder, self._stack, number)

    async def start(self, host: int, *command: str) -> Program:
        program = Program(await self._spawn(host, command))
        self._stack.push_async_callback(program.end)
        return program

    async def anywire(self, host: int, *arguments: str) -> Program:
        return await self.start(host, sys.executable, "-m", "anywire.cli", *arguments)

    async def run(self, host: int, *arguments: str) -> tuple[int, str, str]:
        """Status, output and log of a command of anywire that ends."""
        process = await self._spawn(host, (sys.executable, "-m", "anywire.cli", *arguments))
        output, log = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode is not None
        return process.returncode, output.decode(), log.decode()

    async def _spawn(self, host: int, command: tuple[str, ...]) -> asyncio.subprocess.Process:
        home = self._folder / f"host{host}-{self._user}"
        if self._user is not None:
            # A user namespace: the number is another one, and files can be read as before.
            command = ("unshare", "--user", f"--map-user={self._user}", f"--map-group={self._user}", *command)
        home.mkdir(mode=0o700, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANYWIRE_")}
        environment |= {"XDG_RUNTIME_DIR": str(home), "XDG_STATE_HOME": str(home / "state"), "NO_COLOR": "1"}
        return await asyncio.create_subprocess_exec(
            *self._hosts.on(host, *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )


@pytest.fixture
async def machines(hosts: TwoHosts, tmp_path: Path) -> AsyncIterator[Machines]:
    async with AsyncExitStack() as stack:
        yield Machines(hosts, tmp_path, stack)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_printed_command_joins_from_another_machine(machines: Machines, transport: str) -> None:
    hub = await machines.anywire(1, "serve", "--lan", "--fleet", "blue", "-t", transport)
    await hub.says("ready: ")
    _, _, command = (await hub.says("on another machine: ")).partition(": ")
    name, *arguments = shlex.split(command)
    assert name == "anywire"
    agent = await machines.anywire(2, *arguments, "--engine", "synthetic", "--agent-id", "afar")
    await agent.says("ready: ")

    code = arguments[-1]
    status, printed, log = await machines.run(1, "invite")
    assert (status, printed) == (0, f"{code}\n"), log
    assert len(code) < 600, "it is to be pasted"
    watching = (await machines.run(1, "invite", "--role", "observe", "--expires", "1h"))[1].strip()
    answers = [await machines.run(2, "chat", "hello", "--max-tokens", "3", "--invite", code)]
    answers += [await machines.run(2, "chat", "hello", "--max-tokens", "3", "--invite", code, "-t", transport)]
    answers += [await machines.run(1, "chat", "hello", "--max-tokens", "3", "--fleet", "blue")]
    assert [(status, len(text.split())) for status, text, _ in answers] == [(0, 3)] * 3, answers
    for host, *more in ((1, "--fleet", "blue"), (2, "--invite", watching)):
        status, listed, log = await machines.run(host, "agents", "--json", *more)
        assert status == 0, log
        assert [each["id"] for each in json.loads(listed)] == ["afar"]
    log = "\n".join(line for (line,) in hub.log.events)
    assert "without authentication" not in log
    for program in (hub, agent):
        log = str(program.log.events)
        assert code not in log, "a code is a secret"
        assert decode(code).key not in log


async def test_over_dds_the_name_of_the_fleet_finds_it_and_a_fingerprint_lets_in(machines: Machines) -> None:
    hub = await machines.anywire(1, "up", "--engine", "synthetic", "--agent-id", "near", "--lan", "--fleet", "blue")
    await hub.says("ready: ")
    agent = await machines.anywire(2, "agent", "--lan", "--fleet", "blue", "--engine", "synthetic", "--agent-id", "far")
    await agent.says("ready: ")
    other = await machines.anywire(2, "up", "--lan", "--fleet", "red", "--engine", "synthetic", "--agent-id", "other")
    await other.says("ready: ")

    def waits() -> list[str]:
        return re.findall(r"run `anywire (agents admit SHA256:\S+)`", str(agent.log.events))

    await agent.log.until(lambda: bool(waits()), "it is told how it is let in")
    assert (await machines.run(1, *waits()[0].split()))[0] == 0
    await hub.log.until(lambda: "agent far joined" in str(hub.log.events), "it is let in")
    key = decode((await machines.run(1, "invite"))[1]).key
    ask = ("chat", "hello", "--lan", "--fleet", "blue", "--max-tokens", "3")
    assert "a key is needed" in (await machines.run(2, *ask))[2]
    answer = await machines.run(2, *ask, "--key", key)
    assert (answer[0], len(answer[1].split())) == (0, 3), answer
    for host, fleet, wanted in ((1, "blue", {"near-1", "far"}), (2, "red", {"other-1"})):
        status, listed, log = await machines.run(host, "agents", "--json", "--fleet", fleet)
        assert status == 0, log
        assert {each["id"] for each in json.loads(listed)} == wanted


# Strangers


async def opened(machines: Machines) -> tuple[Program, str, Program]:
    """An orchestrator on host 1 with all transports, its code, and the agent ``guest`` that has come to it."""
    hub = await machines.anywire(1, "serve", "--lan", "--fleet", "blue", "-t", ",".join(TRANSPORTS))
    code = (await hub.says("on another machine: ")).split()[-1]
    guest = await machines.anywire(2, "agent", "--invite", code, "--engine", "synthetic", "--agent-id", "guest")
    await hub.log.until(lambda: "agent guest joined" in str(hub.log.events), "it joins")
    return hub, code, guest


async def test_without_the_key_a_stranger_is_refused_and_with_a_revoked_one(machines: Machines) -> None:
    hub, code, guest = await opened(machines)
    known = decode(code)
    # Everything that an invitation says of the transports, and neither the key nor whom to take tasks of.
    stripped = encode(msgspec.structs.replace(known, key="", orchestrator=""))
    asking = [("--url", known.url), *(("--invite", stripped, "-t", each) for each in TRANSPORTS)]
    stranger = machines.as_user(12345)
    for how in asking:
        status, said, log = await stranger.run(2, "chat", "hello", "--max-tokens", "3", *how)
        assert (status, said) == (1, ""), how
        assert "key is needed" in log, (how, log)
    forced = ("agent", "--engine", "synthetic", "--invite", stripped)
    agents = [await stranger.anywire(2, *forced, "-t", each, "--agent-id", f"x-{each}") for each in TRANSPORTS]
    for each in agents:
        await each.says("ready: ")

    async def serving() -> list[str]:
        status, listed, log = await machines.run(1, "agents", "--json", "--fleet", "blue")
        assert status == 0, log
        return [each["id"] for each in json.loads(listed)]

    def refused() -> bool:
        log = str(hub.log.events)
        return all(re.search(rf"x-{each}\b[^']*not let in", log) for each in TRANSPORTS)

    await hub.log.until(refused, "it has refused them all")
    assert await serving() == ["guest"]

    status, _, said = await machines.run(1, "invite")
    revoke = shlex.split(said.split("`")[1])[1:]
    assert revoke[:2] == ["keys", "revoke"]
    assert (await machines.run(1, *revoke))[0] == 0
    await hub.log.until(lambda: "it is not let in any more" in str(hub.log.events), "who came with it is out")
    for how in (("--invite", code), ("--invite", code, "-t", "zeromq")):
        status, said, log = await stranger.run(2, "chat", "hello", "--max-tokens", "3", *how)
        assert (status, said, "revoked" in log) == (1, "", True), (how, log)
    late = await stranger.anywire(2, "agent", "--engine", "synthetic", "--invite", code, "--agent-id", "late")
    await hub.log.until(lambda: bool(re.search(r"late\b[^']*not let in", str(hub.log.events))), "it is refused")
    assert await serving() == []
    await late.end()
    await guest.end()
    new = (await machines.run(1, "invite"))[1].strip()
    assert new != code
    again = await machines.anywire(2, "agent", "--invite", new, "--engine", "synthetic", "--agent-id", "guest")
    await again.says("ready: ")
    await hub.log.until(lambda: str(hub.log.events).count("agent guest joined") == 2, "it is invited anew")
    status, answer, log = await machines.run(2, "chat", "hello", "--max-tokens", "3", "--invite", new)
    assert (status, len(answer.split())) == (0, 3), log


ATTACK = """
import asyncio, json, os, random, sys
import httpx

async def strange(address, rnd, held):
    host, port = address
    try:
        reader, writer = await asyncio.open_connection(host, port)
        begun = b"GET / HTTP/1.1\\r\\nhost: x\\r\\n"
        writer.write(rnd.randbytes(rnd.randrange(1, 400)) if rnd.random() < 0.7 else begun)
        await writer.drain()
        held.append(writer)
    except OSError:
        pass

async def main(url, registration, *doors):
    rnd, held, codes = random.Random(0), [], {}
    addresses = [(door.rpartition(":")[0], int(door.rpartition(":")[2])) for door in doors]
    async with asyncio.timeout(60):
        await asyncio.gather(*(strange(rnd.choice(addresses), rnd, held) for _ in range(200)))
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with httpx.AsyncClient(timeout=60) as http:
        while not stop.done():
            for number in range(50):
                wrong = "aw-" + "a" * 12 + "-" + os.urandom(33).hex()[:43]
                header = {"authorization": f"Bearer {rnd.choice([wrong, os.urandom(32).hex(), ''])}".strip()}
                what = {"agent_id": rnd.choice(["guest", "x"]), "incarnation": rnd.randrange(9), "url": "http://10.77.1.2:1"}
                asked = [http.get(f"{url}/v1/models", headers=header),
                         http.post(f"{url}/v1/agents/register", headers=header, json=what),
                         http.post(registration, headers=header, content=rnd.randbytes(50))]
                for answer in await asyncio.gather(*asked, return_exceptions=True):
                    code = getattr(answer, "status_code", type(answer).__name__)
                    codes[code] = codes.get(code, 0) + 1
            print("attacked", len(held), flush=True)
    print("codes", json.dumps(codes), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(not SOAK, reason="the long form: strangers at each door are tried one by one above")
async def test_under_attack_an_invited_agent_answers_and_nothing_is_lost(machines: Machines) -> None:
    hub, code, _ = await opened(machines)
    known = decode(code)
    http, grpc, zeromq = (known.transports[each] for each in ("http", "grpc", "zeromq"))
    urls = [*http["agent_addresses"], *http["client_addresses"], known.url, *zeromq["agent_addresses"]]
    doors = [each.partition("://")[2] for each in [*urls, *zeromq["client_addresses"]]] + grpc["agent_addresses"]
    stranger = machines.as_user(12345)
    registration = f"{http['agent_addresses'][0]}/v1/agents/register"
    attack = await stranger.start(2, sys.executable, "-c", ATTACK, known.url, registration, *doors)
    await attack.says("attacked")
    for how in ((), *(("-t", each) for each in TRANSPORTS)):
        status, answer, log = await machines.run(2, "chat", "hello", "--max-tokens", "3", "--invite", code, *how)
        assert (status, len(answer.split())) == (0, 3), (how, log)
    assert attack.process.stdin is not None
    attack.process.stdin.close()
    codes = json.loads((await attack.says("codes")).partition(" ")[2])
    assert not {each for each in codes if each.startswith("2") or each == "500"}, codes
    assert codes["401"] > 0
    status, listed, log = await machines.run(1, "agents", "--json", "--fleet", "blue")
    assert status == 0, log
    assert [each["id"] for each in json.loads(listed)] == ["guest"]
    told = str(hub.log.events)
    assert (told.count("agent guest joined"), "Traceback" in told) == (1, False)
    assert not re.search(r"agent guest\b[^']* lost", told)


# Two users of one machine, with what is shipped


SERVED = [(each, "serve") for each in TRANSPORTS] + [(each, "up") for each in (TRANSPORTS if SOAK else ["dds"])]


@pytest.mark.parametrize(("transport", "command"), SERVED)
async def test_two_users_of_one_machine_never_meet(machines: Machines, transport: str, command: str) -> None:
    users = {"one": machines, "two": machines.as_user(12345)}
    for name, user in users.items():
        engine = ("--engine", "synthetic", "--agent-id", name)
        if command == "up":
            hub = await user.anywire(1, "up", "-t", transport, *engine)
        else:
            if transport != "dds":
                status, _, log = await user.run(1, "agent", "-t", transport, *engine)
                assert (status, log.count("no orchestrator of yours runs")) == (1, 1), "the other one's is not joined"
            hub = await user.anywire(1, "serve", "-t", transport)
            await hub.says("ready: ")
            agent = await user.anywire(1, "agent", "-t", transport, *engine)
            await agent.says("ready: ")
        await hub.says("ready: ")
    for name, user in users.items():
        answer = await user.run(1, "chat", "hello", "--max-tokens", "3", "-t", transport)
        assert (answer[0], len(answer[1].split())) == (0, 3), answer
        status, listed, log = await user.run(1, "agents", "--json")
        assert status == 0, log
        assert [each["id"].removesuffix("-1") for each in json.loads(listed)] == [name]


async def test_two_users_of_one_network_never_meet(machines: Machines) -> None:
    for host in (1, 2):
        up = await machines.anywire(host, "up", "--engine", "synthetic", "--agent-id", f"of-{host}")
        await up.says("ready: ")
    for host in (1, 2):
        status, listed, log = await machines.run(host, "agents", "--json", "-t", "dds")
        assert status == 0, log
        assert [each["id"] for each in json.loads(listed)] == [f"of-{host}-1"]


# Not opened

LISTENING = re.compile(r"\S+\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s")
ON_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|\[::1\]|\[::ffff:127\.\d+\.\d+\.\d+\]|0\.0\.0\.0%lo")


async def sockets(machines: Machines, host: int) -> list[tuple[str, int]]:
    """Addresses and ports of all sockets of a host that take in something."""
    program = await machines.start(host, "ss", "-tuln", "-H")
    await program.process.wait()
    await program.end()
    return [(found[1], int(found[2])) for (line,) in program.output.events if (found := LISTENING.match(line))]


@pytest.mark.parametrize(("transport", "command"), SERVED)
async def test_with_defaults_everything_listens_on_the_loopback_interface(
    machines: Machines, transport: str, command: str
) -> None:
    hub = await machines.anywire(1, command, "-t", transport, *(["--engine", "synthetic"] if command == "up" else []))
    await hub.says("ready: ")
    if command == "serve":
        agent = await machines.anywire(1, "agent", "-t", transport, "--engine", "synthetic")
        await agent.says("ready: ")
    found = await sockets(machines, 1)
    assert found
    assert not [each for each in found if not ON_LOOPBACK.fullmatch(each[0])]
    assert not re.search(r"open to the network|listens on .* without", str(hub.log.events))


PARTICIPANT = """
import asyncio, json, sys
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant
from cyclonedds.core import Policy
from cyclonedds.domain import DomainParticipant
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.testing.recorder import RecordingAgentSink, RecordingHubSink
from anywire_dds import DdsConfig, DdsTransport

async def main(name, options):
    transport = DdsTransport(DdsConfig(participant=name, fleet="blue", **json.loads(options)))
    hubs, agents = RecordingHubSink(), RecordingAgentSink()
    hub = await transport.open_hub(HubInfo(name, 1), "agent", hubs)
    port = await transport.open_agent(AgentInfo(name, 1), "agent", agents)
    port.report(AgentStatus(name, 1))
    found = BuiltinDataReader(own := DomainParticipant(7), BuiltinTopicDcpsParticipant)
    seen = set()
    print("open", flush=True)
    while wanted := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await hubs.event("joined", wanted)
        await agents.event("hub_joined", wanted)
        seen |= {sample.qos[Policy.EntityName].name for sample in found.take(100) if Policy.EntityName in sample.qos}
        joined = {event[1] for event in hubs.named("joined")} | {event[1] for event in agents.named("hub_joined")}
        print("met", json.dumps([sorted(seen), sorted(joined)]), flush=True)
    await port.close()
    await hub.close()

asyncio.run(main(*sys.argv[1:]))
"""


RELAY = """
import socket, sys

def main(ports):
    captured = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    captured.bind(("lo", 0x0800))
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    print("relaying", flush=True)
    sent = 0
    while True:
        packet = captured.recv(65536)
        header = (packet[0] & 15) * 4
        if packet[9] != socket.IPPROTO_UDP or packet[header + 8 : header + 12] != b"RTPS":
            continue
        for port in ports:
            out.sendto(packet[header + 8 :], ("10.77.1.1", port))
        sent += 1
        if sent == 20:
            print("sent", sent, flush=True)

main([int(each) for each in sys.argv[1:]])
"""


class Participant:
    """A hub and an agent of one name over DDS, on a host."""

    def __init__(self, program: Program) -> None:
        self._program, self._answers = program, 0

    async def meet(self, *names: str) -> tuple[list[str], list[str]]:
        """Wait until it has joined these, and return whom it knows then: as DDS participants, and as hub and agent."""
        assert self._program.process.stdin is not None
        for name in names:
            self._program.process.stdin.write(f"{name}\n".encode())
            self._answers += 1
        await self._program.output.until(lambda: len(self._met()) == self._answers, str(self._program.log.events))
        seen, joined = json.loads(self._met()[-1].removeprefix("met "))
        return seen, joined

    def _met(self) -> list[str]:
        return [line for (line,) in self._program.output.events if line.startswith("met ")]


async def test_what_another_machine_sends_to_the_ports_of_dds_finds_nobody(machines: Machines) -> None:
    """Cyclone binds the sockets it receives with to every address. A participant of another machine that knows them
    all, the domain and the fleet is heard by one that is open to the network, and by nobody else; nor is one whose
    messages, which say that it is on the loopback interface, are copied to these ports."""

    async def participant(host: int, name: str, **options: Any) -> Participant:
        program = await machines.start(
            host, sys.executable, "-c", PARTICIPANT, name, json.dumps({"domain": 7} | options)
        )
        await program.says("open")
        return Participant(program)

    closed = await participant(1, "closed")
    ports = {port for address, port in await sockets(machines, 1) if address.startswith("0.0.0.0")}
    assert len(ports) >= 3, "as Cyclone does: if it binds to the interface alone, say so in the documentation"
    peers = ["10.77.1.1", *(f"10.77.1.1:{port}" for port in sorted(ports))]
    away = {"interface": "net1", "multicast": "off"}
    stranger = await participant(2, "stranger", **away, peers=peers)
    relay = await machines.start(2, sys.executable, "-c", RELAY, *map(str, ports))
    await relay.says("relaying")
    await participant(2, "ghost")
    opened = await participant(1, "open", **away, peers=["10.77.1.2"])
    seen, joined = await stranger.meet("open")
    assert set(seen) >= {"stranger", "open"}
    assert not {"closed", "ghost"} & {*seen, *joined}
    await opened.meet("stranger")
    await relay.says("sent 20")
    # Whoever comes now is found after all that has come from the other machine.
    await participant(1, "local")
    seen, joined = await closed.meet("local")
    assert set(seen) >= {"closed", "local"}
    assert not {"stranger", "open", "ghost"} & {*seen, *joined}
