"""The other routers: how each is started with its quickest settings that pass everything on, by turns to each engine.

Access logs are off, and so is what a router does beside it (databases, telemetry). Programs from the registry are
looked for below `home`, each in an environment of its own (`peers.install`).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers.systems import HOST, Command, Place, System, python_command
from peers.workload import MODEL
from reserved import free_port

OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def home() -> Path:
    """The folder below which the routers from the registry are installed."""
    return Path(os.environ.get("PEERS_HOME") or Path(tempfile.gettempdir(), "anywire-peers")).absolute()


def installed(name: str, program: str) -> Path:
    """A program in the environment of the router ``name``."""
    return home() / name / "bin" / program


def version_of(name: str, package: str) -> str:
    """The version of a package in the environment of the router ``name``; empty when it is not there."""
    stem = package.replace("-", "_")
    for each in sorted((home() / name).glob(f"lib/python*/site-packages/{stem}-*.dist-info")):
        return each.name.removesuffix(".dist-info").rpartition("-")[2]
    return ""


class AiohttpProxy(System):
    """See `peers.aiohttp_proxy`."""

    def version(self) -> str:
        return importlib.metadata.version("aiohttp")

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        yield [python_command("peers.aiohttp_proxy", str(place.port), *place.engines)]


class Nginx(System):
    """The usual reverse proxy, with connections to the engines that are kept and without buffers."""

    _CONF = """\
daemon off;
worker_processes auto;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 600;
  keepalive_requests 1000000000;
{temporary}
  upstream engines {{
    {servers}
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {host}:{port};
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

    def missing(self) -> str:
        return "" if self._program() else "no nginx here (a package of the system)"

    def version(self) -> str:
        said = subprocess.run([self._program(), "-v"], capture_output=True, text=True).stderr
        return said.strip().rpartition("/")[2]

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        conf = self._CONF.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=place.folder,
            temporary="\n".join(f"  {kind}_temp_path {place.folder}/{kind};" for kind in kinds),
            servers=" ".join(f"server {engine.removeprefix('http://')};" for engine in place.engines),
            host=HOST,
            port=place.port,
        )
        path = place.folder / "nginx.conf"
        path.write_text(conf)
        yield [
            Command([self._program(), "-c", str(path), "-p", str(place.folder), "-e", str(place.folder / "nginx.log")])
        ]

    @staticmethod
    def _program() -> str:
        return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


class Installed(System):
    """A router from the registry: ``arguments`` are what its ``program`` is started with."""

    def __init__(
        self, name: str, program: str, arguments: Callable[[Place], Sequence[str]], environment: Mapping[str, str]
    ) -> None:
        super().__init__(name)
        self._program, self._arguments, self._environment = program, arguments, environment

    def missing(self) -> str:
        where = installed(self.name, self._program)
        return "" if where.exists() else f"not installed: no {where} (--install {self.name})"

    def version(self) -> str:
        return version_of(self.name, self.name)

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        program = str(installed(self.name, self._program))
        yield [Command([program, *self._arguments(place)], {**OFFLINE, **self._environment})]


def _by_turns(*first: str, log_level: str) -> Callable[[Place], Sequence[str]]:
    """The three routers in Rust have one ancestor, and nearly the same options."""

    def arguments(place: Place) -> Sequence[str]:
        options = {
            "--host": HOST,
            "--port": str(place.port),
            "--policy": "round_robin",
            "--log-level": log_level,
            "--prometheus-host": HOST,
            "--prometheus-port": str(free_port()),
        }
        flat = [each for option in options.items() for each in option]
        return [*first, *flat, "--worker-urls", *place.engines]

    return arguments


def _litellm(place: Place) -> Sequence[str]:
    path = place.folder / "litellm.yaml"
    # A model of its price list: for one that it does not know it does more. JSON is YAML too.
    names = [{"model": "openai/gpt-4o-mini", "api_base": f"{each}/v1", "api_key": "sk-bench"} for each in place.engines]
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": each} for each in names],
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"callbacks": [], "set_verbose": False, "telemetry": False},
        "general_settings": {"disable_spend_logs": True},
    }
    path.write_text(json.dumps(settings))
    options = ["--host", HOST, "--port", str(place.port), "--num_workers", "1", "--telemetry", "False"]
    return ["--config", str(path), *options]


class Dynamo(System):
    """Its frontend, with a worker in place of each engine: it asks workers of its own and no engine behind HTTP."""

    def missing(self) -> str:
        where = installed(self.name, "python")
        return "" if where.exists() else f"not installed: no {where} (--install {self.name})"

    def version(self) -> str:
        return version_of(self.name, "ai-dynamo")

    @contextmanager
    def commands(self, place: Place) -> Generator[Sequence[Command], None, None]:
        python = str(installed(self.name, "python"))
        environment = OFFLINE | {
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(place.folder / "discovery"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_LOG": "off",
        }
        (place.folder / "discovery").mkdir()
        options = ["--http-host", HOST, "--http-port", str(place.port), "--router-mode", "round-robin"]
        frontend = Command([python, "-m", "dynamo.frontend", *options], environment)
        worker = python_command("peers.dynamo_worker", python=python)
        yield [frontend, *[worker._replace(environment={**worker.environment, **environment})] * len(place.engines)]


def routers() -> list[System]:
    """All of them, the quickest kinds first."""
    return [
        Nginx("nginx"),
        AiohttpProxy("aiohttp-proxy"),
        Installed("vllm-router", "vllm-router", _by_turns(log_level="warning"), {}),
        Installed("smg", "smg", _by_turns("launch", log_level="warn"), {}),
        Installed("sglang-router", "sglang-router", _by_turns("launch", log_level="warn"), {}),
        Dynamo("dynamo"),
        Installed(
            "litellm",
            "litellm",
            _litellm,
            {
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_LOG": "ERROR",
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            },
        ),
    ]
