"""The DDS domains open in this process: created with our configuration, shared, and given up with their last user.

Participants too are shared, one for each lease and version of the messages, and stay as long as the domain. That is not
thrift: when a participant is deleted, Cyclone drops what it was still learning about other processes for all
participants of this one, and some peers would never be found.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from cyclonedds.core import DDSException
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.topic import Topic

from anywire.errors import TransportUnavailable
from anywire_dds import environment, qos, shared_memory
from anywire_dds.config import (
    AUTO,
    LOOPBACK,
    MULTICAST,
    DdsConfig,
    datagram_bytes,
    own_interface,
    settings_xml,
    stays_here,
    tracing_xml,
    used_interfaces,
)
from anywire_dds.device_binding import keep_to_loopback, open_sockets
from anywire_dds.faults import mapped
from anywire_dds.hearing import Unheard
from anywire_dds.monitor import Monitor
from anywire_dds.peers import check_peers
from anywire_dds.versions import ParticipantVersions

log = logging.getLogger(__name__)

_SETTING = re.compile(r"config: Domain/(\S+?)(?:/#text|\[@?(\w+)\]): (.*?) \{([\d,]*)\}$")
_INTERFACES = re.compile(r"selected interfaces: (.*)$")
_OWN_ADDRESS = re.compile(r": ownip: udp6?/\[?([0-9a-fA-F:.]+?)\]?$")
_ARBITRARY = re.compile(r"using network interface (.*) selected arbitrarily from: (.*)$")
_COMPLAINT = re.compile(r"^[\d.]+ \[\d+\]\s+\S+: (.*(?:[Ff]ail|not |No |unknown|error|cannot).*)$")


class OpenDomain:
    """One domain of this process. ``facts`` is what Cyclone says is in force: ``General/AllowMulticast`` and so on."""

    def __init__(self, config: DdsConfig, by_unicast: bool) -> None:
        self.settings = _settings(config)
        self.users = 0
        self.unreachable = ""
        """Why others cannot reach this domain any more; empty while they can."""
        self._id = config.domain
        self._participants: dict[tuple[int, str, str], DomainParticipant] = {}
        self._unheard: dict[int, Unheard] = {}
        self._versions: ParticipantVersions | None = None
        self._topics: dict[tuple[int, str], Topic[Any]] = {}
        check_peers(config.peers)
        with tempfile.TemporaryDirectory(prefix="anywire-dds-") as folder:
            file = Path(folder) / "log"
            asked = environment.documents()
            # Later documents win: the environment may trace elsewhere, but not undo what the options ask for.
            settings = _settings(config, by_unicast=by_unicast and stays_here(config))
            documents = [tracing_xml(str(file)), *([asked] if asked else []), settings]
            sockets = open_sockets()
            try:
                self._domain = Domain(config.domain, ",".join(documents))
            except DDSException as error:
                raise TransportUnavailable(_why_not(config, error, _read(file))) from error
            lines = _read(file)
            self.facts, sources = _facts(lines)
        _tell_network(config, lines)
        if stays_here(config):
            keep_to_loopback(sockets)
        elif config.security is None:
            _warn_open(config)
        try:
            self.monitor = Monitor(self._domain._ref)
        except DDSException as error:
            self._domain.__del__()
            raise mapped(error, f"watching DDS domain {config.domain}", opening=True) from error
        try:
            self._verify(config, bool(asked), sources)
        except TransportUnavailable:
            self.delete()
            raise

    def participant(self, lease_ns: int, name: str, protocol: str = "") -> DomainParticipant:
        """The participant of this process with that lease, whose ends speak that version of the messages (empty: none
        of them); ``name`` is what DDS tools show. Raises `DDSException`."""
        key = (lease_ns, name, protocol)
        if key not in self._participants:
            made = self._participants[key] = DomainParticipant(self._id, qos.participant_qos(name, lease_ns, protocol))
            self._unheard[made._ref] = Unheard(made, protocol)
            if self._versions is None:
                self._versions = ParticipantVersions(made)
        return self._participants[key]

    def unheard(self, participant: DomainParticipant) -> Unheard:
        """Whom this participant of ours does not hear."""
        return self._unheard[participant._ref]

    def protocol_of(self, participant: str) -> str | None:
        """The version that the ends of this participant, of any process, speak: see `ParticipantVersions.get`."""
        return self._versions.get(participant) if self._versions is not None else None

    def address_gone(self) -> None:
        """Tell, once for all ends here, that others do not reach this domain any more."""
        if not self.unreachable:
            self.unreachable = (
                f"this machine does not have the address {self.facts['address']} any more, which DDS domain {self._id} "
                "of this process tells others"
            )
            log.error("%s: nobody finds it there; restart the process", self.unreachable)

    def topic(self, participant: DomainParticipant, name: str, data_type: Any) -> Topic[Any]:
        """The topic of that name in that participant. Raises `DDSException`."""
        key = (participant._ref, name)
        if key not in self._topics:
            self._topics[key] = Topic(participant, name, data_type)
        return self._topics[key]

    def delete(self) -> None:
        self.monitor.close()
        if self._versions is not None:
            self._versions.delete()
        for entity in (*self._topics.values(), *self._participants.values(), self._domain):
            entity.__del__()
        self._topics.clear()
        self._participants.clear()

    def _verify(self, config: DdsConfig, asked: bool, sources: set[int]) -> None:
        if not self.facts:
            return  # CYCLONEDDS_URI sends the log elsewhere: it is the user who watches then
        wanted = {"Internal/Watermarks/WhcAdaptive": "false", "General/MaxMessageSize": f"{datagram_bytes(config)} B"}
        if config.multicast != "auto":
            wanted["General/AllowMulticast"] = MULTICAST[config.multicast]
        for name, value in wanted.items():
            if self.facts.get(name, value) != value:
                raise TransportUnavailable(
                    f"Cyclone DDS did not take its configuration: {name} is {self.facts[name]!r}, not {value!r}; "
                    "unset CYCLONEDDS_URI and try again"
                )
        # Cyclone numbers what it reads, the first and the last of which are ours.
        if asked and not sources - {0, max(sources)}:
            raise TransportUnavailable(
                f"{environment.VARIABLE} is set, but Cyclone DDS took nothing from it: its root must be <CycloneDDS>, "
                f'with a <Domain> that has no Id, or the Id "any" or "{self._id}"'
            )


_open: dict[int, OpenDomain] = {}


def acquire(config: DdsConfig, *, by_unicast: bool = False) -> OpenDomain:
    """The open domain, opened now if this process has not: on the loopback interface with ``by_unicast`` so that peers
    without multicast meet it too. Raises `TransportUnavailable`."""
    found = _open.get(config.domain)
    if found is None:
        found = _open[config.domain] = OpenDomain(config, by_unicast)
    elif found.settings != _settings(config):
        raise TransportUnavailable(
            f"domain {config.domain} is open in this process with other settings (interface, multicast, peers, "
            "participants_per_host, datagram_bytes, shared_memory, security): give both transports the same, or "
            "another domain"
        )
    found.users += 1
    return found


def release(config: DdsConfig) -> None:
    """Give up one `acquire`. The last one stops Cyclone's threads and closes its sockets."""
    found = _open[config.domain]
    found.users -= 1
    if not found.users:
        del _open[config.domain]
        found.delete()


def _warn_open(config: DdsConfig) -> None:
    log.warning(
        "DDS domain %d is open to the network: whoever reaches it can read along, also where keys and identities say "
        "who may ask and join (interface: %s; `interface: %s` closes it, transports.dds.security encrypts)",
        config.domain,
        ", ".join(used_interfaces(config)) or AUTO,
        LOOPBACK,
    )


def _tell_network(config: DdsConfig, lines: list[str]) -> None:
    """What was decided without being asked for, and leaves others unseen."""
    for line in lines:
        if found := _ARBITRARY.search(line):
            log.warning(
                "DDS domain %d uses the network interface %s, which Cyclone DDS chose arbitrarily from %s: name one "
                "with `interface`", config.domain, found[1], found[2],
            )  # fmt: skip
    if config.multicast == "off" and not config.peers and not stays_here(config):
        log.warning(
            "DDS domain %d has multicast off and no `peers`: processes of other hosts are found only if they name this "
            "one in their `peers`", config.domain,
        )  # fmt: skip


def _settings(config: DdsConfig, *, by_unicast: bool = False) -> str:
    psmx = shared_memory.LIBRARY if shared_memory.used(config) else ""
    return settings_xml(config, psmx=psmx, by_unicast=by_unicast)


def _read(log: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return log.read_text(errors="replace").splitlines()
    return []


def _facts(lines: list[str]) -> tuple[dict[str, str], set[int]]:
    facts: dict[str, str] = {}
    sources: set[int] = set()
    for line in lines:
        if found := _SETTING.search(line):
            name, attribute, value, origin = found.groups()
            facts[f"{name}@{attribute}" if attribute else name] = value
            sources.update(int(each) for each in origin.split(",") if each)
        elif found := _INTERFACES.search(line):
            facts["interfaces"] = found[1]
        elif found := _OWN_ADDRESS.search(line):
            facts["address"] = found[1]
    return facts, sources


def _why_not(config: DdsConfig, error: DDSException, lines: list[str]) -> str:
    if error.code == DDSException.DDS_RETCODE_PRECONDITION_NOT_MET:
        return (
            f"DDS domain {config.domain} is already open in this process, by other code than this transport: "
            "choose another `domain`"
        )
    said = [found[1].rstrip(". ") for line in lines if "config: " not in line and (found := _COMPLAINT.match(line))]
    reason = "; ".join(said) or "no reason given"
    if "participant index" in reason:
        advice = f"{config.participants_per_host} processes here use it already: raise `participants_per_host`"
    elif environment.interfaces() and not own_interface(config):
        advice = f"check the network interface that {environment.VARIABLE} selects"
    elif config.interface != AUTO:
        advice = f"check `interface` ({config.interface!r}); with `{AUTO}` Cyclone DDS chooses one"
    else:
        advice = "check CYCLONEDDS_URI and the network interfaces of this machine"
    return f"DDS domain {config.domain} cannot be opened: {reason}; {advice}"
