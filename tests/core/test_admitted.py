"""Who is let in: the file of admitted ends, the check by it, and what becomes of agents that are refused or revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.patience import PATIENCE

from anywire.boundary import Boundary
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.event_bus import EventBus
from anywire.events import AdmissionChanged, ConfigReloaded
from anywire.identities.admitted import MAX_IDS, Admitted, AdmittedEnd, change_admitted, read_admitted, read_fingerprint
from anywire.identities.end_check import MAX_WAITING, EndCheck
from anywire.identities.identity_proof import Identity, as_text
from anywire.identity import hub_info
from anywire.messages import AgentInfo, HubInfo
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.roles import assembly
from anywire.roles.agent import Agent
from anywire.submission import Submission
from anywire.testing.log_recorder import LogRecorder

ONE, TWO = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
BODY = '{"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admitted.json"


def admit(path: Path, who: Identity, **more: Any) -> None:
    change_admitted(path, lambda found: found.with_end(AdmittedEnd(who.fingerprint, **more)))


def revoke(path: Path, who: Identity) -> None:
    change_admitted(path, lambda found: found.without(who.fingerprint))


def agent(who: Identity, agent_id: str = "a", incarnation: int = 1) -> AgentInfo:
    return AgentInfo(agent_id, incarnation, proof=who.prove("agent", "agent", agent_id, incarnation))


# The file


def test_the_file_says_what_was_written(path: Path) -> None:
    assert read_admitted(path).ends == {}
    admit(path, ONE, ids=("a",), fixed=True)
    admit(path, TWO, role="orchestrator")
    revoke(path, TWO)
    assert read_admitted(path).ends == {
        ONE.fingerprint: AdmittedEnd(ONE.fingerprint, ids=("a",), fixed=True),
        TWO.fingerprint: AdmittedEnd(TWO.fingerprint, role="orchestrator", revoked=True),
    }
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_admitted(path)


@pytest.mark.parametrize(
    "content",
    ["[]", '{"ends": [{"fingerprint": "planted"}]}', '{"ends": [{"fingerprint": 1}]}', "\udcff", "{" * 100_000],
)
def test_a_damaged_file_is_refused(path: Path, content: str) -> None:
    path.touch(0o600)
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match="damaged"):
        read_admitted(path)


def test_one_id_is_of_one_key(path: Path) -> None:
    admit(path, ONE, ids=("a",), fixed=True)
    with pytest.raises(ConfigError, match="two keys"):
        admit(path, TWO, ids=("a",))
    assert list(read_admitted(path).ends) == [ONE.fingerprint]


def test_a_key_keeps_the_ids_it_used_last() -> None:
    admitted = Admitted([AdmittedEnd(ONE.fingerprint), AdmittedEnd(TWO.fingerprint)])
    for number in range(MAX_IDS + 1):
        assert admitted.bind(ONE.fingerprint, f"a{number}")
    assert len(admitted.ends[ONE.fingerprint].ids) == MAX_IDS
    assert admitted.refusal(TWO.fingerprint, "agent", "a1")
    assert admitted.bind(TWO.fingerprint, "a0")
    assert not admitted.bind(TWO.fingerprint, "a1")


def test_a_fingerprint_or_a_public_key_names_a_key() -> None:
    assert read_fingerprint(ONE.fingerprint) == read_fingerprint(as_text(ONE.public)) == ONE.fingerprint
    for wrong in ("", "SHA256:", "SHA256:" + "A" * 42, "a1"):
        with pytest.raises(ConfigError, match="neither"):
            read_fingerprint(wrong)


# The check


async def test_who_is_let_in(path: Path) -> None:
    admit(path, ONE)
    admit(path, TWO, role="orchestrator")
    check = EndCheck(path)
    check.start()
    assert not check.refusal("agent", agent(ONE))
    assert not check.refusal("agent", agent(TWO, "other"))
    hub = hub_info("h")
    for who, refused in ((ONE, "as an agent alone"), (TWO, "")):
        proof = who.prove("agent", "hub", "h", hub.incarnation)
        found = check.refusal("agent", msgspec.structs.replace(hub, proof=proof))
        assert refused in found
        assert bool(found) == bool(refused)
    assert not check.refusal("client", hub)  # a client: its key says who it is
    await check.close()


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (AgentInfo("a", 1), "shows no identity"),
        (AgentInfo("a", 1, proof="aw1.planted"), "shows no identity"),
        (agent(TWO), f"run `anywire agents admit {TWO.fingerprint}`"),
        (msgspec.structs.replace(agent(ONE), agent_id="b"), "not valid"),
        (msgspec.structs.replace(agent(ONE), incarnation=2), "not valid"),
        (AgentInfo("a", 1, proof=ONE.prove("client", "agent", "a", 1)), "not valid"),
        (AgentInfo("a", 1, proof=ONE.prove("agent", "hub", "a", 1)), "not valid"),
        (agent(ONE, "taken"), "bound to another key"),
        (agent(ONE, "a\n"), "not printable"),
    ],
)
async def test_a_stranger_is_refused_and_named(path: Path, info: AgentInfo, reason: str) -> None:
    admit(path, ONE)
    admit(path, Identity(bytes([3]) * 32), ids=("taken",), fixed=True)
    check = EndCheck(path)
    assert reason in check.refusal("agent", info)
    [waiting] = check.waiting
    assert (reason in waiting.reason, check.refused) == (True, 1)
    assert read_admitted(path).ends[ONE.fingerprint].ids == ()


async def test_an_id_belongs_to_the_first_that_joined_with_it(path: Path) -> None:
    admit(path, ONE)
    admit(path, TWO)
    check = EndCheck(path)
    check.start()
    assert not check.refusal("agent", agent(ONE))
    assert "bound to another key" in check.refusal("agent", agent(TWO))
    await check.close()
    assert read_admitted(path).ends[ONE.fingerprint].ids == ("a",)
    assert "bound to another key" in EndCheck(path).refusal("agent", agent(TWO))


async def test_ones_own_key_is_let_in_in_every_role(path: Path) -> None:
    admit(path, TWO, ids=("taken",), fixed=True)
    check = EndCheck(path, ONE.fingerprint)
    hub = hub_info("h")
    hub = msgspec.structs.replace(hub, proof=ONE.prove("agent", "hub", "h", hub.incarnation))
    assert not check.refusal("agent", agent(ONE))
    assert not check.refusal("agent", hub)
    assert "bound to another key" in check.refusal("agent", agent(ONE, "taken"))
    assert read_admitted(path).ends.keys() == {TWO.fingerprint}


async def test_those_that_wait_are_bounded(path: Path) -> None:
    check = EndCheck(path)
    for number in range(MAX_WAITING + 50):
        check.refusal("agent", AgentInfo(f"a{number}", 1))
    assert len(check.waiting) == MAX_WAITING
    assert check.waiting[-1].id == f"a{MAX_WAITING + 49}"


async def test_a_file_that_breaks_leaves_what_counted(path: Path) -> None:
    admit(path, ONE)
    check = EndCheck(path)
    changed = asyncio.Event()
    check.listen(changed.set)
    check.start()
    with LogRecorder() as logged:
        path.write_text("{")  # noqa: ASYNC240
        await logged.message("goes on to count")
        assert not check.refusal("agent", agent(ONE))
    path.write_text('{"ends": []}')  # noqa: ASYNC240
    async with asyncio.timeout(20 * PATIENCE):
        await changed.wait()
    assert check.refusal("agent", agent(ONE))
    await check.close()


# A fleet


class Fleet:
    """An orchestrator that admits by ``path``, and agents, in one process."""

    def __init__(self, folder: Path, path: Path, stack: AsyncExitStack) -> None:
        self._folder, self._path, self._stack = folder, path, stack
        self._network = f"admitted-{folder.name}"

    def config(self, key: str, admitted: Path | None = None, agent_id: str = "", delay: float = 0.0) -> Config:
        identity: dict[str, Any] = {"key": str(self._folder / key)} if key else {}
        if admitted is not None:
            identity["admitted"] = str(admitted)
        return Config.model_validate(
            {
                "transports": {"memory": {"network": self._network}},
                "engine": {"name": "synthetic", "ttft": delay},
                "agent": {"id": agent_id},
                "identity": identity,
            }
        )

    def identity(self, key: str) -> Identity:
        return Identity.from_file(self._folder / key)

    async def orchestrator(self, admitted: Path | None) -> Orchestrator:
        one = assembly.make_orchestrator(self.config("orchestrator.pem", admitted), Plugins())
        self._stack.push_async_callback(one.close)
        await one.start()
        return one

    async def agent(self, agent_id: str, key: str = "", admitted: Path | None = None, delay: float = 0.0) -> Agent:
        one = assembly.make_agent(self.config(key, admitted, agent_id, delay), Plugins())
        self._stack.push_async_callback(one.close)
        await one.start()
        return one


@pytest.fixture
async def fleet(tmp_path: Path, path: Path) -> AsyncIterator[Fleet]:
    async with asyncio.timeout(60 * PATIENCE), AsyncExitStack() as stack:
        yield Fleet(tmp_path, path, stack)


def ids(orchestrator: Orchestrator) -> list[str]:
    return [each.agent_id for each in orchestrator.agents()]


async def test_a_stranger_gets_no_task_until_it_is_admitted(fleet: Fleet, path: Path) -> None:
    orchestrator = await fleet.orchestrator(path)
    who = fleet.identity("a.pem")
    with LogRecorder() as logged:
        await fleet.agent("a", "a.pem")
        told = await logged.message("does not let agent a in")
    assert f"anywire agents admit {who.fingerprint}" in told
    [waiting] = orchestrator.stats()["ends_waiting"]
    assert (waiting["id"], waiting["fingerprint"], waiting["role"]) == ("a", who.fingerprint, "agent")
    assert ids(orchestrator) == []
    stream = orchestrator.submit(Submission("chat", "synthetic", BODY))
    assert ids(orchestrator) == []
    admit(path, who)
    await stream.result()
    assert stream.agent_id == "a"
    assert ids(orchestrator) == ["a"]
    assert orchestrator.stats()["ends_waiting"] == []
    assert orchestrator.stats()["events"]["agents_refused"] == 1


async def test_a_revoked_agent_is_lost_and_its_tasks_go_elsewhere(fleet: Fleet, path: Path) -> None:
    orchestrator = await fleet.orchestrator(path)
    one, two = fleet.identity("a.pem"), fleet.identity("b.pem")
    admit(path, one)
    admit(path, two)
    await fleet.agent("a", "a.pem", delay=3_600_000)
    await orchestrator.agents_until(lambda agents: len(agents) == 1)
    stream = orchestrator.submit(Submission("chat", "synthetic", BODY))
    assert orchestrator.tasks()[0].agent_id == "a"
    await fleet.agent("b", "b.pem")
    await orchestrator.agents_until(lambda agents: len(agents) == 2)
    revoke(path, one)
    await stream.result()
    assert stream.agent_id == "b"
    assert ids(orchestrator) == ["b"]


async def test_an_id_of_another_key_is_refused(fleet: Fleet, path: Path) -> None:
    orchestrator = await fleet.orchestrator(path)
    admit(path, fleet.identity("a.pem"), ids=("a",), fixed=True)
    admit(path, fleet.identity("b.pem"))
    with LogRecorder() as logged:
        await fleet.agent("a", "b.pem")
        await logged.message("does not let agent a in", "bound to another key")
    assert ids(orchestrator) == []


async def test_an_agent_takes_no_task_of_a_strange_orchestrator(fleet: Fleet, path: Path) -> None:
    orchestrator = await fleet.orchestrator(None)
    who = fleet.identity("orchestrator.pem")
    admit(path, who)
    one = await fleet.agent("a", "a.pem", admitted=path)
    await orchestrator.agents_until(lambda agents: len(agents) == 1)
    with LogRecorder() as logged:
        stream = orchestrator.submit(Submission("chat", "synthetic", BODY))
        await logged.message("does not let this orchestrator in", f"admit {who.fingerprint} --role orchestrator")
        with pytest.raises(Exception, match="is not let in"):
            await anext(orchestrator.command(["a"], "drain"))
    assert one.stats()["events"]["strangers_refused"] >= 2
    admit(path, who, role="orchestrator")
    await stream.result()
    assert stream.agent_id == "a"


def test_whom_one_lets_in_must_know_it(path: Path) -> None:
    config = Config.model_validate({"transports": "memory", "identity": {"admitted": str(path)}})
    with pytest.raises(ConfigError, match=r"needs identity\.key"):
        assembly.make_orchestrator(config, Plugins())


async def test_who_is_admitted_bound_refused_and_revoked_is_told(path: Path) -> None:
    bus, told, changed = EventBus(Boundary()), list[AdmissionChanged](), asyncio.Event()
    bus.subscribe("told", told.append, AdmissionChanged)
    bus.subscribe("changed", lambda event: changed.set(), ConfigReloaded)
    check = EndCheck(path)
    check.start()
    stop_publishing = check.publish_to(bus)
    for _ in range(3):
        check.refusal("agent", agent(ONE))
    async with asyncio.timeout(20 * PATIENCE):
        admit(path, ONE)
        await changed.wait()
        check.refusal("agent", agent(ONE))
        changed.clear()
        revoke(path, ONE)
        while not any(each.state == "revoked" for each in told):
            await changed.wait()
            changed.clear()
    stop_publishing()
    check.refusal("agent", agent(TWO))
    await check.close()
    assert [(each.fingerprint, each.end, each.state, each.end_id) for each in told] == [
        (ONE.fingerprint, "agent", "refused", "a"),
        (ONE.fingerprint, "agent", "admitted", ""),
        (ONE.fingerprint, "agent", "bound", "a"),
        (ONE.fingerprint, "agent", "revoked", ""),
    ]
    assert ONE.fingerprint in told[0].reason


# Invitations


class KnownInviters:
    """The keys of clients that invite, by name; those named in ``revoked`` do not any more."""

    def __init__(self, **keys: Identity) -> None:
        self.keys, self.revoked = keys, set[str]()
        self.ended = set[str]()

    def inviter(self, public_key: bytes) -> str:
        found = (name for name, key in self.keys.items() if key.public == public_key)
        return next((name for name in found if name not in self.revoked | self.ended), "")

    def is_revoked(self, key_id: str) -> bool:
        return key_id in self.revoked or key_id not in self.keys


GUEST = Identity(bytes([3]) * 32)


def invited(by: Identity, who: Identity = GUEST, agent_id: str = "g", voucher: str | None = None) -> AgentInfo:
    one = Identity(bytes([3]) * 32) if who is GUEST else who
    one.voucher = by.vouch(one.public) if voucher is None else voucher
    return agent(one, agent_id)


async def test_an_invited_agent_is_admitted_once_and_for_good(path: Path) -> None:
    check = EndCheck(path)
    check.inviters = inviters = KnownInviters(key=ONE)
    assert "anywire agents admit" in check.refusal("agent", agent(GUEST, "g")), "without the word of an inviter"
    assert check.refusal("agent", invited(TWO)), "of one that does not invite"
    assert check.refusal("agent", invited(ONE, voucher=ONE.vouch(TWO.public))), "for another one"
    assert read_admitted(path).ends == {}
    check.start()
    assert check.refusal("agent", invited(ONE)) == ""
    inviters.ended.add("key")
    assert check.refusal("agent", agent(GUEST, "g")) == "", "an invitation that has run out took nobody's place"
    assert check.refusal("agent", invited(ONE, TWO, "h")), "and lets in nobody new"
    await check.close()
    found = read_admitted(path).ends[GUEST.fingerprint]
    assert (found.role, found.ids, found.invited, found.revoked) == ("agent", ("g",), "key", False)
    assert EndCheck(path).refusal("agent", invited(ONE)), "without the keys, who has been invited is not known"


async def test_who_was_revoked_does_not_come_again_by_the_same_invitation(path: Path) -> None:
    check = EndCheck(path)
    check.inviters = KnownInviters(key=ONE)
    check.start()
    assert check.refusal("agent", invited(ONE)) == ""
    await check.close()
    revoke(path, GUEST)
    check = EndCheck(path)
    check.inviters = KnownInviters(key=ONE)
    assert "its key was revoked" in check.refusal("agent", invited(ONE))
    admit(path, GUEST, ids=("g",))
    assert EndCheck(path).refusal("agent", invited(ONE)) == ""


async def test_who_was_admitted_by_hand_after_its_invitation_does_not_come_again_once_revoked(path: Path) -> None:
    check = EndCheck(path)
    check.inviters = KnownInviters(key=ONE)
    check.start()
    assert check.refusal("agent", invited(ONE)) == ""
    await check.close()
    admit(path, GUEST, ids=("g",), fixed=True)  # its id is pinned
    revoke(path, GUEST)
    check = EndCheck(path)
    check.inviters = KnownInviters(key=ONE)
    assert "its key was revoked" in check.refusal("agent", invited(ONE))
    assert read_admitted(path).ends[GUEST.fingerprint].revoked


async def test_with_its_invitation_an_agent_is_out_and_with_a_new_one_in_again(path: Path) -> None:
    check = EndCheck(path)
    check.inviters = inviters = KnownInviters(old=ONE, new=TWO)
    asked: list[str] = []
    check.listen(lambda: asked.append(check.refusal("agent", invited(ONE))))
    check.start()
    assert check.refusal("agent", invited(ONE)) == ""
    inviters.revoked.add("old")
    check.reconsider()
    assert "the invitation that it came with counts no more" in asked[0]
    assert check.refusal("agent", invited(TWO)) == ""
    await check.close()
    found = read_admitted(path).ends[GUEST.fingerprint]
    assert (found.invited, found.ids) == ("new", ("g",))


def test_an_invitation_lets_in_so_many_and_makes_nobody_an_orchestrator(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anywire.identities.admitted.MAX_INVITED", 1)
    some = Admitted().with_invited(ONE.fingerprint, "key", 1.0)
    assert some.with_invited(TWO.fingerprint, "key", 1.0) is some
    assert set(some.with_invited(TWO.fingerprint, "other", 1.0).ends) == {ONE.fingerprint, TWO.fingerprint}
    check = EndCheck(path)
    check.inviters = KnownInviters(key=ONE)
    guest = Identity(bytes([3]) * 32)
    guest.voucher = ONE.vouch(guest.public)
    hub = HubInfo("h", 1, proof=guest.prove("agent", "hub", "h", 1))
    assert "--role orchestrator" in check.refusal("agent", hub)
