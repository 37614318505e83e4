"""The keys of one open end that has an identity, and those that its peers have shown.

An end makes two key pairs when it is opened, which end with it: an Ed25519 one, by which it signs its registration, its
reports and its hellos, and an X25519 one, from which it derives a key with each of its peers. The proof of its identity
names the first one as its binding, and its hellos name the second one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from anywire.identities.identity_proof import End, Identity, as_text, from_text, read_proof
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import Plane
from anywire_dds import user_data
from anywire_dds.seal import KEY_BYTES, Seal
from anywire_dds.signed import Unproven, signature_in, with_signature

_Info = TypeVar("_Info", AgentInfo, HubInfo)


class PeerKey:
    """The key by which a peer signs, as its identity has vouched for it."""

    def __init__(self, public: bytes, plane: Plane) -> None:
        """Raises `ValueError` for what is no public key."""
        self.public = public
        self._key, self._plane = Ed25519PublicKey.from_public_bytes(public), plane

    def has_signed(self, what: str, data: bytes, signature: bytes) -> bool:
        """Whether this peer has signed ``data`` as ``what``."""
        try:
            self._key.verify(signature, _signed(what, self._plane, data))
        except InvalidSignature:
            return False
        return True

    def has_signed_report(self, data: bytes) -> bool:
        """Whether this peer has signed a packed report. Nothing else of it is read for that."""
        found = signature_in(data)
        return found is not None and self.has_signed("report", *found)


class EndKey:
    """The keys of one open end of ``identity``. Nothing of them is ever shown but their public halves."""

    def __init__(self, plane: Plane, info: AgentInfo | HubInfo, identity: Identity) -> None:
        self._plane = plane
        self._end, _, self.name = _end(info)
        self.incarnation = info.incarnation
        self._signing, self._exchange = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.public = self._signing.public_key().public_bytes_raw()
        self.exchange = as_text(self._exchange.public_key().public_bytes_raw())
        """What its hellos name."""
        self.proof = identity.prove(plane, self._end, self.name, self.incarnation, as_text(self.public))

    def sign(self, what: str, data: bytes) -> bytes:
        return self._signing.sign(_signed(what, self._plane, data))

    def signed_report(self, sample: bytes) -> bytes:
        """A packed report with its signature."""
        return with_signature(sample, lambda head: self.sign("report", head))

    def registration(self, sample: bytes) -> Any:
        """The policy of the writer of this end's packed registration."""
        return user_data.of_registration(self.proof, as_text(self.sign("registration", sample)))

    def peer(self, proof: str) -> PeerKey:
        """The key that a proof names which was found valid."""
        read = read_proof(proof)
        public = from_text(read.binding) if read is not None else None
        return PeerKey(public or b"", self._plane)

    def registered(self, info: _Info, sample: bytes, proof: str, signature: str) -> _Info:
        """``info`` with the proof that its registration shows. Raises `Unproven` when the proof is not valid for this
        life, or the registration is not signed by the key that it names."""
        read, said = read_proof(proof), from_text(signature)
        end, _, name = _end(info)
        public = from_text(read.binding) if read is not None else None
        try:
            is_bound = PeerKey(public or b"", self._plane).has_signed("registration", sample, said or b"")
        except ValueError:
            is_bound = False
        if not is_bound:
            raise Unproven("shows a proof of identity that is not of this link")
        if read is None or not read.is_valid(self._plane, end, name, info.incarnation):
            raise Unproven("shows a proof of identity that is not valid")
        return msgspec.structs.replace(info, proof=proof)

    def seal(self) -> Seal:
        """A link's own, before `agree`."""
        return Seal()

    def agree(self, seal: Seal, peer: PeerKey, exchange: str, own_number: int, peers_number: int) -> bool:
        """Derive the keys of a link from both ends' keys and session numbers; False when ``exchange``, which the peer's
        hello names, is no key."""
        theirs = from_text(exchange)
        try:
            shared = self._exchange.exchange(X25519PublicKey.from_public_bytes(theirs or b""))
        except ValueError:
            return False
        own = (str(own_number), as_text(self.public), self.exchange)
        other = (str(peers_number), as_text(peer.public), exchange)
        hubs, agents = (own, other) if self._end == "hub" else (other, own)
        info = "\0".join(("anywire dds link 1", self._plane, *hubs, *agents)).encode()
        keys = HKDF(SHA256(), 2 * KEY_BYTES, salt=None, info=info).derive(shared)
        of_hub, of_agent = keys[:KEY_BYTES], keys[KEY_BYTES:]
        seal.agree(*((of_hub, of_agent) if self._end == "hub" else (of_agent, of_hub)))
        return True


def _end(info: AgentInfo | HubInfo) -> tuple[End, End, str]:
    """Which end this is, which one its peers are, and its id."""
    return ("agent", "hub", info.agent_id) if isinstance(info, AgentInfo) else ("hub", "agent", info.hub_id)


def _signed(what: str, plane: Plane, data: bytes) -> bytes:
    return b"\0".join((b"anywire dds 1", what.encode(), plane.encode(), data))
