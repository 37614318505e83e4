"""Agents that cost no time: they join, answer, refuse, fail, pause, come back, drain and leave by a simulated clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from anywire import errors
from anywire.errors import AnywireError
from anywire.messages import AgentInfo, AgentStatus, Cancel, Chunk, Credit, State, TaskRequest, ToAgent
from anywire.offers import Offer, offers_text
from anywire.testing.clock import SimulatedClock
from anywire.testing.puppet import PuppetTransport

MODELS = ("m1", "m2", "m3")
LATENCY = 0.001
"""Seconds that a message to an agent takes."""
LEASE = 2.0
HEARTBEAT = 0.5
MAX_SLOTS = 6
CALM = 6.0
"""Seconds in the mean until something befalls an agent."""
FATES = {
    "answers": 90.0,
    "refuses": 2.0,
    "fails": 2.0,
    "fails_later": 1.0,
    "hangs": 2.0,
    "hangs_later": 1.0,
    "skips_a_delta": 0.3,
    "repeats_a_delta": 0.3,
    "ignores_credit": 0.3,
    "talks_nonsense": 0.3,
    "ignores_cancels": 6.0,
    "forges": 1.0,
}
LIVES = {
    "crash": 4.0,
    "restart": 2.0,
    "pause": 4.0,
    "brief_pause": 4.0,
    "drain": 3.0,
    "lose_a_link": 3.0,
    "change_offers": 3.0,
    "fall_ill": 2.0,
}


class Wire(PuppetTransport):
    """Brings messages to agents after `LATENCY`; what is under way when a link is lost is lost with it. A send fails
    now and then, and there may be no room."""

    def __init__(self, name: str, liveliness: Any, clock: SimulatedClock, rng: random.Random) -> None:
        super().__init__(name, liveliness)
        self.clock, self.rng = clock, rng
        self.agents: dict[str, SimulatedAgent] = {}
        """Those that are linked, by id."""

    def send(self, agent_id: str, message: ToAgent) -> None:
        agent = self.agents.get(agent_id)
        if agent is None:
            raise errors.AgentUnavailable("not linked", phase="not_sent")
        if isinstance(message, TaskRequest):
            chance = self.rng.random()
            if chance < 0.002:
                raise errors.Congested("no room")
            if chance < 0.004:
                raise errors.AgentUnavailable("the link broke", phase=self.rng.choice(["not_sent", "maybe_sent"]))
            if chance < 0.008:
                raise errors.PayloadTooLarge("too large for this wire")
            if chance < 0.010:
                phase = self.rng.choice(["not_sent", "maybe_sent"])
                self.clock.call_later(LATENCY, self._notice, agent_id, agent.incarnation, message, phase)
                if phase == "not_sent":
                    return
        self.clock.call_later(LATENCY, agent.bring, self, agent.sessions[self.name], message)

    async def drain(self, agent_id: str) -> None:
        await self.clock.sleep(0.02)

    def _notice(self, agent_id: str, incarnation: int, request: TaskRequest, phase: errors.Phase) -> None:
        error = errors.AgentLost("noticed by the wire", phase=phase)
        self.sink.send_failed(agent_id, incarnation, request.task_id, request.attempt, error)


class Run:
    """One attempt at its agent. ``due``: it would have gone on, and its agent was paused or had no credit."""

    def __init__(self, request: TaskRequest, wire: Wire, fate: str, length: int, pace: float) -> None:
        self.request, self.wire, self.fate, self.pace = request, wire, fate, pace
        self.next = self.first = request.resume.count(";")
        self.length, self.credit = length, request.credit
        self.turning = length // 2
        """The delta before which it fails or hangs, if it does so later."""
        self.due = False


class SimulatedAgent:
    """Answers a task ``t7.12`` with twelve deltas ``0;`` to ``11;``, or goes on after those it is given."""

    def __init__(self, agent_id: str, wires: list[Wire], clock: SimulatedClock, rng: random.Random) -> None:
        self.agent_id, self.wires, self.clock, self.rng = agent_id, wires, clock, rng
        self.incarnation = self.slots = 0
        self.models: tuple[str, ...] = ()
        self.state: State = "starting"
        self.paused = self.over = self.ill = False
        self.runs: dict[tuple[str, int], Run] = {}
        self.sessions = dict.fromkeys((wire.name for wire in wires), 0)
        """How often each link was made; what was sent over an earlier one does not arrive."""
        self.inbox: list[tuple[Wire, int, ToAgent]] = []
        self._lives, self._back = 0, 0.0

    # Its life

    def live(self) -> None:
        """Come into being, and after a while something happens."""
        if self.over:
            return
        if self.clock.now() < self._back:
            self.clock.call_later(self._back - self.clock.now(), self.live)
            return
        self.incarnation += 1
        self.slots = self.rng.randint(1, MAX_SLOTS)
        self.models = tuple(self.rng.sample(MODELS, self.rng.randint(1, 3)))
        self.runs.clear()
        self.inbox.clear()
        self.paused, self.ill, self.state = False, False, "ready"
        for wire in self.wires:
            self._link(wire)
        self._report(self._begin_life())
        self._later(self.rng.expovariate(1 / CALM), self._befall)

    def stay_away(self, seconds: float) -> None:
        """Crash, and come back no sooner than that."""
        self._back = self.clock.now() + seconds
        if any(self.agent_id in wire.agents for wire in self.wires):
            self._crash()

    def end(self) -> None:
        """Leave for good."""
        self.over = True
        self._leave()

    def _begin_life(self) -> int:
        self._lives += 1
        return self._lives

    def _later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Unless it has another life by then."""

        def in_this_life(life: int) -> None:
            if life == self._lives and not self.over:
                call(*args)

        self.clock.call_later(delay, in_this_life, self._lives)

    def _befall(self) -> None:
        (what,) = self.rng.choices(list(LIVES), list(LIVES.values()))
        getattr(self, f"_{what}")()

    def _crash(self) -> None:
        self._leave()
        self.clock.call_later(self.rng.expovariate(1 / 3), self.live)

    def _restart(self) -> None:
        """Its next life joins before the wires have noticed the end of this one."""
        self._lives += 1
        self.live()

    def _pause(self) -> None:
        self.paused = True
        self._later(LEASE, self._notice_the_pause)
        self._later(LEASE + self.rng.expovariate(1 / 3), self._wake)

    def _brief_pause(self) -> None:
        self.paused = True
        self._later(self.rng.uniform(0.1, 0.9) * LEASE, self._wake)

    def _notice_the_pause(self) -> None:
        for wire in self.wires:
            if wire.capabilities.liveliness == "native":
                self._unlink(wire, "silent")

    def _wake(self) -> None:
        self.paused = False
        for wire in self.wires:
            if self.agent_id not in wire.agents:
                self._link(wire)
        self._say_status()
        inbox, self.inbox = self.inbox, []
        for wire, session, message in inbox:
            self.bring(wire, session, message)
        for run in list(self.runs.values()):
            if run.due:
                run.due = False
                self._step(run)
        self._later(self.rng.expovariate(1 / CALM), self._befall)

    def _drain(self) -> None:
        self.state = "draining"
        self._say_status()
        self._later(self.rng.uniform(0.1, 4.0), self._crash)

    def _lose_a_link(self) -> None:
        wire = self.rng.choice(self.wires)
        self._unlink(wire, "the link broke")
        self._later(self.rng.expovariate(2.0), self._link_again, wire)

    def _link_again(self, wire: Wire) -> None:
        self._link(wire)
        self._say_status()
        self._later(self.rng.expovariate(1 / CALM), self._befall)

    def _change_offers(self) -> None:
        self.models = tuple(self.rng.sample(MODELS, self.rng.randint(1, 3)))
        self._say_status()
        self._later(self.rng.expovariate(1 / CALM), self._befall)

    def _fall_ill(self) -> None:
        """Fail at everything for a while."""
        self.ill = True
        self._later(self.rng.expovariate(1 / 4), self._recover)

    def _recover(self) -> None:
        self.ill = False
        self._later(self.rng.expovariate(1 / CALM), self._befall)

    # Its links

    def _link(self, wire: Wire) -> None:
        self.sessions[wire.name] += 1
        wire.agents[self.agent_id] = self
        capabilities = ("chat", "resume")
        info = AgentInfo(self.agent_id, self.incarnation, capabilities=capabilities, lease_ms=int(LEASE * 1000))
        wire.sink.agent_joined(info)

    def _unlink(self, wire: Wire, reason: str) -> None:
        if wire.agents.pop(self.agent_id, None) is not None:
            self.sessions[wire.name] += 1
            wire.sink.agent_lost(self.agent_id, self.incarnation, reason)

    def _leave(self) -> None:
        self._begin_life()
        self.runs.clear()
        for wire in self.wires:
            self._unlink(wire, "it has left")

    def _report(self, life: int) -> None:
        if life == self._lives and not self.over:
            if not self.paused:
                self._say_status()
            self.clock.call_later(HEARTBEAT, self._report, life)

    def _say_status(self) -> None:
        offered = offers_text(tuple(Offer(model, digest="d") for model in self.models))
        gauges = {"cpu_percent": 50.0, "vram_free_bytes": 8e9}
        for wire in self.wires:
            if self.agent_id in wire.agents:
                status = AgentStatus(
                    self.agent_id, self.incarnation, self.state, offered, self.slots, len(self.runs), 0, gauges
                )
                wire.sink.agent_reported(self.agent_id, self.incarnation, status)

    # Its tasks

    def bring(self, wire: Wire, session: int, message: ToAgent) -> None:
        """A message arrives."""
        if session != self.sessions[wire.name]:
            return
        if self.paused:
            self.inbox.append((wire, session, message))
        elif isinstance(message, TaskRequest):
            self._begin(wire, message)
        elif isinstance(message, Cancel):
            run = self.runs.get((message.task_id, message.attempt))
            if run is not None and run.fate != "ignores_cancels":
                self._later(self.rng.expovariate(50.0), self._end, run, errors.TaskCancelled("stopped"))
        elif isinstance(message, Credit):
            run = self.runs.get((message.task_id, message.attempt))
            if run is not None:
                run.credit += message.chunks
                if run.due:
                    run.due = False
                    self._step(run)

    def _begin(self, wire: Wire, request: TaskRequest) -> None:
        (fate,) = self.rng.choices(list(FATES), list(FATES.values()))
        if self.ill:
            fate = "fails"
        # Only tasks of clients say how many deltas they want.
        length = int(request.task_id.partition(".")[2] or 1)
        run = Run(request, wire, fate, length, self.rng.expovariate(1 / 0.02))
        if self.state != "ready" or len(self.runs) >= self.slots or fate == "refuses":
            self._say(run, (), final=True, error=errors.Refused("no free slot"))
            return
        self.runs[request.task_id, request.attempt] = run
        if fate == "hangs":
            return
        if self.rng.random() < 0.7:
            self._say(run, ())
        self._later(self.rng.expovariate(1 / 0.1), self._step, run)

    def _step(self, run: Run) -> None:
        """Bring the next piece of its answer."""
        request = run.request
        if self.runs.get((request.task_id, request.attempt)) is not run:
            return
        if self.paused or (run.credit <= 0 and run.fate != "ignores_credit"):
            run.due = True
            return
        turning = run.next >= run.turning
        match run.fate:
            case "fails":
                self._end(run, errors.EngineFailed("broken"))
                return
            case "fails_later" if turning:
                self._end(run, errors.EngineFailed("broken", concerns="model"))
                return
            case "hangs_later" if turning:
                return
            case "talks_nonsense":
                self._say(run, (7,))  # type: ignore[arg-type]
                return
            case "forges":
                self._forge(run)
        if not request.stream:
            text = "".join(f"{number};" for number in range(run.length))
            self._end(run, None, (text,))
            return
        count = min(self.rng.randint(1, 3), run.length - run.next)
        deltas = tuple(f"{run.next + number};" for number in range(count))
        if run.fate == "skips_a_delta" and turning:
            run.next += 1
        if run.fate == "repeats_a_delta" and turning and run.next > run.first:
            run.next -= 1
        if run.next + count >= run.length:
            self._end(run, None, deltas)
            return
        run.credit -= 1
        self._say(run, deltas)
        run.next += count
        self._later(run.pace, self._step, run)

    def _end(self, run: Run, error: AnywireError | None, deltas: tuple[str, ...] = ()) -> None:
        key = run.request.task_id, run.request.attempt
        if self.runs.get(key) is not run:
            return
        if self.paused:
            run.due = True
            return
        del self.runs[key]
        self._say(run, deltas, final=True, error=error)

    def _say(self, run: Run, deltas: tuple[str, ...], final: bool = False, error: AnywireError | None = None) -> None:
        if self.agent_id not in run.wire.agents:
            return
        request = run.request
        seq = run.next - run.first
        usage = f'{{"prompt_tokens":{len(request.body) // 4},"completion_tokens":{run.length}}}' if final else ""
        chunk = Chunk(
            request.hub_id,
            request.task_id,
            request.attempt,
            0 if error is not None else seq,
            deltas,
            final=final,
            error=errors.to_wire(error) if error is not None else "",
            usage=usage,
            resumable=bool(deltas) and seq == 0,
        )
        run.wire.sink.chunk_received(self.agent_id, self.incarnation, chunk)

    def _forge(self, run: Run) -> None:
        """Another agent speaks for this one's task, and so does an earlier life of this one."""
        request = run.request
        chunk = Chunk(request.hub_id, request.task_id, request.attempt, 0, ("forged;",), final=True)
        for agent_id in run.wire.agents:
            if agent_id != self.agent_id:
                run.wire.sink.chunk_received(agent_id, run.wire.agents[agent_id].incarnation, chunk)
                break
        run.wire.sink.chunk_received(self.agent_id, self.incarnation - 1, chunk)
