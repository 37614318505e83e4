"""The orchestrator of deploy/kubernetes/ray runs its command with its configuration beside a real head of Ray: its
agents are actors there, and ask the model server with the key that the pods of the cluster have."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from tests.integration.anywire_processes import until_agents
from tests.integration.deployments import DEPLOY
from tests.integration.fake_openai_server import FakeServer
from tests.patience import PATIENCE
from tests.system.deployed import MODEL_SERVER, client_of
from tests.system.own_network import own_network

from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key

pytest.importorskip("ray", reason="missing: Ray (tests/system/install.sh)")

FOLDER = DEPLOY / "kubernetes" / "ray"
HEAD, NODE = "10.99.0.1", "10.99.0.2"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="missing: root, for namespaces"),
    pytest.mark.timeout(240),
]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network() as own:
        if not own:
            pytest.skip("missing: the right to have a network of the test's own")
        for address in (HEAD, NODE):
            subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", "lo"], check=True)
        yield


@pytest_asyncio.fixture
async def model() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    server.port = MODEL_SERVER
    await server.up()
    yield server
    await server.down()


def manifest() -> tuple[str, list[str], dict[str, Any]]:
    """The line that the orchestrator's container begins with, its arguments, and the parameters of the head."""
    (patch,) = yaml.safe_load_all((FOLDER / "orchestrator.yaml").read_text())
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["sh", "-c"]
    cluster = next(iter(yaml.safe_load_all((FOLDER / "raycluster.yaml").read_text())))
    return container["command"][2], container["args"], cluster["spec"]["headGroupSpec"]["rayStartParams"]


async def test_agents_of_the_manifests_join_from_the_cluster(tmp_path: Path, model: FakeServer) -> None:
    line, arguments, of_head = manifest()
    key = new_key()
    add_key(tmp_path / "keys.json", record_of(key, role="operate"))
    config = tmp_path / "anywire.yaml"
    text = (FOLDER / "config" / "orchestrator.yaml").read_text()
    for there, here in (
        ("/secrets/clients", str(tmp_path)),
        ("ray-head-svc", HEAD),
        ("model-server", "127.0.0.1"),
    ):
        assert there in text
        text = text.replace(there, here)
    config.write_text(text)
    # On one machine each node is told which address is its own.
    own = line.replace("ray-head-svc", HEAD).replace("ray start", f"ray start --node-ip-address={NODE}")
    assert own.count(HEAD) == own.count(NODE) == 1
    given = shlex.join(each.replace("/config/anywire.yaml", str(config)) for each in arguments)
    of_one_machine = (
        f"--node-ip-address={HEAD} --temp-dir=/dev/shm/ray --object-store-memory=80000000 --include-dashboard=false"
    )
    script = f"""
    set -e
    mount -t tmpfs none /dev/shm
    ray start --head --port=6379 {of_one_machine} --num-cpus=2 >&2
    set -- {given}
    {own}
    """
    assert of_head == {"num-cpus": "0"}, "here the head has to run the agents as well"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
        "UPSTREAM_KEY": "the key of the model server",
    }
    # With the first process of the namespace all others there end.
    orchestrator = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert orchestrator.stdout is not None
        ready = (await asyncio.wait_for(orchestrator.stdout.readuntil(b"ready: "), 2 * PATIENCE)).decode()
        assert ready
        async with client_of(str(key)) as client:
            names = [each["id"] for each in (await client.get("/v1/agents")).json()["data"]]
            assert len(names) == 4
            await until_agents(client, *names)
            asked = {"model": "m1", "messages": [{"role": "user", "content": "Hello"}]}
            answer = await client.post("/v1/chat/completions", json=asked)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-anywire-agent"] in names
        assert {each["Authorization"] for each in model.headers} == {"Bearer the key of the model server"}
    finally:
        orchestrator.kill()
        await orchestrator.wait()
