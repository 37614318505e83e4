"""Faults of commands, their results, and progress."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.errors import Congested
from anywire.messages import Chunk, Command, CommandResult, Progress


class ResultLost(Fault):
    """Every seventh result is lost, and the link is not."""

    class AroundHubSink(Around):
        count = 0

        def result_received(self, *result: Any) -> None:
            self.count += 1
            if self.count % 7:
                self.inner.result_received(*result)


class ResultTwice(Fault):
    """Every seventh result comes twice."""

    class AroundHubSink(Around):
        count = 0

        def result_received(self, *result: Any) -> None:
            self.count += 1
            self.inner.result_received(*result)
            if self.count % 7 == 0:
                self.inner.result_received(*result)


class ResultsOutOfOrder(Fault):
    """Every seventh result waits until the next one has passed."""

    class AroundHubSink(Around):
        count, waiting = 0, None

        def result_received(self, *result: Any) -> None:
            self.count += 1
            if self.count % 7 == 0:
                self.waiting = result
                return
            self.inner.result_received(*result)
            if self.waiting is not None:
                waiting, self.waiting = self.waiting, None
                self.inner.result_received(*waiting)


class FinalOfAResultForgotten(Fault):
    """A result with data is not taken for the last one."""

    class AroundReply(Around):
        def send(self, message: Any) -> None:
            if isinstance(message, CommandResult) and message.data:
                message = msgspec.structs.replace(message, final=False)
            self.inner.send(message)


class ResultsDroppedAtClose(Fault):
    """What waits in the agent's own buffer is dropped when it closes."""

    class AroundReply(Around):
        count = 0

        def send(self, message: Any) -> None:
            self.count += 1
            if self.count < 10:
                self.inner.send(message)


class CommandWithAnotherHub(Fault):
    """A command comes with another hub's id in it."""

    class AroundAgentSink(Around):
        def command_received(self, hub_id: str, incarnation: int, command: Any, reply: Any) -> None:
            command = msgspec.structs.replace(command, hub_id="another")
            self.inner.command_received(hub_id, incarnation, command, reply)


class CommandTwice(Fault):
    """A command is sent again when it is not answered at once."""

    class AroundAgentSink(Around):
        def command_received(self, *command: Any) -> None:
            self.inner.command_received(*command)
            self.inner.command_received(*command)


class SecondCommandOfAnIdDropped(Fault):
    """The transport does each command once, which is the agent's to do."""

    class AroundAgentSink(Around):
        known: frozenset[str] = frozenset()

        def command_received(self, hub_id: str, incarnation: int, command: Any, reply: Any) -> None:
            if command.id not in self.known:
                self.known |= {command.id}
                self.inner.command_received(hub_id, incarnation, command, reply)


class OneCommandIn20Lost(Fault):
    """One command in 20 is lost."""

    class AroundAgentSink(Around):
        count = 0

        def command_received(self, *command: Any) -> None:
            self.count += 1
            if self.count % 20:
                self.inner.command_received(*command)


class CommandCut(Fault):
    """Arguments are cut after 32 KiB."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if isinstance(message, Command):
                message = msgspec.structs.replace(message, arguments=message.arguments[: 16 * 1024])
            self.inner.send(agent_id, message)


class Attempt0IsNone(Fault):
    """A cancel with attempt 0 is taken for one that names nothing."""

    class AroundAgentSink(Around):
        def cancel_received(self, hub_id: str, incarnation: int, cancel: Any) -> None:
            if cancel.attempt:
                self.inner.cancel_received(hub_id, incarnation, cancel)


class CreditOfAttempt0Dropped(Fault):
    """A credit with attempt 0 is taken for one that names nothing."""

    class AroundAgentSink(Around):
        def credit_received(self, hub_id: str, incarnation: int, credit: Any) -> None:
            if credit.attempt:
                self.inner.credit_received(hub_id, incarnation, credit)


class CancelOfTheUnknownDropped(Fault):
    """A cancel that comes before its command is dropped."""

    class AroundAgentSink(Around):
        known: frozenset[str] = frozenset()

        def command_received(self, hub_id: str, incarnation: int, command: Any, reply: Any) -> None:
            self.known |= {command.id}
            self.inner.command_received(hub_id, incarnation, command, reply)

        def cancel_received(self, hub_id: str, incarnation: int, cancel: Any) -> None:
            if cancel.task_id in self.known:
                self.inner.cancel_received(hub_id, incarnation, cancel)


class NoBoundOfCommands(Fault):
    """Commands that find no room are taken all the same."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            try:
                self.inner.send(agent_id, message)
            except Congested:
                if not isinstance(message, Command):
                    raise


class NoBoundOfResults(Fault):
    """Results that find no room are taken all the same."""

    class AroundReply(Around):
        def send(self, message: Any) -> None:
            try:
                self.inner.send(message)
            except Congested:
                if not isinstance(message, CommandResult):
                    raise


class ProgressAsChunk(Fault):
    """Progress comes as a chunk that holds nothing."""

    class AroundHubSink(Around):
        def progress_received(self, agent_id: str, incarnation: int, progress: Any) -> None:
            chunk = Chunk(progress.hub_id, progress.task_id, progress.attempt, 0)
            self.inner.chunk_received(agent_id, incarnation, chunk)


class OldProgressAfterNew(Fault):
    """Progress is not kept in order: each comes once more after the next one."""

    class AroundHubSink(Around):
        before: Any = None

        def progress_received(self, *progress: Any) -> None:
            self.inner.progress_received(*progress)
            if self.before is not None:
                self.inner.progress_received(*self.before)
            self.before = progress


class ProgressOneBehind(Fault):
    """Progress waits for the next one."""

    class AroundReply(Around):
        waiting: Any = None

        def send(self, message: Any) -> None:
            if isinstance(message, Progress):
                message, self.waiting = self.waiting, message
            if message is not None:
                self.inner.send(message)


class ProgressOvertakesChunks(Fault):
    """A chunk is held back while there is progress to tell."""

    class AroundHubSink(Around):
        held: Any = None

        def chunk_received(self, *chunk: Any) -> None:
            if chunk[2].deltas and not self.held:
                self.held = chunk
                return
            self.inner.chunk_received(*chunk)


class AvoidForgotten(Fault):
    """The last field of a task is not encoded."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            if getattr(message, "avoid", ()):
                message = msgspec.structs.replace(message, avoid=())
            self.inner.send(agent_id, message)


class ResumableForgotten(Fault):
    """Whether a chunk's attempt can be resumed is not encoded."""

    class AroundHubSink(Around):
        def chunk_received(self, agent_id: str, incarnation: int, chunk: Any) -> None:
            self.inner.chunk_received(agent_id, incarnation, msgspec.structs.replace(chunk, resumable=False))


class OffersCut(Fault):
    """The text of offers is cut after 64 KiB."""

    class AroundPort(Around):
        def report(self, status: Any) -> None:
            self.inner.report(msgspec.structs.replace(status, offers=status.offers[: 64 * 1024]))


ORDER = "test_results_keep_their_order_and_credit_for_them_arrives"
ARRIVES = "test_a_command_arrives_as_sent_and_its_results_as_answered"
CANCEL = "test_cancel_of_a_command_has_attempt_0_and_may_overtake_it"
PROGRESS = "test_progress_arrives_as_sent"
CASES = [
    Case(ResultLost, ORDER, "one was lost while its link was not"),
    Case(ResultTwice, ORDER, "a result of command c1 came twice"),
    Case(ResultsOutOfOrder, ORDER, "results of command c1 came out of order"),
    Case(FinalOfAResultForgotten, ORDER, "a result of command c1 came twice, or was never sent"),
    Case(
        ResultsDroppedAtClose,
        "test_accepted_results_come_before_the_goodbye_of_a_closing_agent",
        "of 301 accepted results were delivered",
    ),
    Case(CommandWithAnotherHub, ARRIVES, "was never sent on this link"),
    Case(CommandTwice, ARRIVES, "came more often than it was sent"),
    Case(SecondCommandOfAnIdDropped, "test_a_command_sent_twice_comes_twice", "both commands of one id arrive"),
    Case(OneCommandIn20Lost, "test_none_of_many_commands_is_lost", "of 100: [19, 39"),
    Case(CommandCut, "test_the_largest_arguments_and_results_travel", "was never sent on this link"),
    Case(Attempt0IsNone, CANCEL, "('cancel', 'late')"),
    Case(CreditOfAttempt0Dropped, ORDER, "the credit came"),
    Case(CancelOfTheUnknownDropped, CANCEL, "('cancel', 'early')"),
    Case(NoBoundOfCommands, "test_a_paused_agent_congests_the_commands_to_it", "Hub.send of a Command never raised"),
    Case(
        NoBoundOfResults,
        "test_a_paused_hub_congests_the_results_to_it",
        "Reply.send of a CommandResult never raised Congested",
    ),
    Case(ProgressAsChunk, PROGRESS, "a chunk of attempt 3 of task t came twice, or was never sent"),
    Case(OldProgressAfterNew, PROGRESS, "after a newer one"),
    Case(ProgressOneBehind, PROGRESS, "progress queued arrives when nothing follows it"),
    Case(ProgressOvertakesChunks, "test_progress_neither_ends_nor_reorders_chunks", "out of order"),
    Case(
        AvoidForgotten, "test_every_field_of_what_a_hub_sends_arrives", "fields arrived changed", arguments={"seed": 0}
    ),
    Case(
        ResumableForgotten,
        "test_every_field_of_what_an_agent_sends_arrives",
        "was never sent",
        arguments={"seed": 0},
    ),
    Case(OffersCut, "test_offers_travel_up_to_their_bound", "that it never reported"),
]
