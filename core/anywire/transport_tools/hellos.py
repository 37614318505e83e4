"""What a peer may say of itself in its hello."""

from __future__ import annotations

from anywire.messages import MAX_PROOF_CHARS, AgentInfo, HubInfo

MAX_ID_CHARS = 1024
"""Longest id that a peer may have."""

MAX_LEASE_MS = 24 * 60 * 60 * 1000
"""Longest lease that a peer may have: a day."""

MAX_INCARNATION = 2**63 - 1


def implausible(peer: HubInfo | AgentInfo) -> str:
    """Why a peer with this hello cannot be linked, as part of a sentence; empty when it can."""
    peer_id = peer.hub_id if isinstance(peer, HubInfo) else peer.agent_id
    if not 0 < len(peer_id) <= MAX_ID_CHARS:
        return f"its id has {len(peer_id)} characters: 1 to {MAX_ID_CHARS} are possible"
    if not peer_id.isprintable():
        return "its id has control characters"
    if not 0 <= peer.incarnation <= MAX_INCARNATION:
        return f"its incarnation is {peer.incarnation!s:.40}: 0 to {MAX_INCARNATION} are possible"
    if not 0 < peer.lease_ms <= MAX_LEASE_MS:
        return f"its lease_ms is {peer.lease_ms!s:.40}: 1 to {MAX_LEASE_MS} are possible"
    if len(peer.proof) > MAX_PROOF_CHARS or not (peer.proof.isascii() and peer.proof.isprintable()):
        return f"its proof is no printable text of at most {MAX_PROOF_CHARS} characters"
    return ""
