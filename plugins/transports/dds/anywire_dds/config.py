"""The options of the DDS transport and the Cyclone configuration made from them."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from xml.sax.saxutils import escape, quoteattr

import pydantic

from anywire.errors import TransportUnavailable
from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES
from anywire_dds import environment, security
from anywire_dds.security import SecurityConfig

DOMAIN_MAX = 230
"""Above, the ports of the standard's mapping leave the range that exists."""

PRIORITIES_MAX = 8

BUSY_POLL_MAX = 1000
"""Microseconds; a loop that waits for longer may as well sleep."""

LARGEST_DATAGRAM = 65_500
"""Bytes of the largest UDP datagram, which the loopback interface carries whole."""

SAFE_DATAGRAM = 1_232
"""Bytes of a datagram that every path carries whole: what the smallest MTU of IPv6 (1280) leaves without the headers.
VPNs have an MTU of 1280 to 1420, and many of them and many firewalls drop IP fragments."""

_FRAGMENT_HEADERS = 132
"""Bytes of a datagram that RTPS needs beside the fragment it carries: headers, time, destination, heartbeat."""

MULTICAST = {"on": "true", "discovery": "spdp", "off": "false"}
"""Cyclone's names of the settings of `DdsConfig.multicast`."""


DATAGRAM_BYTES = (
    "Bytes of the largest UDP datagram; larger messages travel in parts. Above the MTU of the path IP splits it, and a"
    f" path that drops IP fragments drops it. Default: {LARGEST_DATAGRAM} on the loopback interface, else"
    f" {SAFE_DATAGRAM}."
)
LOOPBACK = "127.0.0.1"
"""The interface unless another is named: nobody beyond this machine sees the participant."""
AUTO = "auto"
"""As `DdsConfig.interface`: one that Cyclone DDS chooses, of those that leave the machine."""


def _named(interface: str) -> str:
    if not interface:
        raise ValueError(f"name an interface, or `{AUTO}` for one that Cyclone DDS chooses")
    return interface


Interface = Annotated[str, pydantic.AfterValidator(_named)]
INTERFACE = "Network interface, by name (eth0) or address (192.168.1.20). `auto`: Cyclone DDS chooses one."
"""What the option is, wherever there is one."""


def _unquoted(value: object) -> object:
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Multicast = Annotated[Literal["auto", "on", "discovery", "off"], pydantic.BeforeValidator(_unquoted)]
"""YAML reads ``on`` and ``off`` without quotes as true and false."""


class DdsConfig(pydantic.BaseModel):
    """Options of ``transports.dds``. Only participants of one domain and one fleet see each other."""

    model_config = pydantic.ConfigDict(extra="forbid")

    domain: int = pydantic.Field(default=0, ge=0, le=DOMAIN_MAX, description="DDS domain, which decides the UDP ports.")
    fleet: str = pydantic.Field(
        default="",
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="Name of the fleet; those of one domain do not see each other. Default: one of this user's own, or"
        " `default` on an interface that leaves the machine.",
    )
    participant: str = pydantic.Field(
        default="anywire", description="Name of this process's participant, which DDS tools show."
    )
    lease: float | None = pydantic.Field(
        default=None,
        ge=0.05,
        le=3600,
        description="Seconds of silence after which peers consider this end lost. Default: `lease.timeout`.",
    )
    interface: Interface = pydantic.Field(default=LOOPBACK, description=INTERFACE)
    multicast: Multicast = pydantic.Field(
        default="auto",
        description="Use multicast. `discovery`: only to find peers; `off`: peers on other hosts must be named in"
        " `peers`.",
    )
    peers: list[str] = pydantic.Field(
        default_factory=list, description="Addresses of hosts to look for where multicast does not reach."
    )
    participants_per_host: int = pydantic.Field(
        default=120, ge=1, le=120, description="Processes per host that can be found without multicast."
    )
    datagram_bytes: int | None = pydantic.Field(default=None, ge=512, le=LARGEST_DATAGRAM, description=DATAGRAM_BYTES)
    qos: Path | None = pydantic.Field(
        default=None,
        description="File with QoS of topics (an OMG DDS XML library) that replaces the shipped one, policy by policy.",
    )
    deadline: float | None = pydantic.Field(
        default=None,
        ge=0.05,
        le=3600,
        description="Seconds without a chunk after which a hub reports a stream that has begun as stalled.",
    )
    progress_timeout: float = pydantic.Field(
        default=10.0,
        ge=0.5,
        le=3600,
        description="Seconds in which a peer must acknowledge what it is sent, and 8 more for each MiB; else its link"
        " is ended.",
    )
    lifespan: float | None = pydantic.Field(
        default=None,
        ge=0.1,
        le=86400,
        description="Seconds after which a hub's request that no agent has taken is not delivered any more.",
    )
    priorities: list[Annotated[int, pydantic.Field(ge=1, le=2**31 - 1)]] = pydantic.Field(
        default_factory=list,
        max_length=PRIORITIES_MAX,
        description="Priorities from which on a hub's tasks have writers of their own, with that transport "
        "priority, and overtake lower ones.",
    )
    latency_budget: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1,
        description="Seconds that chunks may be kept to travel together. Set it alike at hubs and agents.",
    )
    busy_poll: int = pydantic.Field(
        default=0,
        ge=0,
        le=BUSY_POLL_MAX,
        description="Microseconds after each message in which the event loop looks for the next one before it sleeps:"
        " less latency for a core. 0: it sleeps at once.",
    )
    shared_memory: Literal["off", "auto", "on"] = pydantic.Field(
        default="off",
        description="Use shared memory (Cyclone's iceoryx plugin). `on`: fail when the plugin is missing; `auto`:"
        " use it when present.",
    )
    security: SecurityConfig | None = pydantic.Field(
        default=None, description="DDS Security; needs a Cyclone DDS that has it. Default: none."
    )
    max_message_bytes: int = pydantic.Field(
        default=MAX_MESSAGE_BYTES, ge=1024, description="Bytes of the largest payload of a message, before encoding."
    )
    buffer_bytes: int = pydantic.Field(
        default=BUFFER_BYTES, ge=1024, description="Bytes that may wait for one peer, as they are sent."
    )

    @property
    def fleet_name(self) -> str:
        """The name in use. Without one, two users of a machine have two fleets."""
        return self.fleet or (f"user-{os.getuid()}" if stays_here(self) else "default")


def datagram_bytes(config: DdsConfig) -> int:
    """Bytes of the largest datagram that is sent. On the loopback interface as large as one can be: a body of megabytes
    is then hundreds of them and not thousands."""
    if config.datagram_bytes is not None:
        return config.datagram_bytes
    return LARGEST_DATAGRAM if stays_here(config) else SAFE_DATAGRAM


def used_interfaces(config: DdsConfig) -> list[str]:
    """The interfaces in use, by name or address; empty text for one that Cyclone is to choose."""
    return [own_interface(config)] if own_interface(config) else environment.interfaces() or [""]


def stays_here(config: DdsConfig) -> bool:
    """Whether the interfaces in use reach this machine alone. Raises `TransportUnavailable` as `own_interface` does."""
    return all(map(is_loopback, used_interfaces(config)))


def is_local(interface: str) -> bool:
    """Whether the option ``interface`` keeps to this machine for certain: CYCLONEDDS_URI may name further ones."""
    return is_loopback(interface) and not os.environ.get(environment.VARIABLE)


def own_interface(config: DdsConfig) -> str:
    """The interface that the options select; empty where Cyclone is to choose, or CYCLONEDDS_URI selects one and the
    options name none. Raises `TransportUnavailable` where both name one, and not the same."""
    theirs, own = environment.interfaces(), "" if config.interface == AUTO else config.interface
    if not theirs or not own:
        return own
    if "interface" not in config.model_fields_set or all(
        each == own or (is_loopback(each) and is_loopback(own)) for each in theirs
    ):
        return ""
    raise TransportUnavailable(
        f"{environment.VARIABLE} selects the network interface {', '.join(theirs)}, and the option `interface` "
        f"({own!r}) another one: leave one of them out"
    )


def tracing_xml(log: str) -> str:
    """The document that makes Cyclone write what it starts with to the file ``log``."""
    return (
        f"<CycloneDDS><Domain><Tracing><Category>config,info</Category><OutputFile>{escape(log)}</OutputFile></Tracing>"
        "</Domain></CycloneDDS>"
    )


def settings_xml(config: DdsConfig, *, psmx: str = "", by_unicast: bool = False) -> str:
    """The document that makes Cyclone do what ``config`` says, with the plugin ``psmx`` for shared memory. With
    ``by_unicast`` processes of this machine that use no multicast are found too, and find this one. Raises
    `TransportUnavailable` where CYCLONEDDS_URI contradicts it."""
    datagram = datagram_bytes(config)
    fragment = datagram - _FRAGMENT_HEADERS
    general = f"<MaxMessageSize>{datagram}B</MaxMessageSize><FragmentSize>{fragment}B</FragmentSize>"
    interfaces = ""
    if interface := own_interface(config):
        attribute = "address" if _is_address(interface) else "name"
        interfaces = f"<NetworkInterface {attribute}={quoteattr(interface)}/>"
    elif psmx and not environment.interfaces():
        interfaces = '<NetworkInterface autodetermine="true"/>'
    if psmx:
        interfaces += f"<PubSubMessageExchange type={quoteattr(psmx.removeprefix('psmx_'))} library={quoteattr(psmx)}/>"
    if interfaces:
        general += f"<Interfaces>{interfaces}</Interfaces>"
    if config.multicast != "auto":
        general += f"<AllowMulticast>{MULTICAST[config.multicast]}</AllowMulticast>"
    discovery = f"<MaxAutoParticipantIndex>{config.participants_per_host}</MaxAutoParticipantIndex>"
    if config.peers or config.multicast == "off" or by_unicast:
        # Without multicast a peer is found by trying the ports of its possible indices, so it must have one.
        peers = "".join(f"<Peer address={quoteattr(peer)}/>" for peer in config.peers)
        discovery += f'<ParticipantIndex>auto</ParticipantIndex><Peers AddLocalhost="true">{peers}</Peers>'
    # The write buffers of this transport bound what is on its way. Cyclone's own mark lies above them and stays
    # there: by default it starts at 30 kB and moves, and every write above it fails.
    marks = "<WhcHigh>8MiB</WhcHigh><WhcHighInit>8MiB</WhcHighInit><WhcAdaptive>false</WhcAdaptive>"
    # A closing end waits for acknowledgements itself, with a bound; Cyclone would for each writer, without one for all.
    linger = "<WriterLingerDuration>0s</WriterLingerDuration>"
    # How soon a reader is asked what it lacks. By default that is after 100 ms, so a lost datagram costs as much, and
    # whoever waits for acknowledgements twice that. Nothing is sent when everything is acknowledged.
    secured = security.settings_xml(config.security) if config.security is not None else ""
    heartbeat = '<HeartbeatInterval min="2 ms" minsched="2 ms" max="1 s">5 ms</HeartbeatInterval>'
    return (
        f"<CycloneDDS><Domain><General>{general}</General><Discovery>{discovery}</Discovery>"
        f"<Internal><Watermarks>{marks}</Watermarks>{linger}{heartbeat}</Internal>{secured}</Domain></CycloneDDS>"
    )


def _is_address(text: str) -> bool:
    return all(each.isdigit() for each in text.split(".")) or ":" in text


def is_loopback(interface: str) -> bool:
    """Whether this interface, given by name or address, is the loopback one."""
    if interface in ("lo", "lo0"):  # as Linux, and as macOS and the BSDs, name it
        return True
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False
