"""The options of the DDS transport and the Cyclone configuration made from them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from xml.sax.saxutils import escape, quoteattr

import pydantic

from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES

DOMAIN_MAX = 230
"""Above, the ports of the standard's mapping leave the range that exists."""

PRIORITIES_MAX = 8

MULTICAST = {"on": "true", "discovery": "spdp", "off": "false"}
"""Cyclone's names of the settings of `DdsConfig.multicast`."""


class DdsConfig(pydantic.BaseModel):
    """Options of ``transports.dds``. Only participants of one domain and one fleet see each other."""

    model_config = pydantic.ConfigDict(extra="forbid")

    domain: int = pydantic.Field(default=0, ge=0, le=DOMAIN_MAX, description="DDS domain, which decides the UDP ports.")
    fleet: str = pydantic.Field(
        default="default",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name of the fleet; those of one domain do not see each other.",
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
    interface: str = pydantic.Field(
        default="", description="Network interface, by name (eth0) or address (127.0.0.1). Default: Cyclone chooses."
    )
    multicast: Literal["auto", "on", "discovery", "off"] = pydantic.Field(
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
    shared_memory: Literal["off", "auto", "on"] = pydantic.Field(
        default="off",
        description="Use shared memory (Cyclone's iceoryx plugin). `on`: fail when the plugin is missing; `auto`:"
        " use it when present.",
    )
    max_message_bytes: int = pydantic.Field(
        default=MAX_MESSAGE_BYTES, ge=1024, description="Bytes of the largest payload of a message, before encoding."
    )
    buffer_bytes: int = pydantic.Field(
        default=BUFFER_BYTES, ge=1024, description="Bytes that may wait for one peer, as they are sent."
    )


def tracing_xml(log: str) -> str:
    """The document that makes Cyclone write what it starts with to the file ``log``."""
    return (
        f"<CycloneDDS><Domain><Tracing><Category>config,info</Category><OutputFile>{escape(log)}</OutputFile></Tracing>"
        "</Domain></CycloneDDS>"
    )


def settings_xml(config: DdsConfig, *, psmx: str = "") -> str:
    """The document that makes Cyclone do what ``config`` says, with the plugin ``psmx`` for shared memory.

    Written without a namespace on purpose: Cyclone ignores a document whose root has one without a word.
    """
    # Fragments as large as a datagram can be: a body of megabytes is then hundreds of them and not thousands.
    general = "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize>"
    interfaces = ""
    if config.interface:
        attribute = "address" if _is_address(config.interface) else "name"
        interfaces = f"<NetworkInterface {attribute}={quoteattr(config.interface)}/>"
    elif psmx:
        interfaces = '<NetworkInterface autodetermine="true"/>'
    if psmx:
        interfaces += f"<PubSubMessageExchange type={quoteattr(psmx.removeprefix('psmx_'))} library={quoteattr(psmx)}/>"
    if interfaces:
        general += f"<Interfaces>{interfaces}</Interfaces>"
    if config.multicast != "auto":
        general += f"<AllowMulticast>{MULTICAST[config.multicast]}</AllowMulticast>"
    discovery = f"<MaxAutoParticipantIndex>{config.participants_per_host}</MaxAutoParticipantIndex>"
    if config.peers or config.multicast == "off":
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
    heartbeat = '<HeartbeatInterval min="2 ms" minsched="2 ms" max="1 s">5 ms</HeartbeatInterval>'
    return (
        f"<CycloneDDS><Domain><General>{general}</General><Discovery>{discovery}</Discovery>"
        f"<Internal><Watermarks>{marks}</Watermarks>{linger}{heartbeat}</Internal></Domain></CycloneDDS>"
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
