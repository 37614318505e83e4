"""Keys on the client plane of every transport: who is let in, for every verb, and what each role and tenant reaches.

The commands are those of the table that the orchestrator itself uses, so that a new one is tested as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.patience import PATIENCE

from anywire import errors
from anywire.caller import NO_LIMITS, ROLES, Caller, Limits, Role
from anywire.errors import AnywireError, Unauthenticated
from anywire.identities.identity_proof import Identity, as_text
from anywire.keys.key_access import KeyAccess
from anywire.keys.key_records import add_key, record_of, revoke_keys
from anywire.keys.key_text import KeyText, new_key
from anywire.messages import Cancel, Command, Credit, HubInfo
from anywire.pipeline.orchestrator import Orchestrator
from anywire.roles.client import Client
from anywire.roles.fleet_commands import ROLES_NEEDED
from anywire.submission import Submission
from anywire.task_stream import TaskStream
from anywire.testing.doubles import MODEL, Script
from anywire.testing.recorder import Recorder, RecordingHubSink
from anywire.testing.rig import Rig, read, request
from anywire.transport import Hub
from anywire_zeromq.config import public_key, shared_key

TRANSPORTS = ["memory", "dds", "http", "zeromq", "grpc"]

LIMITS = Limits((MODEL,), 5, 600, 64, 10**9)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "follow": {"task_id": "t"},
    "cancel": {"task_id": "t"},
    "order_agent": {"agent_id": "a", "order": "restore"},
}
KINDS = ("chat", "completion", "embedding")

KEYS: dict[str, dict[str, Any]] = {
    "alice": {"tenant": "alice", "limits": LIMITS},
    "alice too": {"tenant": "alice"},
    "bob": {"tenant": "bob"},
    "limited": {"limits": Limits(max_priority=5, concurrency=1)},
    "narrow": {"limits": Limits(models=("other*",))},
    "use": {"tenant": "carol"},
    "observe": {"tenant": "carol", "role": "observe"},
    "operate": {"tenant": "carol", "role": "operate"},
    "expired": {"role": "operate", "expires": 1.0},
    "revoked": {"role": "operate"},
}
"""By a name that the tests use."""

Verb = Callable[[Client], AsyncGenerator[Any, None]]


def asking(client: Client, kind: Any, script: Script, stream: bool = True) -> TaskStream:
    return client.submit(Submission(kind, MODEL, script.body(), stream))


def _task(kind: Any, stream: bool) -> Verb:
    async def verb(client: Client) -> AsyncGenerator[Any, None]:
        yield await read(asking(client, kind, Script("refused"), stream))

    return verb


def _command(name: str, *target: str) -> Verb:
    def verb(client: Client) -> AsyncGenerator[Any, None]:
        return client.command(name, ARGUMENTS.get(name, {}), target=target)

    return verb


VERBS: dict[str, Verb] = {
    **{f"{kind}{' stream' if stream else ''}": _task(kind, stream) for kind in KINDS for stream in (True, False)},
    **{name: _command(name) for name in ROLES_NEEDED},
    "command to an agent": _command("count", "a"),
    "drain of an agent": _command("drain", "a"),
    "drain of the orchestrator": _command("drain"),
    "no command": _command("nothing"),
}


async def first(verb: Verb, client: Client) -> Any:
    """What it gives first, or the error that it ends with."""
    results = verb(client)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(results):
            return await anext(results, None)
    except AnywireError as error:
        return error


class World:
    """One orchestrator with an agent, reached over a transport by clients with keys."""

    pipeline: Orchestrator
    engine: Recorder
    access: KeyAccess

    def __init__(self, path: Path, agents: Rig, clients: Rig) -> None:
        self.path, self._agents, self.clients = path, agents, clients
        self.keys = {name: new_key() for name in KEYS}

    async def open(self) -> None:
        for name, key in self.keys.items():
            add_key(self.path, record_of(key, **KEYS[name]))
        revoke_keys(self.path, [self.keys["revoked"].id])
        self.access = KeyAccess(self.path)
        await self.access.start()
        _, self.engine = await self._agents.agent("a")
        self.pipeline = await self._agents.pipeline("a")
        await self.clients.fleet(self.pipeline, "client", self.access)

    async def client(self, key: KeyText | str) -> Client:
        """One that has met the orchestrator, with ``key``, or the one of that name."""
        client = await self.clients.client(str(self.keys[key] if key in KEYS else key))
        await client._first_orchestrator()
        return client

    @property
    def links_without_keys(self) -> bool:
        """Whether a client without a key has a link by which it can be told so."""
        return self.clients.name in ("memory", "dds")

    async def rogue(self, hub_id: str, proof: str = "") -> tuple[Hub, RecordingHubSink, HubInfo]:
        """A bare client without a key that is linked, and shows ``proof``, where its transport lets it."""
        transport = self.clients.new_transport()
        transport.identity = None if self.links_without_keys else Identity.new()
        rogue = await self.clients.hub(hub_id, plane="client", incarnation=1, proof=proof, transport=transport)
        await rogue[1].event("joined", self.pipeline.info.hub_id)
        return rogue

    async def until_state(self, state: str) -> None:
        """Wait until the orchestrator's agent reports ``state``."""
        async with asyncio.timeout(PATIENCE):
            await self.pipeline.agents_until(lambda agents: [each.status.state for each in agents] == [state])


@pytest_asyncio.fixture(params=TRANSPORTS)
async def world(
    request: pytest.FixtureRequest, options_of: Callable[[str], dict[str, Any]], tmp_path: Path
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        name = request.node.name
        agents = await stack.enter_async_context(Rig("memory", {"network": f"{name}/agents"}))
        own = options_of(request.param) or {"network": f"{name}/clients"}
        clients = await stack.enter_async_context(Rig(request.param, own))
        world = World(tmp_path / "keys.json", agents, clients)
        await world.open()
        yield world
        await world.access.close()


# Who is let in


async def test_no_verb_is_for_a_client_whose_key_does_not_count(world: World) -> None:
    """Each verb ends with `Unauthenticated`, and nothing has happened."""
    held = asking(await world.client("alice"), "chat", Script("held", 5, hold_after=1))
    await world.engine.event("holding", "held")
    keys = {
        "none": "",
        "of nobody": str(new_key()),
        "of a wrong secret": str(KeyText(world.keys["alice"].id, new_key().secret)),
        "expired": str(world.keys["expired"]),
        "revoked": str(world.keys["revoked"]),
    }
    for name, key in keys.items():
        linked = bool(key) or world.links_without_keys
        client = await (world.client(key) if linked else world.clients.client(key, agent_wait=0.2))
        for verb in VERBS if linked else ("chat stream", "models"):
            result = await first(VERBS[verb], client)
            refusal = Unauthenticated if linked else errors.NoAgent
            assert isinstance(result, refusal), f"with a key {name}, {verb} gave {result!r}"
            assert not key or key not in str(result)
    assert [view.caller.tenant for view in world.pipeline.tasks()] == ["alice"]
    assert [agent.status.state for agent in world.pipeline.agents()] == ["ready"]
    assert {event[1] for event in world.engine.named("started")} == {"held"}
    assert not world.engine.named("command")
    held.cancel("test")


async def test_no_proof_of_another_counts(world: World) -> None:
    """One of another client, of another life, of another plane, one that is damaged, and what is none."""
    alice, orchestrator = world.keys["alice"].identity, world.pipeline.info.hub_id
    theirs = {
        "of another client": alice.prove("client", "hub", "alice", 1),
        "of another life": alice.prove("client", "hub", "rogue", 2),
        "of another plane": alice.prove("agent", "hub", "rogue", 1),
        "of an agent": alice.prove("client", "agent", "rogue", 1),
        "damaged": alice.prove("client", "hub", "rogue", 1)[:-3] + "AAA",
        "no proof": "aw1.of.nothing",
        "a key": str(world.keys["alice"]),
    }
    for number, (name, proof) in enumerate(theirs.items()):
        hub_id = f"rogue{number}" if name == "of another client" else "rogue"
        rogue, sink, info = await world.rogue(hub_id, proof)
        rogue.send(orchestrator, request(info, f"t{number}", body=Script("rogue").body()))
        rogue.send(orchestrator, Command(hub_id, f"c{number}", "models", credit=8))
        final = await sink.final(f"t{number}")
        assert "unauthenticated" in final.error, f"a proof {name} counts: {final}"
        result = await sink.event("result")
        assert "unauthenticated" in str(result), f"a proof {name} counts: {result}"
        await rogue.close()
    assert not world.engine.named("started")


class Repeating(Identity):
    """Shows a proof that it has seen of somebody else."""

    seen = ""

    def prove(self, *args: object, **kwargs: object) -> str:
        return self.seen


@pytest.mark.parametrize("binding", ["", as_text(b"k" * 32)])
async def test_a_proof_that_was_seen_elsewhere_lets_nobody_in(world: World, binding: str) -> None:
    """Whoever a client has once greeted has its proof, and may connect by a key that all have, or by none."""
    if world.clients.name == "memory":
        return  # it stays in one process, and protects nothing by keys
    known = shared_key("known to all")
    keyed = {"secret_key": known, "server_key": public_key(known)} if world.clients.name == "zeromq" else {}
    transport = world.clients.new_transport(**keyed)
    thief = Repeating(bytes(32))
    thief.seen = world.keys["alice"].identity.prove("client", "hub", "rogue", 1, binding)
    transport.identity = thief if world.clients.name != "dds" else None
    rogue, sink, info = await world.clients.hub(
        "rogue", plane="client", incarnation=1, proof=thief.seen, transport=transport
    )
    asking(await world.client("bob"), "chat", Script("his", 5, hold_after=1))
    await world.engine.event("holding", "his")
    if sink.named("joined"):
        rogue.send(world.pipeline.info.hub_id, request(info, "t", body=Script("rogue").body()))
        assert "unauthenticated" in (await sink.final("t")).error
    assert {event[1] for event in world.engine.named("started")} == {"his"}


async def test_cancels_and_credits_of_a_client_without_a_key_do_nothing(world: World) -> None:
    stream = asking(await world.client("alice"), "chat", Script("long", 5, hold_after=1))
    await world.engine.event("holding", "long")
    (view,) = world.pipeline.tasks()
    rogue, sink, info = await world.rogue("rogue")
    orchestrator = world.pipeline.info.hub_id
    for hub_id in ("rogue", view.caller.id):
        for task_id in (view.task_id, stream.task_id):
            for attempt in (0, 1):
                rogue.send(orchestrator, Cancel(hub_id, task_id, attempt))
                rogue.send(orchestrator, Credit(hub_id, task_id, attempt, 5))
    rogue.send(orchestrator, request(info, "after"))
    assert "unauthenticated" in (await sink.final("after")).error
    assert [each.task_id for each in world.pipeline.tasks()] == [view.task_id]
    assert not world.engine.named("cancelled")
    stream.cancel("test")


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("name", ["zeromq", "grpc", "http"])
async def test_a_client_that_is_not_linked_for_its_key_is_told_so(
    name: str, needed: bool, options_of: Callable[[str], dict[str, Any]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With a key where none is needed, and without one where one is: these transports encrypt with keys alone."""
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key))
    async with AsyncExitStack() as stack:
        agents = await stack.enter_async_context(Rig("memory", {"network": request.node.name}))
        clients = await stack.enter_async_context(Rig(name, options_of(name)))
        await clients.fleet(await agents.pipeline(), "client", KeyAccess(tmp_path / "keys.json") if needed else None)
        client = await clients.client("" if needed else str(key), agent_wait=0.1)
        told = ""
        async with asyncio.timeout(PATIENCE):
            while "As to keys" not in told:  # until one of the transport's attempts has failed
                with pytest.raises(errors.NoAgent) as caught:
                    await client.models()
                told = str(caught.value)
    assert f"no orchestrator is seen over {name} within 0.1 s: " in told
    assert ("shows no key" in told, "give it one (key=" in told) == (needed, needed)
    assert ("shows a key" in told, "show none (key='', --key '')" in told) == (not needed, not needed)
    assert str(key) not in told


# Roles, tenants, limits


async def test_a_command_is_for_its_role_and_those_above(world: World) -> None:
    needed: dict[str, Role] = {**ROLES_NEEDED, "command to an agent": "operate", "drain of an agent": "operate"}
    for role in ROLES:
        client = await world.client(role)
        assert [agent.status.state for agent in world.pipeline.agents()] == ["ready"]
        for name, least in needed.items():
            sending = asyncio.ensure_future(first(VERBS[name], client))
            while name == "events" and not sending.done():
                await read(asking(client, "chat", Script("event")))  # there is one to tell of
            result = await sending
            refused = isinstance(result, errors.Forbidden)
            assert refused == (ROLES.index(role) < ROLES.index(least)), f"{role} sent {name}: {result!r}"
    await world.until_state("draining")


async def test_a_task_has_the_caller_of_its_key_whatever_it_names(world: World) -> None:
    client = await world.client("alice")
    submission = Submission("chat", MODEL, Script("mine", 5, hold_after=1).body(), True)
    stream = client.submit(msgspec.structs.replace(submission, caller=Caller("root", "bob", "operate")))
    await world.engine.event("holding", "mine")
    (view,) = world.pipeline.tasks()
    assert view.caller == Caller(world.keys["alice"].id, "alice", "use", LIMITS)
    (told,) = await client.tasks()
    assert (told["tenant"], told["caller"]) == ("alice", world.keys["alice"].id)
    stream.cancel("test")


async def test_the_tasks_of_another_tenant_are_seen_by_its_own_clients_alone(world: World) -> None:
    alice, bob = await world.client("alice"), await world.client("bob")
    async with aclosing(bob.events()) as events, aclosing(alice.events()) as own:
        told = asyncio.ensure_future(anext(events))
        seen = asyncio.ensure_future(anext(own))
        assert await bob.tasks() == []
        assert await alice.tasks() == []
        stream = asking(alice, "chat", Script("hers", 5, hold_after=1))
        await world.engine.event("holding", "hers")
        (task_id,) = [each.task_id for each in world.pipeline.tasks()]
        assert await bob.tasks() == []
        with pytest.raises(errors.InvalidRequest, match="no task"):
            await anext(bob.follow(task_id))
        assert [each async for each in bob.command("cancel", {"task_id": task_id})] == [{"cancelled": False}]
        for client, reader in ((bob, told), (alice, seen)):
            while not reader.done():
                assert await read(asking(client, "chat", Script("short"))) == Script("short").text()
        assert (told.result()["tenant"], seen.result()["tenant"]) == ("bob", "alice")
    assert not world.engine.named("cancelled")
    watching = await world.client("observe")
    assert [each["id"] for each in await watching.tasks()] == [task_id]
    assert [each async for each in watching.command("cancel", {"task_id": task_id})] == [{"cancelled": False}]
    same = await world.client("alice too")
    assert [each["id"] for each in await same.tasks()] == [task_id]
    assert [each async for each in same.command("cancel", {"task_id": task_id})] == [{"cancelled": True}]
    with pytest.raises(errors.TaskCancelled):
        await read(stream)


async def test_the_limits_of_a_key_hold_over_the_client_plane(world: World) -> None:
    """Each with the error that HTTP tells, its param and when to try again; other clients do not feel them."""
    limited, free = await world.client("limited"), await world.client("bob")
    assert (await limited.models(), await free.models()) == ([MODEL], [MODEL])
    held = asking(limited, "chat", Script("held", 5, hold_after=1))
    await world.engine.event("holding", "held")
    with pytest.raises(errors.LimitReached, match="concurrency") as reached:
        await read(asking(limited, "chat", Script("over")))
    assert reached.value.retry_after > 0
    urgent = msgspec.structs.replace(Submission("chat", MODEL, Script("urgent").body(), True), priority=9)
    with pytest.raises(errors.Forbidden, match="priority"):
        await read(limited.submit(urgent))
    narrow = await world.client("narrow")
    assert await narrow.models() == []
    with pytest.raises(errors.Forbidden, match="model"):
        await read(asking(narrow, "chat", Script("narrow")))
    assert await read(asking(free, "chat", Script("free"))) == Script("free").text()
    assert {event[1] for event in world.engine.named("started")} == {"held", "free"}
    held.cancel("test")


# Keys that end


async def test_what_a_key_has_under_way_ends_with_it(world: World) -> None:
    key = world.keys["operate"]
    carol, bob = await world.client(key), await world.client("bob")
    streams = [asking(client, "chat", Script(tag, 5, hold_after=1)) for client, tag in ((carol, "hers"), (bob, "his"))]
    for tag in ("hers", "his"):
        await world.engine.event("holding", tag)
    (task_id,) = [each.task_id for each in world.pipeline.tasks() if each.caller.id == key.id]
    held = carol.command("count", {"count": 1, "hold": True}, target=["a"], deadline=0)
    assert await anext(held) == 0
    readers = [
        asyncio.ensure_future(each)
        for each in (_end_of(streams[0]), anext(held), _end_of(carol.follow(task_id)), _end_of(carol.events()))
    ]
    assert (await carol.tasks())[0]["object"] == "task"  # the commands sent before it have begun
    revoke_keys(world.path, [key.id])
    for reader in readers:
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(reader, PATIENCE)
    await world.engine.event("cancelled", "hers")
    await world.engine.event("command_cancelled")
    for verb, call in VERBS.items():
        result = await first(call, carol)
        assert isinstance(result, Unauthenticated), f"{verb} gave {result!r}"
    assert [each.caller.tenant for each in world.pipeline.tasks()] == ["bob"]
    assert len(world.engine.named("cancelled")) == 1
    streams[1].cancel("test")


async def test_a_key_that_is_made_later_lets_a_client_in_that_is_linked_already(world: World) -> None:
    key = new_key()
    client = await world.client(key)
    assert isinstance(await first(VERBS["models"], client), Unauthenticated)
    read = asyncio.Event()
    world.access.listen(lambda gone: read.set())
    add_key(world.path, record_of(key))
    revoke_keys(world.path, [world.keys["bob"].id])  # once that is known, so is the new one
    await asyncio.wait_for(read.wait(), PATIENCE)
    assert await first(VERBS["models"], client) == {"model": MODEL, "agents": 1}


# Through a tree


async def test_a_child_trusts_its_parent_and_applies_no_limits_again(
    options_of: Callable[[str], dict[str, Any]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, key, operator = tmp_path / "keys.json", new_key(), new_key()
    add_key(path, record_of(key, tenant="alice", limits=LIMITS))
    add_key(path, record_of(operator, role="operate"))
    async with AsyncExitStack() as stack:
        names = [{"network": f"{request.node.name}/{number}"} for number in range(2)]
        below, above = [await stack.enter_async_context(Rig("memory", name)) for name in names]
        clients = await stack.enter_async_context(Rig("zeromq", options_of("zeromq")))
        _, engine = await below.agent("a")
        child = await below.pipeline("a")
        await above.fleet(child, "agent", KeyAccess(path))
        parent = await above.pipeline(child.info.hub_id)
        await clients.fleet(parent, "client", KeyAccess(path))
        alice, root = await clients.client(str(key)), await clients.client(str(operator))
        stream = asking(alice, "chat", Script("deep", 5, hold_after=1))
        await engine.event("holding", "deep")
        assert [each.caller for each in parent.tasks()] == [Caller(key.id, "alice", "use", LIMITS)]
        assert [each.caller for each in child.tasks()] == [Caller(parent.info.hub_id, "alice", "use", NO_LIMITS)]
        with pytest.raises(errors.Forbidden):
            await anext(alice.command("count", {"count": 1}, target=[child.info.hub_id, "a"]))
        counted = root.command("count", {"count": 1}, target=[child.info.hub_id, "a"])
        assert [each async for each in counted] == [0]
        stream.cancel("test")


async def _end_of(results: Any) -> None:
    async for _ in results:
        pass
