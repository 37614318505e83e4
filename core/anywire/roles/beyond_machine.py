"""The one rule of what may be open to other machines: clients need keys there, or the user says that they need none."""

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
