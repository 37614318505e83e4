"""What docs/how-to/nats.md says is done as written, with the real nats-server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.nats_servers import needs_nats_server
from tests.integration.test_docs import DOCS, Reader

from anywire_service_nats import payloads
from anywire_service_nats.config import NatsServiceConfig
from anywire_service_nats.subjects import STREAMS
from reserved import free_ports

PAGE = DOCS / "how-to" / "nats.md"
README = Path(__file__).parents[2] / "plugins" / "services" / "nats" / "README.md"

pytestmark = [pytest.mark.timeout(150), needs_nats_server]


class NatsReader(Reader):
    """Leaves the server running, at a port that nobody else uses."""

    def __init__(self, folder: Path, dds_domain: int) -> None:
        super().__init__(folder, dds_domain)
        (self._nats_port,) = free_ports(1)

    def here(self, text: str) -> str:
        port = str(self._nats_port)
        return super().here(text).replace(":4222", f":{port}").replace("--port 4222", f"--port {port}")

    async def _do(self, command: str, *, beside: bool = False) -> str:
        if command.startswith("nats-server "):
            await (await self.begin(command)).says("Server is ready")
            return ""
        return await super()._do(command, beside=beside)


@pytest_asyncio.fixture
async def reader(tmp_path: Path, dds_domain: int) -> AsyncIterator[NatsReader]:
    made = NatsReader(tmp_path, dds_domain)
    yield made
    for program in reversed(made.programs):
        await program.kill()


async def test_the_page_works_as_written(reader: NatsReader) -> None:
    await reader.follow(PAGE, "Begin")
    assert len(reader.programs) == 2
    assert (reader.folder / "nats").stat().st_mode & 0o777 == 0o700
    told = await reader.run(reader.here("curl -s http://127.0.0.1:8080/metrics"))
    listed = re.findall(r"`(anywire_nats_\w+)", PAGE.read_text())
    # What is counted of tasks is told where they are published.
    assert {name for name in listed if f"\n{name}" not in told} <= {
        "anywire_nats_lost_events_total",
        "anywire_nats_waiting_events",
    }


def test_the_page_names_what_there_is() -> None:
    text = PAGE.read_text()
    for name in ("publish", "envelope", "folder", "outbox_messages", "outbox_bytes", "make_streams", "stream_bytes"):
        assert re.search(rf"`{name}[`:]", text), name
        assert name in NatsServiceConfig.model_fields
    for stream in STREAMS:
        if not stream.work_queue:
            assert f"`{stream.name}`" in text or stream.name == "DEADLETTER", stream.name
    options = set(re.findall(r"`(\w+)`", README.read_text())) & set(NatsServiceConfig.model_fields)
    assert {"servers", "envelope", "publish", "producer", "stream_age"} <= options


def test_the_fields_that_the_page_lists_are_published() -> None:
    text = PAGE.read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [^|]* \| ([^|]*) \|$", text, re.MULTILINE))
    made = {
        "agent.response.completed": payloads.answer_completed(
            task_id="", agent_id="", role="", num_agents=1, proposal={}, duration_ms=0, time=0.0, constraints={}
        ),
        "agent.response.failed": payloads.answer_failed(
            task_id="", agent_id="", role="", num_agents=1, error="", error_type="", duration_ms=0, time=0.0
        ),
        "orchestration.task.dispatched": payloads.task_dispatched(task_id="", story_id="", agent="", role="", time=0.0),
        "orchestration.deliberation.completed": payloads.deliberation_completed(
            task_id="", story_id="", decisions=(), time=0.0
        ),
        "orchestration.deliberation.failed": payloads.deliberation_failed(task_id="", story_id="", error="", time=0.0),
    }
    for subject, payload in made.items():
        listed = set(re.findall(r"`(\w+)`", rows[subject]))
        assert set(payload) - {"status"} <= listed, subject
