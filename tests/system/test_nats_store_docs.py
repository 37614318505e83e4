"""What docs/how-to/nats.md says of deliberations that are kept in NATS is done as written, and holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.nats_servers import NatsServer, needs_nats_server
from tests.integration.test_docs import DOCS
from tests.patience import PATIENCE
from tests.system.test_nats_docs import NatsReader
from tests.system.test_nats_store import JETSTREAM, store_at

from anywire_nats.config import ServerConfig
from anywire_service_deliberation.testing.store_kit import ids, new
from anywire_service_nats.kv_settings import NatsStoreConfig
from reserved import free_ports

PAGE = DOCS / "how-to" / "nats.md"
SECTION = "Keep deliberations in NATS"

pytestmark = [pytest.mark.timeout(150), needs_nats_server]


class StandbyReader(NatsReader):
    """Kills the first orchestrator before the second one is asked."""

    def __init__(self, folder: Path, dds_domain: int) -> None:
        super().__init__(folder, dds_domain)
        (self._other_port,) = free_ports(1)

    def here(self, text: str) -> str:
        port = str(self._other_port)
        return super().here(text).replace(":8081", f":{port}").replace("--port 8081", f"--port {port}")

    async def _do(self, command: str, *, beside: bool = False) -> str:
        if ":8081" not in command:
            return await super()._do(command, beside=beside)
        first = self.programs[1].process
        first.kill()
        await first.wait()
        async with asyncio.timeout(PATIENCE):
            while "shutting_down" in (answer := await super()._do(command)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        return answer


@pytest_asyncio.fixture
async def reader(tmp_path: Path, dds_domain: int) -> AsyncIterator[StandbyReader]:
    made = StandbyReader(tmp_path, dds_domain)
    yield made
    for program in reversed(made.programs):
        await program.kill()


async def test_the_section_works_as_written(reader: StandbyReader) -> None:
    await reader._do("nats-server --jetstream --addr 127.0.0.1 --port 4222 --store_dir jetstream")
    await reader.follow(PAGE, SECTION)
    assert len(reader.programs) == 3


def test_the_section_names_what_there_is() -> None:
    (text,) = re.findall(rf"^## {SECTION}\n(.*?)(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))
    fields = NatsStoreConfig.model_fields
    own = set(fields) - set(ServerConfig.model_fields)
    assert set(listed) == own
    assert listed["lease"] == f"{fields['lease'].default:g} s"
    assert listed["patience"] == f"{fields['patience'].default:g} s"
    assert listed["bucket"] == f"`{fields['bucket'].default}`"


async def test_the_permissions_that_the_section_names_are_enough(tmp_path: Path) -> None:
    (line,) = re.findall(r"The user needs (.*?) to publish, and\n`(.*?)` to subscribe", PAGE.read_text(), re.DOTALL)
    publish = re.findall(r"`([^`]+)`", line[0].replace("BUCKET", "anywire-deliberations"))
    allowed = f"permissions: {{publish: {publish}, subscribe: {[line[1]]}}}".replace("'", '"')
    users = f"authorization: {{users: [{{user: keeper, password: secret-1, {allowed}}}]}}"
    async with NatsServer(tmp_path, JETSTREAM.format(tmp_path / "jetstream", users)) as server:
        for expected in ([], ["q-1"]):
            store = store_at(server, user="keeper", password="secret-1")
            assert await store.open()
            assert ids(await store.unfinished()) == expected
            await store.add(new())
            await store.purge(0.0)
            await store.close()
