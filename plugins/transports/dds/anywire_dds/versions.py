"""Which version of the wire contract the ends of other participants speak."""

from __future__ import annotations

from cyclonedds.builtin import BuiltinTopicDcpsParticipant
from cyclonedds.core import InstanceState
from cyclonedds.domain import DomainParticipant

from anywire_dds import user_data
from anywire_dds.builtin_reader import BuiltinReader


class ParticipantVersions:
    """The versions of all participants that a domain of this process knows, its own among them."""

    def __init__(self, participant: DomainParticipant) -> None:
        self._reader = BuiltinReader(participant, BuiltinTopicDcpsParticipant)
        self._versions: dict[str, str] = {}

    def get(self, participant: str) -> str | None:
        """The version that a participant tells, empty when it tells none; None when there is no such participant."""
        for sample in self._reader.news():
            if sample.sample_info.instance_state == InstanceState.Alive:
                self._versions[str(sample.key)] = user_data.entry(sample.qos, user_data.PROTOCOL)
            else:
                self._versions.pop(str(sample.key), None)
        return self._versions.get(participant)

    def delete(self) -> None:
        self._reader.__del__()
