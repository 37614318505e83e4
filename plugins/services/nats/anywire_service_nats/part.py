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
