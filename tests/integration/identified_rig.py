"""A rig whose ends have identities."""

from __future__ import annotations

from typing import Any

from anywire.identities.identity_proof import Identity
from anywire.testing.rig import Rig


class IdentifiedRig(Rig):
    """Each transport has an identity of its own, unless it is opened with ``identity``: None for none."""

    def new_transport(self, *, identity: Identity | bool | None = True, **options: Any) -> Any:
        made = super().new_transport(**options)
        made.inner.identity = Identity.new() if identity is True else identity or None
        return made
