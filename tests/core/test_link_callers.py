"""Who is at the other end of an agent's link, and that what comes by one link concerns nothing of another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import jwt
import msgspec
import pytest

from anywire.access import OpenAccess, Presented
from anywire.boundary import Boundary
from anywire.caller import Caller, Limits
from anywire.errors import ConfigError, Unauthenticated
from anywire.event_bus import EventBus
from anywire.events import AccessRefused
from anywire.identities.identity_proof import Identity
from anywire.identity import agent_info
from anywire.keys.key_text import new_key
from anywire.messages import Cancel, Command, Credit, HubInfo, TaskRequest
from anywire.roles.agent import Agent
from anywire.roles.client import Client
from anywire.roles.client_key import VARIABLE
from anywire.roles.link_callers import LinkCallers
from anywire.roles.told_access import told_access
from anywire.testing.doubles import Script, ScriptedEngine
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import Rig, request

ALICE = Identity.new()
CALLER = Caller("the-key", "alice", "observe", Limits(concurrency=3))


class OneKey(OpenAccess):
    """Knows ALICE alone, while ``counts``."""

    needs_key = True
    counts = True

    def caller(self, presented: Presented) -> Caller:
        if self.counts and presented.public_key == ALICE.public:
            return CALLER
        raise Unauthenticated("not known")


def hub(incarnation: int = 1, proof: str | None = None) -> HubInfo:
    own = ALICE.prove("client", "hub", "h", incarnation)
    return HubInfo("h", incarnation, proof=own if proof is None else proof)


def task(tenant: str = "") -> TaskRequest:
    return TaskRequest("h", "t", 1, "chat", "m", "{}", tenant=tenant)


def command(role: str, tenant: str = "") -> Command:
    return Command("h", "c", "tasks", tenant=tenant, role=role)


def with_key(access: OneKey | None = None) -> LinkCallers:
    return LinkCallers("client", [PuppetTransport()], access or OneKey())


def test_a_proven_key_says_who_a_client_is_and_the_client_says_nothing() -> None:
    callers = with_key()
    callers.joined(hub(), 0)
    assert callers.of_task(task(tenant="bob"), 0) == CALLER
    assert callers.of_command(command("operate", "bob"), 0) == CALLER
    assert callers.of_command(command("use"), 0) == msgspec.structs.replace(CALLER, role="use")


def test_only_the_life_and_the_link_of_a_proof_count() -> None:
    callers, proof = with_key(), hub().proof
    with pytest.raises(Unauthenticated, match="a key is needed"):
        callers.of_task(task(), 0)
    callers.joined(hub(), 0)
    with pytest.raises(Unauthenticated):
        callers.of_task(task(), 1)
    callers.joined(hub(2, proof), 0)  # a later life that repeats what the earlier has said
    with pytest.raises(Unauthenticated, match="does not hold"):
        callers.of_task(task(), 0)
    callers.joined(hub(3), 0)
    assert callers.counts("h", 0)
    callers.lost("h", 0)
    assert not callers.counts("h", 0)


def test_a_key_is_asked_about_every_time() -> None:
    access = OneKey()
    callers = with_key(access)
    callers.joined(hub(), 0)
    assert callers.of_task(task(), 0) == CALLER
    access.counts = False
    with pytest.raises(Unauthenticated):
        callers.of_task(task(), 0)
    assert not callers.counts("h", 0)


async def test_who_observes_is_told_who_was_not_let_in_and_what_it_has_shown() -> None:
    bus = EventBus(Boundary())
    async with bus.reader(AccessRefused) as events:
        callers = LinkCallers("client", [PuppetTransport()], told_access(OneKey(), bus))
        other = Identity.new().prove("client", "hub", "h", 1)
        for proof in ("", other):
            callers.joined(hub(proof=proof), 0)
            with pytest.raises(Unauthenticated):
                callers.of_task(task(), 0)
        told = [await anext(aiter(events)) for _ in range(2)]
    assert [(each.peer, each.presented) for each in told] == [("client h", "nothing"), ("client h", "proof")]  # type: ignore[union-attr]


@pytest.mark.parametrize(("plane", "local", "role"), [("client", True, "operate"), ("client", False, "use")])
def test_without_keys_a_client_is_its_link(plane: Any, local: bool, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PuppetTransport, "is_local", local)
    callers = LinkCallers(plane, [PuppetTransport()], OpenAccess())
    callers.joined(hub(proof="nonsense"), 0)
    assert callers.of_task(task(tenant="t"), 0) == Caller("h", "t")
    assert callers.of_command(command("operate", "t"), 0) == Caller("h", "t", role)  # type: ignore[arg-type]


def test_a_parent_vouches_for_tenant_and_role_whatever_keys_clients_need() -> None:
    callers = LinkCallers("agent", [PuppetTransport()], OneKey())
    callers.joined(hub(proof=""), 0)
    assert callers.of_task(task(tenant="alice"), 0) == Caller("h", "alice")
    assert callers.of_command(command("observe", "alice"), 0) == Caller("h", "alice", "observe")


# Links are apart


@pytest.fixture
async def links(request: pytest.FixtureRequest) -> AsyncIterator[list[Rig]]:
    async with AsyncExitStack() as stack:
        names = [f"{request.node.name}/{number}" for number in range(2)]
        yield [await stack.enter_async_context(Rig("memory", {"network": name})) for name in names]


async def test_a_hub_of_the_same_id_over_another_transport_reaches_nothing(links: list[Rig]) -> None:
    """It may be somebody else, who has learned the ids."""
    engine = ScriptedEngine()
    agent = Agent(agent_info("a", engine=engine), engine, [link.new_transport() for link in links], slots=8)
    await agent.start()
    hubs = [await link.hub("h", incarnation=1) for link in links]
    for _, sink, _ in hubs:
        await sink.event("joined", "a")
    (own, own_sink, info), (other, other_sink, _) = hubs
    stalled = msgspec.structs.replace(request(info, "stalled", body=Script("stalled", 9).body()), credit=1)
    own.send("a", request(info, "held", body=Script("held", 5, hold_after=1).body()))
    own.send("a", stalled)
    await engine.recorder.event("holding", "held")
    await own_sink.event("chunk", "stalled")
    other.send("a", Cancel("h", "held", 1))
    other.send("a", Cancel("h", "later", 1))
    other.send("a", Credit("h", "stalled", 1, 64))
    other.send("a", request(info, "probe", body=Script("probe").body()))
    await other_sink.final("probe")
    assert not engine.recorder.named("cancelled")
    assert not [event for event in engine.recorder.named("finished") if event[1] == "stalled"]
    own.send("a", request(info, "later", body=Script("later").body()))
    assert not (await own_sink.final("later")).error
    own.send("a", Cancel("h", "held", 1))
    await engine.recorder.event("cancelled", "held")
    own.send("a", Credit("h", "stalled", 1, 64))
    await engine.recorder.event("finished", "stalled")
    await agent.close()


# What a client does with its key


def test_a_client_keeps_nothing_of_its_key_but_what_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    monkeypatch.setenv(VARIABLE, str(key))
    for client in (Client(PuppetTransport()), Client(PuppetTransport(), key=str(key))):
        (transport,) = client.hub.transports
        assert transport.identity is not None
        assert transport.identity.public == key.identity.public
        assert client.hub.info.proof
        for shown in (repr(vars(client)), repr(client.hub.info), repr(vars(transport))):
            assert key.secret not in shown
    without = Client(PuppetTransport(), key="")
    assert (without.hub.info.proof, without.hub.transports[0].identity) == ("", None)


@pytest.mark.parametrize("named", [True, False])
def test_what_is_no_key_is_refused_and_not_repeated(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sk-of-somebody-else")
    with pytest.raises(ConfigError, match="begin with aw-") as refused:
        Client(PuppetTransport(), key="aw-is-none" if named else None)
    assert "somebody" not in str(refused.value)
    assert "is-none" not in str(refused.value)


def test_a_token_of_an_issuer_is_refused_as_one_that_counts_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    token = jwt.encode({"sub": "ann"}, "x" * 32)
    monkeypatch.setenv(VARIABLE, token)
    for key in (None, token):
        with pytest.raises(ConfigError, match="counts over HTTP alone: ask over HTTP, or show a key") as refused:
            Client(PuppetTransport(), key=key)
        assert token.rpartition(".")[2] not in str(refused.value)
