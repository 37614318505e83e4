"""What is said to the server of a message that cannot be handled."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from anywire.testing.patience import polled
from anywire_service_nats.listening.held import Held
from anywire_service_nats.listening.listener import LONGEST_FAULT_PAUSE, Durable, Listener, Source


class Client:
    def __init__(self) -> None:
        self.said: list[bytes] = []

    async def publish(self, subject: str, data: bytes) -> None:
        assert subject == "$JS.ACK.x"
        self.said.append(data)


def message(deliveries: int) -> Any:
    metadata = SimpleNamespace(
        stream="S",
        sequence=SimpleNamespace(stream=deliveries),
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        num_pending=0,
        num_delivered=deliveries,
    )
    return SimpleNamespace(subject="s", data=b"", headers={}, metadata=metadata, reply="$JS.ACK.x")


@pytest.mark.parametrize(("deliveries", "seconds"), [(1, 5.0), (3, 15.0), (1000, LONGEST_FAULT_PAUSE)])
async def test_what_fails_for_ever_is_tried_less_and_less_often(deliveries: int, seconds: float) -> None:
    client = Client()

    async def handle(held: Held) -> float | None:
        raise LookupError("nobody foresaw it")

    source = Source(cast("Any", SimpleNamespace(client=client)), cast("Any", None))
    listener = Listener(source, Durable("d", "s", 10.0), handle, 1)
    listener._begin(message(deliveries))
    await polled(lambda: bool(client.said), "something is said of it")
    word, _, delay = client.said[0].partition(b" ")
    assert (word, msgspec.json.decode(delay)) == (b"-NAK", {"delay": round(seconds * 1e9)})
