"""Faults of single messages: lost, twice, out of order, changed, too large."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.errors import PayloadTooLarge
from anywire.messages import Cancel, Credit, TaskRequest
from anywire.transport_tools import check_payload


class TaskTwice(Fault):
    """A task is sent again when it is not answered at once."""

    class AroundAgentSink(Around):
        def task_received(self, *task: Any) -> None:
            self.inner.task_received(*task)
            self.inner.task_received(*task)


class TasksOutOfOrder(Fault):
    """Every tenth task waits until the next one has passed."""

    class AroundAgentSink(Around):
        count, waiting = 0, None

        def task_received(self, *task: Any) -> None:
            self.count += 1
            if self.count % 10 == 0:
                self.waiting = task
                return
            self.inner.task_received(*task)
            if self.waiting is not None:
                waiting, self.waiting = self.waiting, None
                self.inner.task_received(*waiting)


class OneTaskIn50Lost(Fault):
    """One task in 50 is lost."""

    class AroundAgentSink(Around):
        count = 0

        def task_received(self, *task: Any) -> None:
            self.count += 1
            if self.count % 50:
                self.inner.task_received(*task)


class LastTaskLost(Fault):
    """A task that nothing follows is never written out: each waits for the next one."""

    class AroundAgentSink(Around):
        waiting: Any = None

        def task_received(self, *task: Any) -> None:
            waiting, self.waiting = self.waiting, task
            if waiting is not None:
                self.inner.task_received(*waiting)


class OneCreditIn20Lost(Fault):
    """One credit in 20 is lost."""

    class AroundAgentSink(Around):
        count = 0

        def credit_received(self, *credit: Any) -> None:
            self.count += 1
            if self.count % 20:
                self.inner.credit_received(*credit)


class ChunkTwice(Fault):
    """Every seventh chunk comes twice."""

    class AroundHubSink(Around):
        count = 0

        def chunk_received(self, *chunk: Any) -> None:
            self.count += 1
            self.inner.chunk_received(*chunk)
            if self.count % 7 == 0:
                self.inner.chunk_received(*chunk)


class ChunkLost(Fault):
    """Every seventh chunk is lost, and the link is not."""

    class AroundHubSink(Around):
        count = 0

        def chunk_received(self, *chunk: Any) -> None:
            self.count += 1
            if self.count % 7:
                self.inner.chunk_received(*chunk)


class DeltasJoined(Fault):
    """The deltas of a chunk are made one text."""

    class AroundReply(Around):
        def send(self, chunk: Any) -> None:
            self.inner.send(msgspec.structs.replace(chunk, deltas=("".join(chunk.deltas),)))


class NoticeLeftOut(Fault):
    """A chunk that holds nothing is not sent."""

    class AroundReply(Around):
        def send(self, chunk: Any) -> None:
            if chunk.deltas or chunk.final or chunk.extra:
                self.inner.send(chunk)


class AttemptForgotten(Fault):
    """A cancel loses the number of its attempt on the way."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, Cancel):
                message = msgspec.structs.replace(message, attempt=1)
            self.inner.send(agent_id, message)


class _ChunksOverTheLimit(Fault):
    def config(self, config: Any) -> Any:
        self.limit = config.max_message_bytes
        return config.model_copy(update={"max_message_bytes": 64 * 1024 * 1024})

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            check_payload(message, self.fault.limit)
            self.inner.send(agent_id, message)


class ChunksOverTheLimit(_ChunksOverTheLimit):
    """The limit holds for tasks and not for chunks."""


class LimitOfTheEncoding(Fault):
    """The limit is taken for that of the encoded message."""

    class AroundReply(Around):
        def send(self, chunk: Any) -> None:
            size = len(msgspec.msgpack.encode(chunk))
            if size > self.inner._max:
                raise PayloadTooLarge(f"{size} bytes are over the limit of {self.inner._max}")
            self.inner.send(chunk)


class LibraryException(Fault):
    """What the encoder raises comes through."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, TaskRequest):
                message.body.encode()
            self.inner.send(agent_id, message)


class LibraryExceptionOfReport(Fault):
    """``report`` raises what the encoder raises."""

    class AroundPort(Around):
        def report(self, status: Any) -> None:
            status.detail.encode()
            self.inner.report(status)


class OtherThread(Fault):
    """Chunks are given to the sink from the thread that reads."""

    class AroundHubSink(Around):
        def chunk_received(self, *chunk: Any) -> None:
            reading = threading.Thread(target=self.inner.chunk_received, args=chunk)
            reading.start()
            reading.join()


class AnswerToAnotherHub(Fault):
    """Each answer goes to the hub that joined last."""

    class AroundAgentSink(Around):
        last: Any = None

        def task_received(self, hub_id: str, incarnation: int, task: Any, reply: Any) -> None:
            self.last = self.last or reply
            self.inner.task_received(hub_id, incarnation, task, self.last)


class HeldCredit(Fault):
    """Credit is put off until the next task comes."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, Credit):
                asyncio.get_running_loop().call_later(60.0, self.inner.send, agent_id, message)
            else:
                self.inner.send(agent_id, message)


MANY = "test_none_of_many_tasks_or_credits_is_lost"
LIMIT = "test_payload_over_the_limit_is_refused_with_the_limit_in_the_message"
UNICODE = "test_text_that_is_no_unicode_is_a_transport_error_and_breaks_nothing"
CASES = [
    Case(TaskTwice, "test_task_arrives_as_sent_and_chunk_as_answered", "delivered twice"),
    Case(TasksOutOfOrder, MANY, "which was sent earlier"),
    Case(OneTaskIn50Lost, MANY, "which was sent earlier, or that one was lost"),
    Case(LastTaskLost, MANY, "'task': [199]"),
    Case(OneCreditIn20Lost, MANY, "'credit': [19, 39"),
    Case(ChunkTwice, "test_chunks_keep_their_order", "came twice"),
    Case(ChunkLost, "test_chunks_keep_their_order", "one was lost"),
    Case(DeltasJoined, "test_task_arrives_as_sent_and_chunk_as_answered", "was never sent"),
    Case(NoticeLeftOut, "test_an_acceptance_notice_is_carried_like_any_chunk", "('chunk', 't1')"),
    Case(AttemptForgotten, "test_cancel_names_the_attempt_it_was_sent_with", "names another attempt"),
    Case(ChunksOverTheLimit, LIMIT, "over the limit of 100000"),
    Case(LimitOfTheEncoding, LIMIT, "refused 100000 bytes of payload"),
    Case(LibraryException, UNICODE, "which its contract does not name"),
    Case(LibraryExceptionOfReport, UNICODE, "it never raises"),
    Case(OtherThread, "test_task_arrives_as_sent_and_chunk_as_answered", "another thread"),
    Case(AnswerToAnotherHub, "test_two_hubs_on_one_agent_get_their_own_answers", "not sent on this link"),
    Case(HeldCredit, MANY, "'credit': [0, 1"),
]
