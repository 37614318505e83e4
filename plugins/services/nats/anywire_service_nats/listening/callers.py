"""Who asks by message: whoever may publish to the subject, or the owner of the key that a message shows."""

from __future__ import annotations

from collections.abc import Mapping

from anywire.access import Access, Presented
from anywire.caller import Caller
from anywire.errors import Unauthenticated
from anywire_service_nats.config_inbound import InboundConfig

KEY_HEADER = "Anywire-Key"
TENANT_HEADER = "Anywire-Tenant"
MAX_TEXT_CHARS = 256
ID = "nats"
"""The id of callers that need no key where others do."""


class Callers:
    """``setting`` is the path of ``config``, for sentences."""

    def __init__(self, access: Access, config: InboundConfig, setting: str) -> None:
        self._access, self._config, self._setting = access, config, setting

    def of(self, headers: Mapping[str, str]) -> Caller:
        """Raises `Unauthenticated`, whose sentence repeats nothing of what was shown."""
        access, key = self._access, headers.get(KEY_HEADER, "")
        if not access.needs_key:
            tenant = headers.get(TENANT_HEADER, "")[:MAX_TEXT_CHARS] or self._config.tenant
            return access.caller(Presented(tenant=tenant, peer=ID))
        if key:
            return access.caller(Presented(token=key, peer=ID))
        if self._config.keyless:
            return Caller(ID, self._config.tenant)
        raise Unauthenticated(
            f"a key is needed: give it in the header {KEY_HEADER}, or let whoever may publish here in with "
            f"{self._setting}.keyless"
        )
