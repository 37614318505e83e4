"""Buckets that others have made: used as they are where they serve, and refused with what would do."""

from __future__ import annotations

from typing import Any

import nats.js.api
import pytest
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.system.test_nats_store import looked_at, opened, opens, server, store_at

from anywire.errors import ConfigError
from anywire_service_deliberation.testing.store_kit import new

__all__ = ["server"]
pytestmark = [needs_nats_server, pytest.mark.timeout(120)]


async def test_a_bucket_whose_entries_expire_is_refused(server: NatsServer) -> None:
    async with looked_at(server) as jetstream:
        await jetstream.create_key_value(bucket="anywire-deliberations", ttl=60)
    await is_refused(server, "without a ttl")


async def is_refused(server: NatsServer, why: str) -> None:
    store = store_at(server)
    with pytest.raises(ConfigError, match=why):
        await opens(store)
    await store.close()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"max_bytes": 10**7}, "drops its oldest entries"),
        ({"deny_purge": True}, "nothing can be removed"),
        ({"max_msg_size": 100}, "its largest value has 100 bytes"),
    ],
)
async def test_a_bucket_that_would_lose_or_refuse_what_is_kept_is_refused(
    server: NatsServer, settings: dict[str, Any], why: str
) -> None:
    async with looked_at(server) as jetstream:
        await jetstream.add_stream(
            name="KV_anywire-deliberations",
            subjects=["$KV.anywire-deliberations.>"],
            max_msgs_per_subject=1,
            **settings,
        )
    await is_refused(server, why)


async def test_a_bucket_that_somebody_has_made_is_used_as_it_is(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As nats-py makes it: it gives nothing directly, and here no large value, and keeps all in memory."""
    async with looked_at(server) as jetstream:
        await jetstream.create_key_value(
            bucket="anywire-deliberations", max_value_size=10_000, storage=nats.js.api.StorageType.MEMORY
        )
    large = new(task="t" * 100_000)
    async with opened(server) as store:
        await store.add(large)
        assert await store.get("lab", "q-1") == large
    async with opened(server) as store:
        assert await store.unfinished() == [large]
    assert "in their memory alone" in caplog.text
