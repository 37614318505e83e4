"""Fleets whose page a browser opens: ``anywire up`` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from anywire.testing.patience import PATIENCE

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
"""A name that would run as a script where it became markup."""


class PageFleet:
    """A running fleet at ``url``; ``client`` asks it, with a key where one was given."""

    def __init__(
        self, url: str, process: subprocess.Popen[str], client: httpx.Client, environment: dict[str, str]
    ) -> None:
        self.url, self.process, self.client, self.environment = url, process, client, environment

    def chat(self, text: str = "hello", model: str = "synthetic", **more: Any) -> httpx.Response:
        """Ask for a whole answer."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)

    @contextmanager
    def streaming(self, text: str = "hello", model: str = "synthetic", **more: Any) -> Iterator[str]:
        """A stream that is open; gives the id of its task."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **more}
        with self.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            answer.raise_for_status()
            yield answer.headers["x-anywire-task"]

    def agents(self) -> list[dict[str, Any]]:
        agents: list[dict[str, Any]] = self.client.get("/v1/agents").json()["data"]
        return agents

    def anywire(self, *arguments: str) -> str:
        """What another command of the same user prints."""
        command = [sys.executable, "-m", "anywire.cli", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=self.environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def page_fleet(folder: Path, *, key: str = "", arguments: tuple[str, ...] = (), **settings: Any) -> Iterator[PageFleet]:
    """A fleet with these settings, over the transport ``memory`` unless they name another. ``key`` is that of its
    `PageFleet.client`."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, parents=True)
    defaults = {"transports": {"memory": {}}, "engine": {"name": "synthetic"}, "server": {"port": 0}}
    config = folder / "anywire.yaml"
    config.write_text(json.dumps(defaults | settings))
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ANYWIRE_")}
    environment |= {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "anywire.cli", "up", "--config", str(config), *arguments]
    log = (folder / "log").open("w")
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("ready:"), (ready, (folder / "log").read_text())
            url = next(word for word in ready.split() if word.startswith("http://"))
            headers = {"authorization": f"Bearer {key}"} if key else {}
            with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
                yield PageFleet(url, process, client, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
