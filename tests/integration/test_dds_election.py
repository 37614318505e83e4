"""Who is elected over DDS: the order in which candidates came, and their versions."""

from __future__ import annotations

from anywire.messages import HubInfo
from anywire.testing.recorder import Recorder
from anywire.transport import Candidacy
from anywire_dds import DdsConfig, DdsTransport
from anywire_dds.standby import MAX_CANDIDATES, Election, Standing

LEASE_MS = 500


class Candidate(Recorder):
    """One that stands; events ``elected``, ``deposed`` and ``active_seen`` with the hub that is active."""

    candidacy: Candidacy

    def elected(self) -> None:
        self.add("elected")

    def deposed(self, reason: str) -> None:
        self.add("deposed", reason)

    def active_seen(self, hub: HubInfo) -> None:
        self.add("active_seen", hub.hub_id)


async def stand(transport: DdsTransport, hub_id: str, incarnation: int, *, protocol: str = "") -> Candidate:
    made = Candidate()
    hub = HubInfo(hub_id, incarnation, lease_ms=LEASE_MS, protocol=protocol)
    made.candidacy = await transport.stand(hub, 0, made)
    return made


async def test_of_equals_the_one_that_stands_longest_is_elected_whatever_its_clock_says(dds_domain: int) -> None:
    """An incarnation is a time by the host's clock."""
    transport = DdsTransport(DdsConfig(domain=dds_domain))
    active = await stand(transport, "active", 3000)
    await active.event("elected")
    longest = await stand(transport, "longest", 2000)
    await longest.event("active_seen", "active")
    behind = await stand(transport, "clock-an-hour-behind", 1000)
    await behind.event("active_seen", "active")
    await active.candidacy.close()
    await behind.event("active_seen", "longest")
    assert longest.named("elected")
    assert not behind.named("elected")
    await longest.candidacy.close()
    await behind.event("elected")
    await behind.candidacy.close()


async def test_orchestrators_of_another_major_version_hold_an_election_of_their_own(dds_domain: int) -> None:
    """The agents of one cannot be served by the other."""
    transport = DdsTransport(DdsConfig(domain=dds_domain))
    old = await stand(transport, "old", 1, protocol="1.9")
    new = await stand(transport, "new", 2, protocol="2.0")
    await old.event("elected")
    await new.event("elected")
    next_minor = await stand(transport, "next-minor", 3, protocol="2.1")
    await next_minor.event("active_seen", "new")
    assert not new.named("active_seen") + old.named("active_seen") + next_minor.named("elected")
    for each in (next_minor, new, old):
        await each.candidacy.close()


def test_candidates_nobody_has_heard_of_are_bounded() -> None:
    hub = HubInfo("h", 1)
    election = Election(Standing("h/1", hub, 0))
    for number in range(2 * MAX_CANDIDATES):
        election.stands(Standing(f"x/{number}", hub, 0, rank=number))
    assert len(election._present) == MAX_CANDIDATES
    election.gone("x/0")
    election.stands(Standing("y/1", hub, 0))
    assert "y/1" in election._present
