"""What may be open to other machines: clients need keys there, or the user says that they need none. Where any agent
may join, that is said."""

from __future__ import annotations

from collections.abc import Iterable

from anywire.access import Access
from anywire.config import Config
from anywire.errors import ConfigError
from anywire.gateway import Gateway
from anywire.transport import Transport


def check_reach(config: Config, access: Access, gateways: Iterable[Gateway], client_plane: Iterable[Transport]) -> None:
    """Refuse an orchestrator whose gateways, or transports on which clients come in (``client_plane``), can be reached
    from other machines while it lets everybody in. Called before any of them is opened.

    Raises `ConfigError`, which names what is open and the ways to go on; also where ``access.insecure`` contradicts
    keys that are configured.
    """
    if access.needs_key:
        if config.access.insecure:
            raise ConfigError(
                "access.insecure lets everybody in, and keys, tokens or certificates of clients are configured, too: "
                "leave the one or the other out"
            )
        return
    if config.access.insecure:
        return
    reached = [f"the gateway {each.name}" for each in gateways if not each.is_local]
    reached += [f"the client plane over {each.name}" for each in client_plane if not each.keeps_clients_local]
    if reached:
        raise ConfigError(
            f"other machines can reach {' and '.join(reached)}, and no client needs a key. Make one with `anywire keys "
            "create` and give its file (--keys FILE, access.keys), or take tokens of an issuer (access.jwt) or "
            "clients' certificates (server.tls.client_ca). To let everybody in: --set access.insecure=true"
        )


ADMIT_AGENTS = (
    "set identity.key and identity.admitted, and admit each agent with `anywire agents admit`; or name loopback "
    "addresses or interfaces for these transports"
)
"""What keeps strangers from joining as agents."""


def open_to_agents(config: Config, agent_plane: Iterable[Transport]) -> str:
    """What to say of an orchestrator that agents of other machines can join without a key, over the transports by which
    it meets agents; empty where none can, or where ``access.insecure`` says that nobody else is there."""
    if config.identity.admitted is not None or config.access.insecure:
        return ""
    taken = [each.name for each in agent_plane if each.takes_any_agent]
    if not taken:
        return ""
    return (
        f"whoever reaches this orchestrator over {' and '.join(taken)} from another machine can join as an agent, and "
        "is given tasks with their texts"
    )
