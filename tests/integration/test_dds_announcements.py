"""Announcements of strangers whose names are no text: what others announce is still read."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

from cyclonedds.builtin import BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter, Publisher
from cyclonedds.topic import Topic

from anywire.messages import Chunk, TaskRequest
from anywire.testing.log_recorder import LogRecorder
from anywire.testing.rig import Rig, request
from anywire.transport import Reply
from anywire_dds import user_data
from anywire_dds.builtin_reader import BuiltinReader
from anywire_dds.library import ddsc
from anywire_dds.types import Candidate
from anywire_dds.versions import ParticipantVersions

NO_TEXT = b"\xff"


def qualities(with_partition: bool = False) -> ctypes.c_void_p:
    """Of which none can be read: the names of a property and of a partition are no UTF-8."""
    ddsc.dds_create_qos.restype = ctypes.c_void_p
    made = ctypes.c_void_p(ddsc.dds_create_qos())
    ddsc.dds_qset_prop(made, NO_TEXT, NO_TEXT)
    if with_partition:
        ddsc.dds_qset_partition(made, 1, (ctypes.c_char_p * 1)(NO_TEXT))
    return made


@contextlib.contextmanager
def stranger(domain: int) -> Iterator[None]:
    """A participant, announced with them."""
    participant = ddsc.dds_create_participant(domain, qualities(), None)
    assert participant > 0
    yield
    ddsc.dds_delete(participant)


def test_what_others_announce_is_read_beside_it(other_dds_domain: int) -> None:
    honest = DomainParticipant(other_dds_domain, Qos(user_data.of_participant("2.0")))
    with stranger(other_dds_domain):
        all_but_the_stranger_is_read(honest)


def all_but_the_stranger_is_read(honest: DomainParticipant) -> None:
    topic = Topic(honest, "honest", Candidate)
    writer = DataWriter(Publisher(honest), topic)
    publisher = ddsc.dds_create_publisher(honest._ref, qualities(with_partition=True), None)
    assert ddsc.dds_create_writer(publisher, topic._ref, None, None) > 0
    participants = {str(each.key): each for each in BuiltinReader(honest, BuiltinTopicDcpsParticipant).news()}
    assert user_data.entry(participants[str(honest.guid)].qos, user_data.PROTOCOL) == "2.0"
    assert [each for each in participants.values() if Policy.Userdata not in each.qos]
    assert len(list(BuiltinReader(honest, BuiltinTopicDcpsPublication).news())) == 2
    assert ParticipantVersions(honest).get(str(honest.guid)) == "2.0"
    del writer


async def test_agents_join_beside_it(dds_domain: int) -> None:
    def echo(task: TaskRequest, reply: Reply) -> None:
        reply.send(Chunk(task.hub_id, task.task_id, task.attempt, 0, (task.body,), final=True))

    with LogRecorder() as warnings:
        async with Rig("dds", {"domain": dds_domain, "multicast": "off", "interface": "127.0.0.1"}) as rig:
            await rig.port("a", echo)
            with stranger(dds_domain):
                checked, sink, info = await rig.hub("h")
                await sink.event("joined", "a")
                checked.send("a", request(info, "t", body="x"))
                assert (await sink.final("t")).deltas == ("x",)
    assert not warnings.messages("could not be processed")
