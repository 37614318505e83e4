"""A client that knows which orchestrators it asks: others that listen where they did get nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE

from anywire.config import Config
from anywire.errors import NoAgent
from anywire.identities.admitted import AdmittedEnd, change_admitted
from anywire.identities.identity_proof import Identity
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.roles import assembly
from anywire.roles.client import Client, ClientConfig
from anywire.roles.orchestrator_and_agents import running
from anywire.roles.stop import Stop
from reserved import free_port

pytestmark = pytest.mark.timeout(120)


def options(transport: str, dds_domain: int) -> dict[str, Any]:
    if transport == "dds":
        return {"domain": dds_domain, "fleet": "known"}
    scheme = {"zeromq": "tcp://", "http": "http://", "grpc": ""}[transport]
    return {f"{plane}_addresses": [f"{scheme}127.0.0.1:{free_port()}"] for plane in ("agent", "client")}


@pytest.mark.parametrize("transport", ["dds", "zeromq", "http", "grpc"])
async def test_a_client_asks_the_orchestrators_alone_that_it_knows(
    transport: str, tmp_path: Path, dds_domain: int
) -> None:
    key, keys, known = new_key(), tmp_path / "keys.json", tmp_path / "known.json"
    add_key(keys, record_of(key))
    config = Config.model_validate(
        {
            "transports": {transport: options(transport, dds_domain)},
            "gateways": [],
            "engine": {"name": "synthetic", "ttft": 1, "itl": 1},
            "access": {"keys": str(keys)},
            "identity": {"key": str(tmp_path / "own.pem"), "admitted": str(tmp_path / "admitted.json")},
        }
    )
    plugins = assembly.load_plugins(config)
    async with running(config, plugins, Stop(), 1):
        asking = ClientConfig(agent_wait=1.0)
        stranger = Identity.new().fingerprint
        for fingerprint, asked in ((stranger, False), (Identity.from_file(tmp_path / "own.pem").fingerprint, True)):
            change_admitted(known, lambda found, one=fingerprint: found.with_end(AdmittedEnd(one, "orchestrator")))  # type: ignore[misc]
            if asked:
                asking = ClientConfig(agent_wait=PATIENCE)
            client = Client(*assembly.make_transports(config, plugins), config=asking, key=str(key), admitted=known)
            async with client:
                if asked:
                    answer = await client.chat(
                        model="synthetic", messages=[{"role": "user", "content": "hello"}], max_tokens=3
                    )
                    assert len(answer["choices"][0]["message"]["content"].split()) == 3
                else:
                    with pytest.raises(NoAgent):
                        await client.models()
