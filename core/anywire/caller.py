"""Who asks: the identity that a gateway or a link gives to each request."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Role = Literal["use", "observe", "operate"]
"""``use``: submit, and see and cancel one's own tasks. ``observe``: see all. ``operate``: all that, cancel any task and
send commands."""
_ROLES: tuple[Role, ...] = get_args(Role)


ROLES: tuple[Role, ...] = get_args(Role)
"""The lesser one first."""


def lesser_role(allowed: Role, named: str) -> Role:
    """The role that counts where a caller that is allowed one names another; what is no role counts as ``use``."""
    return next(role for role in ROLES if role in (allowed, named) or named not in ROLES)


class Caller(msgspec.Struct, frozen=True):
    """``id`` names a key, a link or a user of this machine, empty when unknown; ``tenant`` is who pays and whom
    fairness counts, never the end user that a request's ``user`` names. A caller that nobody vouches for has the
    role ``use``."""

    id: str = ""
    tenant: str = ""
    role: Role = "use"

    def has_role(self, role: Role) -> bool:
        """Whether this caller may do what is for ``role``: each role may do what the ones before it may."""
        return _ROLES.index(self.role) >= _ROLES.index(role)

    def sees(self, owner: Caller) -> bool:
        """Whether tasks of ``owner`` are shown to this caller in lists and events."""
        return self.role != "use" or self._is_same(owner, known=True)

    def may_end(self, owner: Caller) -> bool:
        """Whether this caller may cancel and follow a task of ``owner`` whose id it knows: ids cannot be guessed."""
        return self.role == "operate" or self._is_same(owner, known=False)

    def _is_same(self, owner: Caller, known: bool) -> bool:
        if self.tenant or owner.tenant:
            return self.tenant == owner.tenant
        return self.id == owner.id and (bool(self.id) or not known)


ANYBODY = Caller()
"""Nobody vouches for this one."""
OPERATOR = Caller(role="operate")
"""This process itself, and without keys whoever comes by loopback or the Unix socket."""
