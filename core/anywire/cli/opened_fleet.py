"""What a fleet that is opened to its network needs so that others can be invited, and what those need who come.

All of it lies in the state folder of the fleet, for this user alone, and is made when it is missing: the keys of
clients and the key that invitations carry, the orchestrator's identity, and who is let in.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from anywire.cli.invite_codes import Invitation, decode
from anywire.errors import ConfigError
from anywire.files.private_files import change_private, read_private
from anywire.files.state_folders import state_folder

if TYPE_CHECKING:
    from anywire.caller import Role
    from anywire.cli.fleet_records import FleetRecord
    from anywire.config import Config
    from anywire.identities.admitted import Admitted
    from anywire.keys.key_text import KeyText


def with_keys(config: Config, fleet: str) -> Config:
    """With a file of keys of clients, where none is configured. Raises `ConfigError` where clients come in otherwise,
    in a way that keys would close."""
    from anywire.config import replaced

    if config.access.keys is not None:
        return config
    if config.server.tls is not None and config.server.tls.client_ca is not None:
        raise ConfigError(
            "with server.tls.client_ca, --lan needs access.keys (--keys FILE): it says which certificates count, and "
            "the invitation's key goes into it"
        )
    keys = state_folder(fleet) / "keys.json"
    return replaced(config, access=config.access.model_dump(exclude_unset=True) | {"keys": keys})


def with_identity(config: Config, fleet: str) -> Config:
    """With an identity, and a file of those that are let in, where none are configured."""
    folder = state_folder(fleet)
    key = config.identity.key or folder / "orchestrator.pem"
    admitted = config.identity.admitted or folder / "admitted.json"
    return _with_identity(config, key=key, admitted=admitted)


def with_agent_key(config: Config, fleet: str) -> Config:
    """With an identity for an agent of that fleet, where none is configured. Raises `ConfigError`."""
    return _with_identity(config, key=config.identity.key or state_folder(fleet) / "agent.pem")


def as_invited(config: Config, invitation: Invitation) -> Config:
    """With what an agent needs to be let in by this invitation: an identity of its own, for which the invitation's key
    vouches, and the orchestrator's as the only one that it takes tasks of. Raises `ConfigError`."""
    from anywire.identities.identity_proof import Identity
    from anywire.keys.key_text import read_key

    if not invitation.orchestrator:
        return config
    config = with_agent_key(config, invitation.fleet)
    assert config.identity.key is not None
    own, inviting = Identity.from_file(config.identity.key), read_key(invitation.key)
    if inviting is None:
        raise ConfigError("this invite code has no key: print a new one with `anywire invite`")
    admitted = config.identity.admitted or orchestrators_of(invitation)
    return _with_identity(config, admitted=admitted, voucher=inviting.identity.vouch(own.public))


def orchestrators_of(invitation: Invitation) -> Path | None:
    """The file that lets in the orchestrator of this invitation alone; None where it names none. Raises
    `ConfigError`."""
    if not invitation.orchestrator:
        return None
    name = invitation.orchestrator.removeprefix("SHA256:").replace("/", "_").replace("+", "-")
    path = state_folder(invitation.fleet) / "invited" / f"{name}.json"
    _admit_orchestrator(path, invitation.orchestrator)
    return path


def kept_invite_key(fleet: str, keys: Path) -> KeyText:
    """The key that invitations to this fleet carry: the one of before while it counts by the file ``keys``, else a new
    one. Raises `ConfigError`."""
    from anywire.keys.key_records import read_keys
    from anywire.keys.key_text import read_key

    path = state_folder(fleet) / "invite.key"
    try:
        found = read_key(read_private(path).decode("ascii", "replace").strip())
    except FileNotFoundError:
        found = None
    if found is not None and keys.exists():
        record = read_keys(keys).get(found.id)
        if record is not None and record.state(time.time()) == "active" and record.digest == found.digest:
            return found
    new = new_invite_key(keys)
    change_private(path, lambda _: f"{new}\n".encode())
    return new


def invitation_of(record: FleetRecord) -> Invitation:
    """The invitation to a fleet of this user that runs here with ``invite``, with a key that counts now. Raises
    `ConfigError`."""
    found = decode(record.invite)
    if not record.keys:
        return found
    return msgspec.structs.replace(found, key=str(kept_invite_key(record.fleet, Path(record.keys))))


def new_invite_key(keys: Path, role: Role = "use", expires: float = 0.0) -> KeyText:
    """A new key for an invitation, written into the file ``keys``. Raises `ConfigError`."""
    from anywire.keys.key_records import add_key, record_of
    from anywire.keys.key_text import new_key

    key = new_key()
    add_key(keys, record_of(key, label="invitation", role=role, expires=expires, invites=True))
    return key


def _with_identity(config: Config, **changes: object) -> Config:
    from anywire.config import replaced

    return replaced(config, identity=config.identity.model_dump(exclude_unset=True) | changes)


def _admit_orchestrator(path: Path, print_: str) -> None:
    from anywire.identities.admitted import AdmittedEnd, change_admitted, read_admitted

    found = read_admitted(path).ends.get(print_)
    if found is not None and found.role == "orchestrator" and not found.revoked:
        return

    def change(admitted: Admitted) -> Admitted:
        before = admitted.ends.get(print_)
        ids = before.ids if before is not None else ()
        return admitted.with_end(AdmittedEnd(print_, "orchestrator", ids, admitted=time.time()))

    change_admitted(path, change)
