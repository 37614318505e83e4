"""One pair of ends that talk through the broker: a channel, with acknowledgements and a lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from anywire.clock import SystemClock
from anywire.errors import TransportError
from anywire.lease import AwakeTime, Silence
from anywire.messages import AgentInfo, AgentStatus, HubInfo
from anywire.transport_tools import Codec, Goodbye, MayCongest, NewestStatus, WriteRoom, check_payload

if TYPE_CHECKING:
    from tests.conformance.planted.broker_transport import BrokerConnection

log = logging.getLogger(__name__)


class Taken(msgspec.Struct, frozen=True):
    """So many bytes were read: the sender's buffer has room again."""

    size: int


class Alive(msgspec.Struct, frozen=True):
    """Nothing else to say."""


class Gone(msgspec.Struct, frozen=True):
    """There is no such channel here any more."""


CODEC = Codec(Taken, Alive, Gone)
PINGS_PER_LEASE = 4


class BrokerChannel:
    """See `anywire.transport_tools.Channel`. What is not acknowledged is what waits."""

    def __init__(self, connection: BrokerConnection, name: str, number: int) -> None:
        self.peer, self.number, self.linked, self.over = name, number, False, False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection, self._config = connection, connection.config
        self._room = self.new_room()
        self._newest = NewestStatus(self._room, self.send_control)
        self._awake = connection.awake
        self._silence: Any = None
        self._ping: asyncio.TimerHandle | None = None
        self._own_lease = connection.end.info.lease_ms / 1000
        connection.end.channel_opened(self)
        self._say_alive_later()

    # What faults change

    def new_room(self) -> WriteRoom:
        return WriteRoom(self._config.buffer_bytes, self.peer)

    def watch(self, lease: float) -> Any:
        return Silence(self._awake, lease * 1.25, self._lapsed)

    # Channel

    def send(self, message: Any) -> None:
        if self.over:
            return
        check_payload(message, self._config.max_message_bytes)
        data = CODEC.encode(message)
        if isinstance(message, MayCongest):
            self._room.admit(len(data))
        if not isinstance(message, Taken | Alive | Gone):
            self._room.set_waiting(self._room.waiting + len(data))
        self._connection.write(self.peer, self.number, data)

    def send_control(self, message: Any) -> None:
        try:
            self.send(message)
        except TransportError as error:
            log.warning("not sent to %s: %s", self.peer, error)

    def report(self, status: AgentStatus) -> None:
        if not self.over:
            self._newest.put(status)

    async def drain(self) -> None:
        await self._room.drain()

    def close(self, reason: str, *, refused: bool = False) -> None:
        if not self.over:
            self.send_control(Goodbye(reason, refused))
            self.abort(reason)

    def abort(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self._room.close()
        if self._silence is not None:
            self._silence.cancel()
        if self._ping is not None:
            self._ping.cancel()
        self._connection.end.channel_ended(self, reason)
        if not self.ended.done():
            self.ended.set_result(None)

    # What the connection gives it

    def received(self, data: bytes) -> None:
        if self._silence is not None:
            self._silence.heard()
        try:
            message = CODEC.decode(data)
        except TransportError as error:
            self.close(str(error))
            return
        if isinstance(message, Taken):
            self._room.set_waiting(self._room.waiting - message.size)
        elif isinstance(message, Gone):
            self.abort("the peer has lost this link")
            self._connection.look(self.peer)
        elif not isinstance(message, Alive):
            if isinstance(message, HubInfo | AgentInfo):
                self._silence = self.watch(message.lease_ms / 1000)
            self.send(Taken(len(data)))
            try:
                self._connection.end.channel_received(self, message)
            except TransportError as error:
                self.close(str(error))

    def _say_alive(self) -> None:
        self.send(Alive())
        self._say_alive_later()

    def _say_alive_later(self) -> None:
        self._ping = asyncio.get_running_loop().call_later(self._own_lease / PINGS_PER_LEASE, self._say_alive)

    def _lapsed(self) -> None:
        self.abort("it was silent for its lease")


def new_awake_time() -> AwakeTime:
    return AwakeTime(SystemClock())


NewChannel = Callable[["BrokerConnection", str, int], BrokerChannel]
