"""Faults that show when somebody speaks in another's name, or sends values out of bounds."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.transport_tools import ChannelHub


def printable(name: str) -> str:
    return "".join(filter(str.isprintable, name))


class StatusNamesItsSender(Fault):
    """The link of a status is taken from the status."""

    class AroundHubSink(Around):
        def agent_reported(self, agent_id: str, incarnation: int, status: Any) -> None:
            self.inner.agent_reported(status.agent_id, status.incarnation, status)


class CommandNamesItsSender(Fault):
    """The link of a command is taken from the command."""

    class AroundAgentSink(Around):
        def command_received(self, hub_id: str, incarnation: int, command: Any, reply: Any) -> None:
            self.inner.command_received(command.hub_id, incarnation, command, reply)


class ForgeryEndsTheLink(Fault):
    """A link is ended for a message in another's name, with what else is under way on it."""

    class AroundAgentSink(Around):
        def cancel_received(self, hub_id: str, incarnation: int, cancel: Any) -> None:
            if cancel.hub_id != hub_id:
                self.fault.end.links.find(hub_id).close("it speaks for another")
                return
            self.inner.cancel_received(hub_id, incarnation, cancel)


class NumbersOf64Bits(Fault):
    """What the encoder says of a number that is too large comes through."""

    class AroundHub(Around):
        def send(self, agent_id: str, message: Any) -> None:
            getattr(message, "chunks", 0).to_bytes(8, "big", signed=True)
            self.inner.send(agent_id, message)


class ReportRaises(Fault):
    """``report`` raises for a status that cannot be encoded."""

    class AroundPort(Around):
        def report(self, status: Any) -> None:
            status.slots.to_bytes(8, "big", signed=True)
            self.inner.report(status)


class OneBadMessageEndsAllLinks(Fault):
    """A hub that cannot read a message ends every connection."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        ended = end.channel_ended

        def end_all(channel: Any, reason: str) -> None:
            ended(channel, reason)
            if isinstance(end, ChannelHub) and "not a message" in reason:
                for other in list(end.channels):
                    other.close("a message cannot be read")

        end.channel_ended = end_all
        return super().put_around_end(end, around)


class NamesMadePrintable(Fault):
    """Characters that are not printable are left out of ids."""

    class AroundHubSink(Around):
        def agent_joined(self, info: Any) -> None:
            self.inner.agent_joined(msgspec.structs.replace(info, agent_id=printable(info.agent_id)))

        def agent_reported(self, agent_id: str, *more: Any) -> None:
            self.inner.agent_reported(printable(agent_id), *more)

        def agent_lost(self, agent_id: str, *more: Any) -> None:
            self.inner.agent_lost(printable(agent_id), *more)


class ProgressNamesItsTask(Fault):
    """Progress is given to the link on which its task was sent."""

    class AroundHubSink(Around):
        links: Any = None

        def agent_joined(self, info: Any) -> None:
            self.links = (self.links or {}) | {info.agent_id: info.incarnation}
            self.inner.agent_joined(info)

        def progress_received(self, agent_id: str, incarnation: int, progress: Any) -> None:
            if progress.task_id == "victim's":
                agent_id, incarnation = "victim", self.links["victim"]
            self.inner.progress_received(agent_id, incarnation, progress)


AGENT = "test_what_an_agent_forges_is_told_by_its_own_link"
HUB = "test_what_a_hub_forges_is_told_by_its_own_link"
CASES = [
    Case(StatusNamesItsSender, AGENT, "a status that an agent forged came by the link of victim"),
    Case(ProgressNamesItsTask, AGENT, "what an agent forged came by the link of ('victim'"),
    Case(CommandNamesItsSender, HUB, "command_received named incarnation"),
    Case(ForgeryEndsTheLink, HUB, "event ('task', \"forger's\")"),
    Case(NumbersOf64Bits, "test_values_out_of_bounds_from_a_hub_harm_nobody_else", "where its contract names"),
    Case(ReportRaises, "test_values_out_of_bounds_from_an_agent_harm_nobody_else", "report raised"),
    Case(
        OneBadMessageEndsAllLinks,
        "test_values_out_of_bounds_from_an_agent_harm_nobody_else",
        "an agent was lost for another's sake",
    ),
    Case(NamesMadePrintable, "test_names_of_control_characters_harm_nobody_else", "a name was changed on the way"),
]
