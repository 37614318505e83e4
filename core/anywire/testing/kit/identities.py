"""Ends that are known by keys: what both show, and who is refused though it knows what another one has said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anywire.identities.identity_proof import End, Identity, Proof, read_proof
from anywire.messages import AgentInfo, HubInfo
from anywire.testing.kit.answers import echo
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.rig import Rig, request
from anywire.transport import Plane

HUB, AGENT, STRANGER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))

Prove = Callable[[Identity, str, End, str, int, str, str], str]


class Admitting:
    """What `anywire.transport.Transport.admits` may be: lets in whose key is one of ``keys``, and of that id."""

    def __init__(self, *keys: Identity, **ids: Identity) -> None:
        self.keys = {each.fingerprint for each in keys}
        self.owners = {name: each.fingerprint for name, each in ids.items()}

    def __call__(self, plane: Plane, info: AgentInfo | HubInfo) -> str:
        if isinstance(info, HubInfo) and plane == "client":
            return ""
        proof = read_proof(info.proof)
        end_id, end = (info.hub_id, "hub") if isinstance(info, HubInfo) else (info.agent_id, "agent")
        if proof is None or not proof.is_valid(plane, end, end_id, info.incarnation):  # type: ignore[arg-type]
            return "it shows no identity"
        if proof.fingerprint not in self.keys:
            return f"its key {proof.fingerprint} is not admitted"
        if self.owners.get(end_id, proof.fingerprint) != proof.fingerprint:
            return "its id is bound to another key"
        return ""


class RogueIdentity(Identity):
    """Shows on a link what ``lie`` makes of what it should show; ``recorded`` is the proof of somebody else on another
    link."""

    def __init__(self, seed: bytes, lie: Prove, recorded: str) -> None:
        super().__init__(seed)
        self._lie, self._recorded = lie, recorded

    def prove(self, plane: str, end: End, end_id: str, incarnation: int, binding: str = "") -> str:
        if not binding:  # not of a link
            return AGENT.prove(plane, end, end_id, incarnation)
        return self._lie(AGENT, plane, end, end_id, incarnation, binding, self._recorded)


LIES: dict[str, tuple[Prove, str]] = {
    "nothing": (lambda who, plane, end, name, life, binding, recorded: "", "shows no identity"),
    "what another has shown on its link": (
        lambda who, plane, end, name, life, binding, recorded: recorded,
        "shows a proof of identity that is not",
    ),
    "a proof of no link": (
        lambda who, plane, end, name, life, binding, recorded: who.prove(plane, end, name, life),
        "not of this link",
    ),
    "a proof of another id": (
        lambda who, plane, end, name, life, binding, recorded: who.prove(plane, end, "other", life, binding),
        "not valid",
    ),
    "a proof of another life": (
        lambda who, plane, end, name, life, binding, recorded: who.prove(plane, end, name, life - 1, binding),
        "not valid",
    ),
    "a proof of the other plane": (
        lambda who, plane, end, name, life, binding, recorded: who.prove("client", end, name, life, binding),
        "not valid",
    ),
    "a proof of a key that is not admitted": (
        lambda who, plane, end, name, life, binding, recorded: STRANGER.prove(plane, end, name, life, binding),
        "is not admitted",
    ),
}


class IdentityTests:
    keys_are_shared = False
    """Whether ``options`` give all ends one key or certificate: no proof can be bound to a link then."""

    @pytest.fixture
    def binding(self, rig: Rig) -> Rig:
        if not rig.transport_class.capabilities.binds_identity:
            pytest.skip("this transport binds no proof to its links (Capabilities.binds_identity)")
        if self.keys_are_shared:
            pytest.skip("all ends have one key here, so that no proof is bound to a link")
        return rig

    async def test_where_all_ends_have_one_key_nobody_is_let_in_by_a_proof(self, rig: Rig) -> None:
        if not self.keys_are_shared:
            pytest.skip("each end has a key of its own here")
        await rig.hub("h", who=HUB, admits=Admitting(AGENT))
        with LogRecorder() as logged:
            await rig.port("a", echo, who=AGENT)
            await logged.message("no key of its own protects the link")

    @pytest.mark.parametrize("plane", ["agent", "client"])
    async def test_both_ends_prove_who_they_are_on_their_link(self, binding: Rig, plane: Plane) -> None:
        rig = binding
        _, agent, agent_info = await rig.port("a", echo, plane=plane, who=AGENT, admits=Admitting(HUB))
        hub, sink, info = await rig.hub("h", plane=plane, who=HUB, admits=Admitting(AGENT))
        seen = read_proof((await sink.event("joined", "a"))[3].proof)
        assert isinstance(seen, Proof)
        assert (seen.fingerprint, bool(seen.binding)) == (AGENT.fingerprint, True)
        assert seen.is_valid(plane, "agent", "a", agent_info.incarnation)
        shown = read_proof((await agent.event("hub_joined", "h"))[3].proof)
        assert isinstance(shown, Proof)
        assert (shown.fingerprint, bool(shown.binding)) == (HUB.fingerprint, True)
        assert shown.is_valid(plane, "hub", "h", info.incarnation)
        hub.send("a", request(info, "t"))
        await sink.final("t")

    async def test_an_agent_that_lies_takes_nobodys_place(self, binding: Rig) -> None:
        """It has the id of one that is linked, and a later life; the other goes on."""
        rig = binding
        hub, sink, info = await rig.hub("h", who=HUB, admits=Admitting(AGENT))
        await rig.port("a", echo, who=AGENT)
        recorded = (await sink.event("joined", "a"))[3].proof
        for number, (prove, reason) in enumerate(LIES.values()):
            with LogRecorder() as logged:
                liar, _, _ = await rig.port("a", who=RogueIdentity(bytes([9]) * 32, prove, recorded))
                await logged.message(reason)
                await liar.close()
            hub.send("a", request(info, f"t{number}"))
            await sink.final(f"t{number}")
        assert [each[1] for each in sink.events if each[0] in ("joined", "lost")] == ["a"]

    async def test_a_hub_that_lies_gets_no_agent(self, binding: Rig) -> None:
        rig = binding
        _, agent, _ = await rig.port("a", echo, who=HUB, admits=Admitting(AGENT))
        honest, sink, info = await rig.hub("h", who=AGENT)
        recorded = (await agent.event("hub_joined", "h"))[3].proof
        await sink.event("joined", "a")
        for prove, reason in list(LIES.values())[:2]:
            with LogRecorder() as logged:
                liar, _, _ = await rig.hub("g", who=RogueIdentity(bytes([9]) * 32, prove, recorded))
                await logged.message(reason)
                await liar.close()
        honest.send("a", request(info, "t"))
        await sink.final("t")
        assert [each[1] for each in agent.events if each[0] in ("hub_joined", "hub_lost")] == ["h"]

    async def test_an_id_belongs_to_its_key(self, binding: Rig) -> None:
        rig = binding
        _, sink, _ = await rig.hub("h", who=HUB, admits=Admitting(AGENT, STRANGER, a=AGENT))
        with LogRecorder() as logged:
            await rig.port("a", who=STRANGER)
            await logged.message("its id is bound to another key")
        await rig.port("a", echo, who=AGENT, incarnation=1)
        assert (await sink.event("joined", "a"))[2] == 1

    async def test_who_is_revoked_gives_way_to_its_successor(self, binding: Rig) -> None:
        rig, admitting = binding, Admitting(AGENT)
        _, sink, _ = await rig.hub("h", who=HUB, admits=admitting)
        await rig.port("a", echo, who=AGENT, incarnation=2)
        await sink.event("joined", "a", 2)
        admitting.keys = {STRANGER.fingerprint}
        await rig.port("a", echo, who=STRANGER, incarnation=3)
        await sink.event("joined", "a", 3)

    async def test_who_is_admitted_meanwhile_joins_by_itself(self, binding: Rig) -> None:
        rig, admitting = binding, Admitting()
        _, sink, _ = await rig.hub("h", who=HUB, admits=admitting)
        with LogRecorder() as logged:
            await rig.port("a", echo, who=AGENT)
            await logged.message(f"its key {AGENT.fingerprint} is not admitted")
        admitting.keys.add(AGENT.fingerprint)
        await sink.event("joined", "a")
