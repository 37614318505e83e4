"""Faults of protocol versions."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.conformance.planted.fault import Around, Case, Fault

from anywire.transport_tools import ChannelHub, LinkRefused


class VersionIgnored(Fault):
    """Nobody looks at the other end's version."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        end.links.check_hello = lambda info, credential="": None
        return super().put_around_end(end, around)


class VersionIgnoredByHubs(Fault):
    """A hub does not look at the version, and an agent does so after it was accepted: a hub joins and loses it."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        check, asked = end.links.check_hello, set()

        def check_later(info: Any) -> None:
            if info in asked and not isinstance(end, ChannelHub):
                check(info)
            asked.add(info)

        end.links.check_hello = check_later
        return super().put_around_end(end, around)


class VersionToldByOneEnd(Fault):
    """The end that is refused does not say so."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        end._goodbye = lambda channel, goodbye: channel.abort(goodbye.reason)
        return super().put_around_end(end, around)


class VersionToldEachTime(Fault):
    """A mismatch is logged again and again."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        warn = end._once.warn

        def warn_twice(key: object, *message: Any) -> None:
            warn(key, *message)
            warn(object(), *message)

        end._once.warn = warn_twice
        return super().put_around_end(end, around)


class VersionsMustBeEqual(Fault):
    """A neighbouring minor version is refused."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        def check(info: Any) -> None:
            if info.protocol != end.info.protocol:
                raise LinkRefused("it speaks another version")

        end.links.check_hello = check
        return super().put_around_end(end, around)


class VersionNotPassedOn(Fault):
    """The version is checked, and not told with the announcement."""

    class AroundHubSink(Around):
        def agent_joined(self, info: Any) -> None:
            self.inner.agent_joined(msgspec.structs.replace(info, protocol=""))


class RefusalIsForEver(Fault):
    """An id that was refused once is refused from then on."""

    def put_around_end(self, end: Any, around: Any) -> Any:
        check, refused = end.links.check_hello, set()

        def check_and_remember(info: Any) -> None:
            name = getattr(info, "agent_id", "") or getattr(info, "hub_id", "")
            if name in refused:
                raise LinkRefused(f"{name} was refused before")
            try:
                check(info)
            except LinkRefused:
                refused.add(name)
                raise

        end.links.check_hello = check_and_remember
        return super().put_around_end(end, around)


AGENT = "test_an_agent_of_another_version_is_refused_by_name_at_both_ends"
HUB = "test_a_hub_of_another_version_is_refused_by_name_at_both_ends"
OTHER = {"version": "garbage"}
CASES = [
    Case(VersionIgnored, AGENT, "a warning with ('planted'", arguments=OTHER),
    Case(VersionIgnoredByHubs, AGENT, "a hub has joined an agent of another version", arguments=OTHER),
    Case(VersionToldByOneEnd, HUB, "a warning with ('right'", arguments=OTHER),
    Case(VersionToldEachTime, HUB, "was logged 2 times", arguments=OTHER),
    Case(
        VersionsMustBeEqual,
        "test_a_neighbouring_version_joins",
        "event ('joined', 'a'",
        arguments={"planted": "agent", "version": "2.1"},
    ),
    Case(VersionNotPassedOn, "test_ends_say_their_protocol_version", "and not this package's"),
    Case(RefusalIsForEver, HUB, "event ('joined', 'right'", arguments=OTHER),
]
