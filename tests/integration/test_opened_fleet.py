"""What `--lan` makes in the state folder of a fleet, and what an agent that is invited gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from anywire.cli import opened_fleet
from anywire.cli.fleet_records import FleetRecord, recording
from anywire.cli.invite_codes import Invitation, encode
from anywire.cli.meeting import Meeting, Serving, joining, serving
from anywire.config_layers import load
from anywire.errors import ConfigError
from anywire.identities.admitted import read_admitted
from anywire.identities.identity_proof import Identity, read_proof
from anywire.keys.key_records import read_keys, revoke_keys
from anywire.keys.key_text import new_key
from anywire.plugins import Plugins
from anywire.roles.identities import OwnIdentity
from anywire.transport import Capabilities
from anywire_zeromq.transport import ZeromqTransport

BEYOND: dict[str, Any] = {"server.host": "10.77.1.1", "transports": "zeromq"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "anywire" / "blue"


def opened(plugins: Plugins | None = None, **settings: Any) -> Serving:
    config = load(settings=BEYOND | {key.replace("__", "."): value for key, value in settings.items()}, environment={})
    return serving(config, plugins or Plugins(), Meeting("blue", lan=True))


def test_what_is_needed_is_made_once_and_for_this_user_alone(state: Path) -> None:
    first, second = opened(), opened()
    assert first.key is not None
    assert first.key == second.key, "a code outlives a restart"
    config = first.config
    assert (config.access.keys, config.identity.admitted) == (state / "keys.json", state / "admitted.json")
    choice = config.transport("zeromq")
    assert choice is not None
    assert "secret_key" not in choice.options, "each end has a key of its own"
    OwnIdentity(config)
    found = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert found == dict.fromkeys(("keys.json", "invite.key", "orchestrator.pem"), 0o600)
    [record] = read_keys(state / "keys.json").values()
    assert (record.id, record.role, record.invites, record.label) == (first.key.id, "use", True, "invitation")
    assert first.key.secret not in (state / "keys.json").read_text() + repr(first)


def test_in_place_of_a_key_that_was_revoked_there_is_a_new_one(state: Path) -> None:
    first = opened()
    assert first.key is not None
    revoke_keys(state / "keys.json", [first.key.id])
    second = opened()
    assert second.key is not None
    assert second.key.id != first.key.id
    assert [each.state(0.0) for each in read_keys(state / "keys.json").values()] == ["revoked", "active"]


def test_what_the_configuration_names_is_used(tmp_path: Path, state: Path) -> None:
    named: dict[str, Any] = {"access__keys": str(tmp_path / "keys.json"), "identity__key": str(tmp_path / "own.pem")}
    made = opened(**named)
    assert made.key is not None
    assert set(read_keys(tmp_path / "keys.json")) == {made.key.id}
    assert made.config.identity.key == tmp_path / "own.pem"
    assert not (state / "keys.json").exists()


def test_where_everybody_is_let_in_the_ends_share_a_key_as_ever(state: Path) -> None:
    made = opened(access__insecure=True)
    choice = made.config.transport("zeromq")
    assert choice is not None
    assert choice.options["secret_key"]
    assert (made.key, made.config.identity.admitted, made.config.access.keys) == (None, None, None)
    assert [path.name for path in state.iterdir()] == ["lan.key"]


def test_a_transport_that_cannot_tell_who_its_peers_are_has_a_key_that_all_share(state: Path) -> None:
    class Anonymous(ZeromqTransport):
        capabilities: ClassVar[Capabilities] = msgspec.structs.replace(
            ZeromqTransport.capabilities, binds_identity=False
        )

    plugins = Plugins()
    load_as = plugins.load

    def load_anonymous(kind: Any, name: str) -> Any:
        return Anonymous if name == "zeromq" else load_as(kind, name)

    plugins.load = load_anonymous  # type: ignore[method-assign]
    made = opened(plugins)
    choice = made.config.transport("zeromq")
    assert choice is not None
    assert choice.options["secret_key"]
    assert made.config.identity.admitted is None
    assert made.key is not None, "clients need a key all the same"
    assert made.config.access.keys == state / "keys.json"


def test_clients_certificates_are_not_closed_out_by_accident(tmp_path: Path) -> None:
    tls = {name: str(tmp_path / name) for name in ("certificate", "key", "client_ca")}
    with pytest.raises(ConfigError, match=r"--lan needs access\.keys"):
        opened(server__tls=tls)


def invitation(orchestrator: str) -> Invitation:
    addresses = {"agent_addresses": ["tcp://10.77.1.1:5560"], "client_addresses": ["tcp://10.77.1.1:5561"]}
    return Invitation("blue", {"zeromq": addresses | {"encrypted": True}}, key=str(KEY), orchestrator=orchestrator)


KEY, HUB = new_key(), Identity(bytes([7]) * 32)


@pytest.mark.parametrize("own", [False, True])
def test_an_invited_agent_has_a_key_of_its_own_for_which_the_code_vouches(
    own: bool, tmp_path: Path, state: Path
) -> None:
    config = load(settings={"identity.key": str(tmp_path / "mine.pem")} if own else {}, environment={})
    code = encode(invitation(HUB.fingerprint))
    joined = joining(config, Plugins(), Meeting(invite=code), named=False)
    assert joined.identity.key == (tmp_path / "mine.pem" if own else state / "agent.pem")
    assert joined.identity.admitted is not None
    ends = read_admitted(joined.identity.admitted).ends
    assert [(each.fingerprint, each.role) for each in ends.values()] == [(HUB.fingerprint, "orchestrator")]
    identity = OwnIdentity(joined).identity
    assert identity is not None
    proof = read_proof(identity.prove("agent", "agent", "a", 1, "x" * 128))
    assert proof is not None
    assert proof.is_valid("agent", "agent", "a", 1)
    assert (proof.inviter, proof.is_vouched) == (KEY.identity.public, True)
    assert not msgspec.structs.replace(proof, public=HUB.public).is_vouched
    assert KEY.secret not in joined.model_dump_json()


def test_a_client_that_is_invited_gets_no_identity(state: Path) -> None:
    config = load(environment={})
    code = encode(invitation(HUB.fingerprint))
    asking = joining(config, Plugins(), Meeting(invite=code), named=False, agent=False)
    assert (asking.identity.key, state.exists()) == (None, False)
    path = opened_fleet.orchestrators_of(invitation(HUB.fingerprint))
    assert path is not None
    assert set(read_admitted(path).ends) == {HUB.fingerprint}
    assert opened_fleet.orchestrators_of(invitation("")) is None


def test_an_agent_beside_its_orchestrator_comes_by_its_code_too(state: Path) -> None:
    met = invitation(HUB.fingerprint)
    with recording() as tell:
        tell(FleetRecord("blue", transports=met.transports, invite=encode(met)))
        joined = joining(load(environment={}), Plugins(), Meeting(), named=False)
    assert joined.identity.key == state / "agent.pem"
    assert joined.identity.voucher
    made = opened()
    assert made.key is not None
    keys = state / "keys.json"
    with recording() as tell:
        tell(FleetRecord("blue", transports=met.transports, invite=encode(met), keys=str(keys)))
        revoke_keys(keys, [made.key.id])
        joining(load(environment={}), Plugins(), Meeting(), named=False)
    assert [each.state(0.0) for each in read_keys(keys).values()] == ["revoked", "active"], "by one that counts"
