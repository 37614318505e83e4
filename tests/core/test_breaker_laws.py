"""The laws of one breaker, over whatever happens to the attempts that it hears of."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.long_form import examples

from anywire.failure_settings import BreakerConfig
from anywire.pipeline.health.breaker import Breaker

CONFIGS = st.builds(
    BreakerConfig,
    errors=st.integers(1, 4),
    error_rate=st.sampled_from([0.3, 0.5, 1.0]),
    requests=st.integers(2, 8),
    recovery=st.sampled_from([0.5, 1.0, 40.0]),
    longest=st.sampled_from([1.0, 4.0, 30.0]),
    probes=st.integers(1, 3),
)


class BreakerLaws(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.epoch = 0
        self.under_way: list[tuple[int, int]] = []
        """Attempts that have not ended: number, and the epoch they were sent in."""
        self.numbers = count()
        self.counted: list[bool] = []
        """Whether each attempt failed that ended since it closed and was sent since then."""

    def next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    @initialize(config=CONFIGS)
    def begin(self, config: BreakerConfig) -> None:
        self.config = config
        self.breaker = Breaker(config, self.next_epoch)
        self.began = 0
        """The epoch in which its state began."""

    @rule()
    def send(self) -> None:
        if self.breaker.allows:
            self.breaker.sent()
            self.under_way.append((next(self.numbers), self.epoch))

    @rule()
    def send_though_it_is_open(self) -> None:
        """An agent alone gets tasks all the same."""
        if self.breaker.state == "open":
            self.breaker.sent()
            self.under_way.append((next(self.numbers), self.epoch))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99), end=st.sampled_from(["answer", "failure", "nothing"]))
    def end(self, which: int, end: str) -> None:
        breaker, before, trips = self.breaker, self.breaker.state, self.breaker.trips
        attempt = self.under_way.pop(which % len(self.under_way))
        epoch, began = attempt[1], self.began
        if end == "answer":
            breaker.succeeded(self.now, epoch)
        elif end == "failure":
            assert breaker.failed(self.now, epoch) == (epoch >= began)
        else:
            breaker.neutral(epoch)
        if end == "nothing" or epoch < began:
            assert breaker.state == before, "what says nothing, or was sent before, changes no state"
            return
        if before == "closed":
            self.counted.append(end == "failure")
        self.check_change(before, end)
        if breaker.state != before:
            self.began = self.epoch
            self.counted = []
        if breaker.state == "open" and before != "open":
            assert breaker.trips in (trips + 1, 1)
            lasts = self.config.recovery * 2 ** (breaker.trips - 1)
            assert breaker.until == self.now + min(lasts, max(self.config.longest, self.config.recovery))

    def check_change(self, before: str, end: str) -> None:
        """What an attempt may change that was sent in the state it ends in."""
        state, config = self.breaker.state, self.config
        if end == "answer":
            assert state == "closed"
        elif before == "closed":
            row = self.counted[-config.errors :]
            recent = self.counted[-config.requests :]
            in_a_row = len(row) == config.errors and all(row)
            too_many = len(recent) == config.requests and sum(recent) >= config.error_rate * config.requests
            assert (state == "open") == (in_a_row or too_many)
        else:
            assert state == "open"

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        before = self.breaker.state
        self.breaker.recover(self.now)
        if before == "open" and self.now >= self.breaker.until:
            assert self.breaker.state == "half_open"
            self.began = self.epoch
        else:
            assert self.breaker.state == before

    @invariant()
    def probes_are_bounded(self) -> None:
        if not hasattr(self, "breaker"):
            return
        since = sum(epoch >= self.began for _, epoch in self.under_way)
        if self.breaker.state == "half_open":
            assert self.breaker.under_way == since <= self.config.probes
            assert self.breaker.allows == (since < self.config.probes), "whoever has ended makes room for another one"
        else:
            assert self.breaker.allows == (self.breaker.state == "closed")

    def teardown(self) -> None:
        """All that goes well from now on closes it, and then it is forgotten."""
        if not hasattr(self, "breaker"):
            return
        breaker = self.breaker
        for _, epoch in self.under_way:
            breaker.neutral(epoch)
        self.now = max(self.now, breaker.until)
        breaker.recover(self.now)
        for _ in range(self.config.requests):
            assert breaker.allows
            breaker.sent()
            breaker.succeeded(self.now, self.epoch)
            assert breaker.state == "closed"
            self.now += self.config.longest
        breaker.succeeded(self.now, self.epoch)
        assert breaker.is_blank


TestBreakerLaws = BreakerLaws.TestCase
TestBreakerLaws.settings = settings(max_examples=examples(60), stateful_step_count=60)
