"""The handshake's law: whatever is delayed and whoever forgets, both ends end up joined in one and the same session."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.long_form import examples

from anywire_dds.session import Session, Verdict


class End:
    """One end with its writers: each channel is a queue to the other end. A new session has new writers, which keep
    (like a TRANSIENT_LOCAL writer) what was written before the other end reads."""

    def __init__(self, channels: tuple[str, ...], others: tuple[str, ...]) -> None:
        self.writes, self.reads = channels, others
        self.session: Session | None = None
        self.out: dict[str, deque[tuple[int, int]]] = {}
        self.joins = self.losses = 0

    def appear(self) -> None:
        """The other end's registration has arrived."""
        self.begin(Session(self.reads))

    def disappear(self) -> None:
        """The other end's registration has gone: the session and its writers go."""
        if self.session is not None:
            self.losses += self.session.joined
            self.session = None
            self.out = {}

    def begin(self, session: Session) -> None:
        self.session = session
        self.out = {channel: deque() for channel in self.writes}
        self.send_hello()

    def send_hello(self) -> None:
        assert self.session is not None
        for queue in self.out.values():
            queue.append((self.session.own, self.session.peer))

    def hear(self, channel: str, hello: tuple[int, int]) -> None:
        if self.session is None:
            return
        verdict = self.session.hello(channel, *hello)
        if Verdict.RESTART in verdict:
            self.losses += 1
            self.begin(self.session.successor())
        elif Verdict.ANSWER in verdict:
            self.send_hello()
        self.joins += Verdict.JOIN in verdict


class Wire:
    def __init__(self) -> None:
        self.hub = End(("request", "control"), ("response",))
        self.agent = End(("response",), ("request", "control"))

    def deliver(self, channel: str) -> bool:
        source, target = (self.agent, self.hub) if channel == "response" else (self.hub, self.agent)
        queue = source.out.get(channel)
        if not queue:
            return False
        target.hear(channel, queue.popleft())
        return True

    def settle(self) -> None:
        for _ in range(200):
            if not sum(self.deliver(channel) for channel in ("control", "request", "response")):
                return
        pytest.fail("the two ends never agree")


STEPS = st.lists(
    st.sampled_from(["request", "control", "response", "hub forgets", "agent forgets", "hub finds", "agent finds"]),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=examples(500))
def test_both_ends_agree_in_the_end(steps: list[str]) -> None:
    wire = Wire()
    for step in steps:
        end = wire.hub if step.startswith("hub") else wire.agent
        if step.endswith("forgets"):
            end.disappear()
        elif step.endswith("finds"):
            if end.session is None:
                end.appear()
        else:
            wire.deliver(step)
    for end in (wire.hub, wire.agent):
        if end.session is None:
            end.appear()
    wire.settle()
    hub, agent = wire.hub.session, wire.agent.session
    assert hub is not None
    assert agent is not None
    assert hub.joined
    assert agent.joined
    assert (hub.peer, agent.peer) == (agent.own, hub.own)
    for end in (wire.hub, wire.agent):
        assert end.joins == end.losses + 1


def test_an_undisturbed_handshake_takes_one_answer_each() -> None:
    wire = Wire()
    wire.hub.appear()
    wire.agent.appear()
    wire.settle()
    assert (wire.hub.joins, wire.agent.joins, wire.hub.losses, wire.agent.losses) == (1, 1, 0, 0)


def test_both_writers_of_the_hub_must_have_been_heard() -> None:
    session = Session(("request", "control"))
    assert session.hello("request", 5, session.own) == Verdict.NOTHING
    assert session.hello("control", 5, 0) == Verdict.ANSWER | Verdict.JOIN


def test_a_late_hello_of_an_earlier_session_is_ignored() -> None:
    session = Session(("response",))
    session.hello("response", 7, session.own)
    assert session.joined
    assert session.hello("response", 6, 0) == Verdict.NOTHING
    assert session.hello("response", 8, 0) == Verdict.RESTART
    assert session.successor().peer == 8


def test_what_an_earlier_session_had_heard_proves_nothing() -> None:
    session = Session(("request", "control"))
    session.hello("request", 5, session.own)
    session.hello("request", 6, 0)
    assert session.hello("control", 6, 0) == Verdict.ANSWER
    assert not session.joined


def test_using_our_number_confirms_that_we_were_heard() -> None:
    session = Session(("request", "control"))
    assert session.confirmed() == Verdict.NOTHING
    session.hello("request", 5, 0)
    session.hello("control", 5, 0)
    assert session.confirmed() == Verdict.JOIN
    assert session.confirmed() == Verdict.NOTHING
