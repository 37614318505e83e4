"""The tags of samples, and the keys they come from, without DDS."""

from __future__ import annotations

import pytest

from anywire.identities.identity_proof import Identity
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire_dds.end_key import EndKey
from anywire_dds.presence import pack_hub, pack_status, read_status
from anywire_dds.seal import KEY_BYTES, MAX_WRITERS, TRAILER_BYTES, Seal, WriterSeal
from anywire_dds.signed import Forged, Unproven

SAMPLE = b"\0\1\0\0" + bytes(range(64))
AGENT, HUB = AgentInfo("a", 5), HubInfo("h", 6)


def pair() -> tuple[Seal, Seal]:
    one, other = b"1" * KEY_BYTES, b"2" * KEY_BYTES
    seals = Seal(), Seal()
    seals[0].agree(one, other)
    seals[1].agree(other, one)
    return seals


def write(seal: WriterSeal, sample: bytes = SAMPLE) -> bytes:
    sealed = seal.sealed(sample)
    seal.written()
    return sealed


def test_each_writer_of_a_link_has_its_own_order() -> None:
    here, there = pair()
    one, two = here.writer("request"), here.writer("request")
    first, second = write(one), write(one)
    assert there.opened("request", write(two)) == (SAMPLE, 0)
    assert there.opened("request", first) == (SAMPLE, 0)
    assert there.opened("request", second) == (SAMPLE, 0)
    assert there.opened("request", write(two)) == (SAMPLE, 0)


def test_what_was_not_taken_keeps_its_number() -> None:
    here, there = pair()
    writer = here.writer("request")
    assert writer.sealed(SAMPLE) == writer.sealed(SAMPLE)
    there.opened("request", write(writer))
    assert there.opened("request", write(writer)) == (SAMPLE, 0)


def test_what_is_missing_is_counted_and_cannot_come_later() -> None:
    here, there = pair()
    writer = here.writer("response")
    samples = [write(writer) for _ in range(5)]
    assert there.opened("response", samples[0]) == (SAMPLE, 0)
    assert there.opened("response", samples[3]) == (SAMPLE, 2)
    for each in samples[:4]:
        with pytest.raises(Forged, match="come before"):
            there.opened("response", each)
    assert there.opened("response", samples[4]) == (SAMPLE, 0)


def test_no_other_topic_direction_or_link_takes_it() -> None:
    here, there = pair()
    sealed = write(here.writer("request"))
    for seal, topic in ((there, "control"), (here, "request"), (Seal(), "request")):
        with pytest.raises(Forged, match="tag"):
            seal.opened(topic, sealed)
    assert there.opened("request", sealed) == (SAMPLE, 0)


def test_no_bit_of_it_may_differ() -> None:
    here, there = pair()
    sealed = write(here.writer("request"))
    for place in range(len(sealed)):
        for bit in (1, 128):
            changed = bytearray(sealed)
            changed[place] ^= bit
            with pytest.raises(Forged):
                there.opened("request", bytes(changed))
    for size in range(len(sealed)):
        with pytest.raises(Forged):
            there.opened("request", sealed[:size])


def test_the_writers_of_a_link_are_bounded() -> None:
    here, there = pair()
    writers = [here.writer("request") for _ in range(MAX_WRITERS + 1)]
    assert there.opened("request", write(writers[-2])) == (SAMPLE, 0)
    with pytest.raises(Forged, match="writer 65"):
        there.opened("request", write(writers[-1]))


def test_both_ends_derive_the_same_keys_for_one_session_alone() -> None:
    agent, hub = EndKey("agent", AGENT, Identity.new()), EndKey("agent", HUB, Identity.new())
    of_agent, of_hub = Seal(), Seal()
    assert agent.agree(of_agent, agent.peer(hub.proof), hub.exchange, 11, 22)
    assert hub.agree(of_hub, hub.peer(agent.proof), agent.exchange, 22, 11)
    sealed = write(of_agent.writer("response"))
    assert of_hub.opened("response", sealed) == (SAMPLE, 0)
    assert hub.agree(of_hub, hub.peer(agent.proof), agent.exchange, 23, 11)
    with pytest.raises(Forged):
        of_hub.opened("response", sealed)


@pytest.mark.parametrize("key", ["", "x", "A" * 43])
def test_what_is_no_key_is_refused(key: str) -> None:
    agent, hub = EndKey("agent", AGENT, Identity.new()), EndKey("agent", HUB, Identity.new())
    assert not agent.agree(Seal(), agent.peer(hub.proof), key, 1, 2)


def test_a_signed_report_reads_as_any_other_and_is_its_writers() -> None:
    agent, hub = EndKey("agent", AGENT, Identity.new()), EndKey("agent", HUB, Identity.new())
    status = AgentStatus("a", 5, detail="why", offers="[]")
    packed = pack_status(status, 3)
    signed = agent.signed_report(packed)
    peer = hub.peer(agent.proof)
    assert read_status(signed) == (3, status)
    assert peer.has_signed_report(signed)
    for place in range(4, len(signed), 7):
        changed = bytearray(signed)
        changed[place] ^= 1
        assert not peer.has_signed_report(bytes(changed))
    assert not peer.has_signed_report(packed)
    assert not peer.has_signed_report(b"")
    assert not hub.peer(hub.proof).has_signed_report(signed)


@pytest.mark.parametrize(
    ("says", "shows", "signs", "reason"),
    [
        (HUB, HUB, HUB, ""),
        (HubInfo("h", 7), HUB, HUB, "not valid"),
        (HubInfo("g", 6), HUB, HUB, "not valid"),
        (HUB, HUB, AGENT, "not of this link"),
        (HUB, AGENT, HUB, "not of this link"),
    ],
)
def test_a_registration_counts_for_the_life_that_its_proof_names(
    says: HubInfo, shows: HubInfo | AgentInfo, signs: HubInfo | AgentInfo, reason: str
) -> None:
    keys = {info: EndKey("agent", info, Identity.new()) for info in (HUB, AGENT)}
    sample = pack_hub(says, 1000)
    signature = keys[signs].registration(sample).data.decode().split(";")[1].partition("=")[2]
    proof = keys[shows].proof
    if reason:
        with pytest.raises(Unproven, match=reason):
            keys[AGENT].registered(says, sample, proof, signature)
    else:
        assert keys[AGENT].registered(says, sample, proof, signature).proof == proof


def test_a_trailer_is_as_long_as_it_says() -> None:
    here, _ = pair()
    assert len(here.writer("request").sealed(SAMPLE)) == len(SAMPLE) + TRAILER_BYTES
