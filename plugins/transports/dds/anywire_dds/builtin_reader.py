"""What the participants and endpoints of a domain announce of themselves, from Cyclone's built-in topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopic
from cyclonedds.core import DDSException, Qos
from cyclonedds.domain import DomainParticipant

from anywire_dds.older_binding import cqos_to_qos


class BuiltinReader(BuiltinDataReader):  # type: ignore[misc]
    """A reader of one built-in topic that loses nothing because of a stranger.

    Any process of the network can announce itself, with names that are no text. The library raises at such an
    announcement and loses all others it was to return with it.
    """

    def __init__(self, participant: DomainParticipant, topic: BuiltinTopic) -> None:
        super().__init__(participant, topic)
        self._cqos_conv = _readable

    def news(self) -> Iterator[Any]:
        """Every announcement that is new since, each with `key`, `qos` and `sample_info`; taken as it is asked for.

        One whose qualities cannot be read has none of them, one whose topic cannot be read is left out.

        Raises:
            DDSException: the reader is closed or without memory.
        """
        while True:
            try:
                samples = self.take(1)
            except DDSException:
                raise
            except Exception:  # the library raises no kind of its own
                continue
            if not samples:
                return
            yield samples[0]


def _readable(qos: Any) -> Qos:
    try:
        return cqos_to_qos(qos)
    except ValueError:
        return Qos()
