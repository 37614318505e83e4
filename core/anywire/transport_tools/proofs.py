"""Proofs of identity on links that a transport protects by keys: what an end shows, and what it asks of the other.

The key of a link is that of the end that has connected: made by that end alone, and seen by the other on the
connection, since the handshake proves that its owner is there. Both ends name it in their proofs. So who stands between
the two, or repeats what was said on another link, is found out by both, though only one of the keys is its owner's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from anywire.identities.identity_proof import Identity, as_text, read_proof
from anywire.messages import AgentInfo, HubInfo
from anywire.printable import printable
from anywire.transport import Plane, Transport
from anywire.transport_tools.versions import MAX_NAME, Info, LinkRefused

UNPROTECTED = (
    "no key of its own protects the link. Leave out the keys and certificates that several ends share: an identity "
    "needs none"
)
"""Goes on why somebody is not let in."""


class LinkProofs:
    """Those of one end on ``plane``, with the ``identity`` and ``admits`` of its `anywire.transport.Transport`."""

    def __init__(
        self,
        plane: Plane,
        identity: Identity | None = None,
        admits: Callable[[Plane, AgentInfo | HubInfo], str] | None = None,
    ) -> None:
        self._plane, self._identity, self._admits = plane, identity, admits

    @property
    def shows(self) -> bool:
        """Whether this end shows an identity."""
        return self._identity is not None

    @property
    def asks(self) -> bool:
        """Whether it is asked who a peer is."""
        return self._admits is not None

    @classmethod
    def of(cls, transport: Transport, plane: Plane) -> LinkProofs:
        return cls(plane, transport.identity, transport.admits)

    def shown(self, info: Info, key: bytes) -> Info:
        """What this end says of itself on a link with that ``key``; ``info`` as it is where there is none, or no
        identity."""
        if self._identity is None or not key:
            return info
        return msgspec.structs.replace(info, proof=self._proof(info, as_text(key)))

    def check(self, info: AgentInfo | HubInfo, key: bytes | None) -> str:
        """The fingerprint that the peer ``info`` has proved on a link with that ``key``, empty where it proves none.
        ``key`` is empty where nothing protects the link, or a key that several ends have; None where ``info`` has not
        come by a link, and is asked again there.

        Raises `LinkRefused` for a proof of another link or end, and for whom `Transport.admits` does not let in.
        """
        peer_id, end = (info.hub_id, "hub") if isinstance(info, HubInfo) else (info.agent_id, "agent")
        name = f"{end} {printable(peer_id, MAX_NAME)}"
        proof = read_proof(info.proof)
        if key and proof is not None:
            if proof.binding != as_text(key):
                raise LinkRefused(f"{name} shows a proof of identity that is not of this link")
            if not proof.is_valid(self._plane, end, peer_id, info.incarnation):  # type: ignore[arg-type]
                raise LinkRefused(f"{name} shows a proof of identity that is not valid")
        if self._admits is not None and self._are_asked(info):
            if reason := self._admits(self._plane, info):
                raise LinkRefused(f"{name} is not let in: {reason}")
            if key is not None and not key:
                raise LinkRefused(f"{name} is not let in: {UNPROTECTED}")
        if self.shows and key is not None and not key and proof is not None and proof.binding:
            raise LinkRefused(f"{name} shows a proof of identity that is not of this link: {UNPROTECTED}")
        return proof.fingerprint if key and proof is not None else ""

    def admitted(self, info: AgentInfo | HubInfo) -> bool:
        """Whether a peer that was let in still is."""
        return self._admits is None or not self._admits(self._plane, info)

    def _are_asked(self, info: AgentInfo | HubInfo) -> bool:
        """Clients are let in by their keys, which the core looks at."""
        return self._plane == "agent" or isinstance(info, AgentInfo)

    def _proof(self, info: AgentInfo | HubInfo, binding: str) -> str:
        assert self._identity is not None
        if isinstance(info, HubInfo):
            return self._identity.prove(self._plane, "hub", info.hub_id, info.incarnation, binding)
        return self._identity.prove(self._plane, "agent", info.agent_id, info.incarnation, binding)
