"""An observer of the agent plane over DDS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.observer import HubSeen, Observer, ObserverInfo, ObserverSink, TaskSeen
from anywire_dds import types, wire
from anywire_dds.announcements import Announcements, Newest
from anywire_dds.cdr import Malformed
from anywire_dds.config import DdsConfig
from anywire_dds.endpoints import BATCH, CODECS
from anywire_dds.observation import CODECS as SEEN
from anywire_dds.observation import ObservationEndpoints

log = logging.getLogger(__name__)

EARLY = 256
"""Reports kept of agents whose registration has not come yet."""


class DdsObserver(Observer):
    """Made by `DdsTransport.open_observer`."""

    def __init__(self, config: DdsConfig, info: ObserverInfo, sink: ObserverSink) -> None:
        self._sink, self._texts = sink, info.texts
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[None] | None = None
        self._lives: dict[str, int] = {}
        """Of each agent that is there, its incarnation."""
        self._early: dict[str, AgentStatus] = {}
        self._revisions: dict[str, int] = {}
        self._followed: dict[tuple[str, int], tuple[TaskSeen, int]] = {}
        """By hub and slot: the attempt under way as last seen, and the number of the delta that comes next."""
        self.endpoints = endpoints = ObservationEndpoints(config, "agent", info.observer_id, info.lease_ms, held=True)
        agents = Newest(self._agent_joined, self._agent_lost)
        self._agents = Announcements(
            CODECS["register"], types.AgentRegistration, lambda agent: agent.agent_id, wire.to_agent,
            lambda writer: endpoints.participant_of("register", writer), agents.arrived, agents.departed,
        )  # fmt: skip
        hubs = Newest(self._hub_joined, self._hub_lost)
        self._hubs = Announcements(
            CODECS["hub"], types.HubRegistration, lambda hub: hub.hub_id, wire.to_hub,
            lambda writer: endpoints.participant_of("hub", writer), hubs.arrived, hubs.departed,
        )  # fmt: skip
        try:
            interval_ms = max(1, round(1e3 / info.rate))
            fleet = endpoints.partition()
            self._take_agents = endpoints.read("register", fleet, self._on_agents)
            self._take_hubs = endpoints.read("hub", fleet, self._on_hubs)
            self._take_status = endpoints.observe("status", self._on_status, interval_ms * 1_000_000)
            self._take_tasks = endpoints.observe("task", self._on_tasks)
            self._take_totals = endpoints.observe("activity", self._on_totals)
            registration = endpoints.publish("observer")
            registration.write(SEEN["observer"].pack(info.incarnation, interval_ms, info.texts, info.observer_id))
        except BaseException:
            endpoints.abandon()
            raise

    @property
    def closing(self) -> bool:
        return self._closing is not None

    def start_soon(self) -> None:
        """Begin to call back, after the opening has returned to its caller."""
        self.endpoints.start_soon()

    def close(self) -> Coroutine[Any, Any, None]:
        if self._closing is None:
            self.endpoints.stop()
            # Our registration ends with its writer: hubs see that at once, and nobody needs to be told more.
            self._closing = asyncio.ensure_future(self.endpoints.close())
        return self._closed(self._closing)

    @staticmethod
    async def _closed(closing: asyncio.Task[None]) -> None:
        await asyncio.shield(closing)

    # Agents and hubs

    def _on_agents(self) -> None:
        self._agents.process(self._all(self._take_agents(), self._on_agents))

    def _on_hubs(self) -> None:
        self._hubs.process(self._all(self._take_hubs(), self._on_hubs))

    def _agent_joined(self, info: AgentInfo) -> None:
        self._lives[info.agent_id] = info.incarnation
        self._sink.agent_joined(info)
        early = self._early.pop(info.agent_id, None)
        if early is not None and early.incarnation == info.incarnation:
            self._sink.agent_reported(early)

    def _agent_lost(self, agent_id: str, incarnation: int, reason: str) -> None:
        del self._lives[agent_id]
        self._revisions.pop(agent_id, None)
        self._sink.agent_lost(agent_id, incarnation, reason)

    def _hub_joined(self, info: HubInfo) -> None:
        self._sink.hub_joined(info)

    def _hub_lost(self, hub_id: str, incarnation: int, reason: str) -> None:
        for key in [each for each in self._followed if each[0] == hub_id]:
            self._lose_sight(key)
        self._sink.hub_lost(hub_id, incarnation, reason)

    def _on_status(self) -> None:
        for data, sample in self._all(self._take_status(), self._on_status):
            if not sample.valid_data:
                continue
            try:
                revision, status = wire.read_status(data)
            except Malformed as error:
                log.warning("unreadable status ignored: %s", error)
                continue
            if self._lives.get(status.agent_id) == status.incarnation:
                if revision > self._revisions.get(status.agent_id, 0):
                    self._revisions[status.agent_id] = revision
                    self._sink.agent_reported(status)
            elif status.agent_id not in self._lives and len(self._early) < EARLY:
                self._early[status.agent_id] = status

    # What hubs tell

    def _on_totals(self) -> None:
        for data, sample in self._all(self._take_totals(), self._on_totals):
            if sample.valid_data:
                try:
                    incarnation, begun, ended, shown, hub_id = SEEN["activity"].unpack(data)
                except Malformed as error:
                    log.warning("unreadable totals of a hub ignored: %s", error)
                    continue
                self._sink.hub_reported(HubSeen(hub_id, incarnation, begun, ended, shown))

    def _on_tasks(self) -> None:
        for data, sample in self._all(self._take_tasks(), self._on_tasks):
            if sample.valid_data:
                try:
                    self._seen(SEEN["task"].unpack(data))
                except Malformed as error:
                    log.warning("unreadable task ignored: %s", error)
                continue
            key = types.TaskSeen.deserialize_key(data)
            self._lose_sight((key.hub_id, key.slot))  # its hub is gone, or takes us for gone

    def _seen(self, values: tuple[Any, ...]) -> None:
        (age_ms, slot, attempt, chunks, first, position, cut, ended,
         hub_id, task_id, agent_id, kind, model, text, finish_reason, error) = values  # fmt: skip
        key = (hub_id, slot)
        last, due = self._followed.get(key, (None, 0))
        if last is not None and (last.task_id, last.attempt) != (task_id, attempt):
            self._lose_sight(key, ended=True)
            due = 0
        missing = self._texts and (cut or first != due)
        seen = TaskSeen(
            hub_id, task_id, attempt, agent_id, kind, model, "ended" if ended else "running", age_ms, chunks,
            text if self._texts else "", missing, finish_reason, error,
        )  # fmt: skip
        if ended:
            self._followed.pop(key, None)
        else:
            self._followed[key] = (seen, position)
        self._sink.task_seen(seen)

    def _lose_sight(self, key: tuple[str, int], *, ended: bool = False) -> None:
        """Its hub tells no more of it; or its end was told in a sample that others have replaced."""
        followed = self._followed.pop(key, None)
        if followed is not None:
            state = "ended" if ended else "lost"
            self._sink.task_seen(msgspec.structs.replace(followed[0], state=state, text="", missing=ended))

    def _all(self, samples: list[Any], again: Any) -> list[Any]:
        """These samples; when there may be more, ``again`` is called in the next turn of the loop."""
        if len(samples) == BATCH:
            self._loop.call_soon(again)
        return samples
