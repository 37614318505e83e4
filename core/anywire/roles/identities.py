"""The identity of this process, and whom it lets in, as the configuration says: given to what it opens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from anywire.config import Config
from anywire.errors import ConfigError
from anywire.identities.end_check import EndCheck
from anywire.identities.identity_proof import Identity
from anywire.messages import AgentInfo, HubInfo
from anywire.transport import Plane, Transport

_checks: WeakValueDictionary[tuple[Path, str], EndCheck] = WeakValueDictionary()
"""Those in use, by their files and the fingerprints of their own keys: the roles of a process share one."""


class OwnIdentity:
    """What `config.identity` makes of one role. The constructor raises `ConfigError`; it makes the key where it is
    missing."""

    def __init__(self, config: Config) -> None:
        settings = config.identity
        self.identity = Identity.from_file(settings.key) if settings.key is not None else None
        self.check: EndCheck | None = None
        if self.identity is not None:
            self.identity.voucher = settings.voucher
        if settings.admitted is None:
            return
        if self.identity is None:
            raise ConfigError("identity.admitted needs identity.key: whom this process lets in must know it, too")
        key = settings.admitted.resolve(), self.identity.fingerprint
        check = _checks.get(key)
        if check is None:
            _checks[key] = check = EndCheck(*key)
        self.check = check

    def give(self, transports: Iterable[Transport]) -> None:
        """Give transports that nothing was opened on yet their identity. Raises `ConfigError` for one by which a
        stranger could pass for somebody who is let in."""
        for each in transports:
            capabilities = each.capabilities
            if self.check is not None and not (capabilities.binds_identity or each.is_local):
                raise ConfigError(
                    f"identity.admitted cannot hold over the transport {each.name}, which leaves this machine and does "
                    "not protect its links by keys: leave the one or the other out"
                )
            each.identity = self.identity
            each.admits = self.check.refusal if self.check is not None else None

    def hub(self, info: HubInfo, plane: Plane) -> HubInfo:
        """``info`` with the proof that this process is it."""
        if self.identity is None:
            return info
        proof = self.identity.prove(plane, "hub", info.hub_id, info.incarnation)
        return msgspec.structs.replace(info, proof=proof)

    def agent(self, info: AgentInfo, plane: Plane) -> AgentInfo:
        """As `hub`."""
        if self.identity is None:
            return info
        proof = self.identity.prove(plane, "agent", info.agent_id, info.incarnation)
        return msgspec.structs.replace(info, proof=proof)
