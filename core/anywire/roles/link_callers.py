"""Who is at the other end of each link of an agent, and so the caller of what comes by it.

A parent orchestrator vouches for the callers of the tasks that it passes on, and has applied their limits. A client
vouches for nobody: where clients need keys, it is known by the key that its hello proves, and by nothing that it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from anywire.access import Access, Presented
from anywire.caller import Caller, Role, lesser_role
from anywire.errors import Unauthenticated
from anywire.identities.identity_proof import Identity, read_proof
from anywire.messages import Command, HubInfo, TaskRequest
from anywire.transport import Plane, Transport
from anywire.transport_tools.proofs import UNPROTECTED

NO_KEY = "a key is needed: give it to the client (key=…, --key or ANYWIRE_API_KEY)"
NO_PROOF = "the proof of this client's key does not hold for its id and this life of it"
UNBOUND = f"the proof of this client's key could be another's that has seen it: {UNPROTECTED}"


def protect_clients(transports: Iterable[Transport]) -> None:
    """Give the transports that have no identity one for this run, before anything is opened on them: some protect their
    links by keys where both ends have an identity, as a client with a key has, and check its proof with that."""
    own = Identity.new()
    for each in transports:
        if each.identity is None:
            each.identity = own


class LinkCallers:
    """The links of one agent on ``plane``. ``link`` is everywhere the number of one of its ``transports``.

    The key of a link is looked up for everything that comes by it: what is known of keys may change while it is up.
    """

    def __init__(self, plane: Plane, transports: Sequence[Transport], access: Access) -> None:
        self._plane, self._transports, self._access = plane, transports, access
        self._shown: dict[tuple[str, int], tuple[Presented, str]] = {}
        """What each link has shown, and where that is nothing what to say of it."""
        self.needs_key = plane == "client" and access.needs_key
        """Whether a link counts only by its proof."""

    def joined(self, hub: HubInfo, link: int) -> None:
        """A hub has joined. Its proof is verified here, once; that its binding is the key of the link, the transport
        has seen. One without a binding could be another's, and counts within this machine alone."""
        if not self.needs_key:
            return
        transport, proof, instead = self._transports[link], read_proof(hub.proof), ""
        if proof is None or not proof.is_valid(self._plane, "hub", hub.hub_id, hub.incarnation):
            instead = NO_PROOF if hub.proof else NO_KEY
        elif not proof.binding and (transport.capabilities.binds_identity or not transport.is_local):
            instead = UNBOUND
        shown = Presented(
            local=transport.is_local,
            peer=f"client {hub.hub_id}",
            public_key=proof.public if proof is not None and not instead else b"",
        )
        self._shown[hub.hub_id, link] = shown, instead

    def lost(self, hub_id: str, link: int) -> None:
        self._shown.pop((hub_id, link), None)

    def of_task(self, task: TaskRequest, link: int) -> Caller:
        """Whose task it is. Raises `Unauthenticated`."""
        if self.needs_key:
            return self._of_key(task.hub_id, link)
        return Caller(task.hub_id, task.tenant)

    def of_command(self, command: Command, link: int) -> Caller:
        """Who sends a command: it may name a lesser role than it has. Raises `Unauthenticated`."""
        if self.needs_key:
            caller = self._of_key(command.hub_id, link)
            role = lesser_role(caller.role, command.role)
            return caller if role == caller.role else msgspec.structs.replace(caller, role=role)
        allowed: Role = "operate" if self._plane == "agent" or self._transports[link].is_local else "use"
        return Caller(command.hub_id, command.tenant, lesser_role(allowed, command.role))

    def counts(self, hub_id: str, link: int) -> bool:
        """Whether anything counts that comes by this link now."""
        if not self.needs_key:
            return True
        try:
            self._of_key(hub_id, link)
        except Unauthenticated:
            return False
        return True

    def _of_key(self, hub_id: str, link: int) -> Caller:
        shown, instead = self._shown.get((hub_id, link), (Presented(peer=f"client {hub_id}"), NO_KEY))
        try:
            return self._access.caller(shown)  # also where it is nothing: who observes is told of it
        except Unauthenticated as error:
            if instead:
                raise Unauthenticated(instead) from error
            raise
