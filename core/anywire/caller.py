"""Who asks: the identity that a gateway or a link gives to each request."""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from typing import Annotated, Literal, get_args

import msgspec

Role = Literal["use", "observe", "operate"]
"""``use``: submit, and see and cancel one's own tasks. ``observe``: see all. ``operate``: all that, cancel any task and
send commands."""
ROLES: tuple[Role, ...] = get_args(Role)
"""The lesser one first."""


def lesser_role(allowed: Role, named: str) -> Role:
    """The role that counts where a caller that is allowed one names another; what is no role counts as ``use``."""
    return next(role for role in ROLES if role in (allowed, named) or named not in ROLES)


_Count = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one caller may use of an orchestrator, counted by the caller's id. 0, None and empty mean no limit.

    ``models`` are names in which ``*`` stands for any characters. ``max_priority`` is the highest priority that its
    tasks may have; a task that names none gets that one where it is below 0. ``requests_per_minute`` are tasks taken in
    within any 60 seconds, ``concurrency`` tasks that have not ended (those that a service makes for a task are its
    parent's), ``tokens_per_day`` prompt and answer together, from midnight UTC.
    """

    models: tuple[str, ...] = ()
    max_priority: int | None = None
    requests_per_minute: _Count = 0
    concurrency: _Count = 0
    tokens_per_day: _Count = 0

    def allows_model(self, model: str) -> bool:
        """Whether tasks may be for this model, and whether it is shown in lists."""
        return not self.models or _matches(self.models, model)


@lru_cache(maxsize=1024)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    return _matching(patterns).match(model) is not None


@lru_cache(maxsize=256)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    # Of the characters that fnmatch knows, only the star means something here: names of models have brackets.
    escaped = (pattern.replace("[", "[[]").replace("?", "[?]") for pattern in patterns)
    return re.compile("|".join(map(fnmatch.translate, escaped)))


NO_LIMITS = Limits()


class Caller(msgspec.Struct, frozen=True, gc=False):
    """``id`` names a key, a link or a user of this machine, empty when unknown; ``tenant`` is who pays and whom
    fairness counts, never the end user that a request's ``user`` names. A caller that nobody vouches for has the
    role ``use``. ``limits`` are those of its key, and hold where the task is taken in first, not below in a tree."""

    id: str = ""
    tenant: str = ""
    role: Role = "use"
    limits: Limits = NO_LIMITS

    def has_role(self, role: Role) -> bool:
        """Whether this caller may do what is for ``role``: each role may do what the ones before it may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, owner: Caller) -> bool:
        """Whether tasks of ``owner`` are shown to this caller in lists and events."""
        return self.role != "use" or self._is_same(owner, known=True)

    def may_end(self, owner: Caller) -> bool:
        """Whether this caller may cancel and follow a task of ``owner`` whose id it knows: ids cannot be guessed."""
        return self.role == "operate" or self._is_same(owner, known=False)

    def may_look_up(self, owner: Caller) -> bool:
        """Whether this caller may look at a task of ``owner`` whose id it knows."""
        return self.role != "use" or self._is_same(owner, known=False)

    def _is_same(self, owner: Caller, known: bool) -> bool:
        if self.tenant or owner.tenant:
            return self.tenant == owner.tenant
        return self.id == owner.id and (bool(self.id) or not known)


ANYBODY = Caller()
"""Nobody vouches for this one."""
OPERATOR = Caller(role="operate")
"""This process itself, and without keys whoever comes by loopback or the Unix socket."""
