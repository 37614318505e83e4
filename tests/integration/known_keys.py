"""An `Access` whose keys a test gives and takes, at once."""

from __future__ import annotations

from collections.abc import Callable

from anywire.access import Presented
from anywire.caller import Caller, Role
from anywire.errors import Unauthenticated


class KnownKeys:
    """Every key is the text of its name: ``alice`` has the id, the key and the tenant ``alice`` unless given."""

    needs_key = True

    def __init__(self, **roles: Role) -> None:
        self.presented: list[Presented] = []
        self.gone: set[str] = set()
        self._callers = {name: Caller(name, name, role) for name, role in roles.items()}
        self._listeners: list[Callable[[str], None]] = []

    def add(self, name: str, role: Role = "use", tenant: str = "") -> None:
        self._callers[name] = Caller(name, tenant or name, role)

    def caller(self, presented: Presented) -> Caller:
        self.presented.append(presented)
        found = self._callers.get(presented.token)
        if found is None or found.id in self.gone:
            raise Unauthenticated("this key does not count")
        return found

    def still(self, caller: Caller) -> Caller | None:
        return None if caller.id in self.gone else self._callers.get(caller.id, caller)

    def listen(self, gone: Callable[[str], None]) -> Callable[[], None]:
        self._listeners.append(gone)
        return lambda: self._listeners.remove(gone)

    def revoke(self, name: str) -> None:
        self.gone.add(name)
        for gone in list(self._listeners):
            gone(name)

    @property
    def listeners(self) -> int:
        return len(self._listeners)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
