"""What the ends say of themselves in USER_DATA, as entries ``name=value;``.

It is part of discovery: it is there before a reader or writer has matched, and it belongs to its participant or writer,
whatever a sample says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from cyclonedds.core import Policy

PROTOCOL = "anywire.protocol"
"""Of a participant: the version of the messages that its ends speak."""
UNHEARD = "anywire.unheard"
"""Of a participant: the participants that it has lost by silence, see `anywire_dds.hearing`."""
CALLS = "anywire.calls"
"""Of a participant: how often it has announced itself because others do not hear it. It means nothing by itself."""
LIFE = "anywire.agent"
"""Of a writer of reports: the agent, and its incarnation, that it reports of."""
PROOF = "anywire.proof"
"""Of a writer of registrations: the proof of the identity of whom it registers."""
SIGNATURE = "anywire.signature"
"""Of the same: the signature of the registration, by the key that the proof names as its binding."""


def of_participant(protocol: str, unheard: str = "", calls: int = 0) -> Any:
    """The policy of a participant whose ends speak this version."""
    said = {PROTOCOL: protocol, UNHEARD: unheard, CALLS: str(calls or "")}
    return Policy.Userdata("".join(f"{name}={value};" for name, value in said.items() if value).encode())


def of_reports(agent_id: str, incarnation: int) -> Any:
    """The policy of the writer of an agent's reports."""
    return Policy.Userdata(f"{LIFE}={escape(agent_id)}/{incarnation};".encode())


def of_registration(proof: str, signature: str) -> Any:
    """The policy of the writer of a registration with a proof."""
    return Policy.Userdata(f"{PROOF}={proof};{SIGNATURE}={signature};".encode())


def entry(qos: Any, name: str) -> str:
    """The value of an entry in the USER_DATA of a discovered participant or endpoint; empty when there is none."""
    data: bytes = qos[Policy.Userdata].data if Policy.Userdata in qos else b""
    for each in data.decode(errors="replace").split(";"):
        found, _, value = each.partition("=")
        if found == name:
            return value
    return ""


def life(value: str) -> tuple[str, int] | None:
    """The agent and incarnation that a value of `LIFE` names; None when it names none."""
    name, _, incarnation = value.rpartition("/")
    if not name or not incarnation.isascii() or not incarnation.isdigit() or len(incarnation) > 19:
        return None
    return unquote(name), int(incarnation)


def escape(name: str) -> str:
    """``name`` as part of a partition, in which ``*``, ``?`` and ``[`` would match others, or of an entry here."""
    return "".join(
        each if (each.isascii() and each.isalnum()) or each in "_.-" else "".join(f"%{b:02X}" for b in each.encode())
        for each in name
    )
