"""What the service is made of."""

from __future__ import annotations

from collections.abc import Iterable

from anywire.metric import Metric


class Part:
    """Something that the service does; a subclass overrides what it needs.

    ``start`` is awaited before the first connection is tried, in the order of the parts; ``all_started`` is called when
    the other services of the orchestrator have started too; ``close`` is awaited after ``gate_closed``, in the opposite
    order, while there may be a connection still. All must return soon whether or not there is one.
    """

    async def start(self) -> None:
        """Begin. Raises `anywire.errors.ConfigError` when it can never work as configured."""

    def all_started(self) -> None:
        """What other services offer can be had from now on."""

    def gate_closed(self) -> None:
        """Begin nothing new."""

    async def close(self) -> None:
        """Release everything."""

    def metrics(self) -> Iterable[Metric]:
        """Numbers of this part; all parts' have names of their own."""
        return ()


class Parts(Part):
    """Several parts as one: in their order, and closed in the opposite one. Each is among them before it starts, so
    that `close` releases what a start that failed has begun."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    async def add(self, part: Part) -> None:
        """Start a further one."""
        self._parts.append(part)
        await part.start()

    def all_started(self) -> None:
        for part in self._parts:
            part.all_started()

    def gate_closed(self) -> None:
        for part in self._parts:
            part.gate_closed()

    async def close(self) -> None:
        """Safe to call twice."""
        while self._parts:
            await self._parts.pop().close()

    def metrics(self) -> Iterable[Metric]:
        for part in self._parts:
            yield from part.metrics()
