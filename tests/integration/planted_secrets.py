"""A fleet whose every setting that can hold a secret holds one, and what its processes let out."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml
import zmq.auth
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.integration.fake_openai_server import FakeServer
from tests.integration.test_docs import Program
from tests.integration.tls_files import TlsFiles
from tests.patience import PATIENCE

from anywire.identities.identity_proof import Identity
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import KeyText, new_key
from reserved import free_ports

ISSUER, AUDIENCE = "https://login.example.org", "anywire"

CARELESS = '''
"""A service that says what it should not, as the code of others does."""
import logging
import pydantic
from anywire.hookspecs import hookimpl
from anywire.route import Route
from anywire.service import Service

class Config(pydantic.BaseModel):
    token: pydantic.SecretStr

class Careless(Service):
    name = "careless"
    Config = Config

    async def start(self, context):
        context.routes.add(Route("GET", "/careless", self.answer))
        logging.getLogger("careless").warning("I was given %s", self.config.token.get_secret_value())

    async def answer(self, request):
        try:
            raise KeyError(self.config.token.get_secret_value())
        except KeyError as error:
            told = f"{self.config} {self.config.token.get_secret_value()} {dict(request.headers)}"
            raise RuntimeError(told) from error

    async def close(self): ...

@hookimpl
def anywire_register(kind):
    return {"careless": Careless} if kind == "services" else None
'''


def body(pem: bytes) -> str:
    """A line in the middle of a private key."""
    lines = pem.decode().strip().splitlines()
    return lines[len(lines) // 2]


class Planted:
    """The files of one fleet in ``folder``. ``secrets`` are what must not be found, by what they are."""

    def __init__(self, folder: Path, upstream: FakeServer) -> None:
        self.folder, self.upstream = folder, upstream
        self.key, self.wrong, self.operator = new_key(), KeyText("abcdefghij23", new_key().secret), new_key()
        self.forged = KeyText(self.key.id, new_key().secret)
        self.keys = folder / "keys.json"
        for key, role in ((self.key, "use"), (self.operator, "operate")):
            add_key(self.keys, record_of(key, label="planted", tenant="lab", role=role))  # type: ignore[arg-type]
        self.tls = TlsFiles(folder / "tls")
        self.issuer = rsa.generate_private_key(65537, 2048)
        self.http_token, self.grpc_token, self.wrong_token = (f"tok-{x}-Hq3xV9pL2mT8wY5k" for x in "hgw")
        self.upstream_key, self.password = "up-7KqZx2Wm9Rt4Yb8N", "pw-4Jd8Sx1Vf6Gh3Kz0"
        self.careless, self.environment = "ca-5Bn2Mq9Xc7Lw1Pj6", "en-8Uy3Ti6Ro1We5Qa2"
        curve = folder / "curve"
        curve.mkdir(mode=0o700)
        for name in ("hub", "agent", "stranger"):
            _, made = zmq.auth.create_certificates(curve, name)
            Path(made).chmod(0o600)
        self.audit = folder / "audit-key"
        self.audit.touch(0o600)
        self.audit.write_text("au-0Pl9Ok8Ij7Uh6Yg5Tf4Rd3Es2Wa1Qz")
        self.secrets = {
            "the key of a client": self.key.secret,
            "the key of an operator": self.operator.secret,
            "a key that is not known": self.wrong.secret,
            "a key with a wrong secret": self.forged.secret,
            "the token of http": self.http_token,
            "the token of grpc": self.grpc_token,
            "a wrong token": self.wrong_token,
            "the key of the upstream server": self.upstream_key,
            "a password in an address": self.password,
            "the token of a plugin": self.careless,
            "a secret in the environment": self.environment,
            "the key of the audit log": self.audit.read_text(),
            "the private key of TLS": body(self.tls.key.read_bytes()),
        }
        for name in ("hub", "agent", "stranger"):
            _, secret = zmq.auth.load_certificate(curve / f"{name}.key_secret")
            assert secret is not None
            self.secrets[f"the CURVE key of the {name}"] = secret.decode()
        self.identities = {name: folder / f"{name}.pem" for name in ("hub", "agent")}
        for name, path in self.identities.items():
            Identity.from_file(path)
            self.secrets[f"the identity of the {name}"] = body(path.read_bytes())
        self.curve = curve
        ports = iter(free_ports(7))
        self.port = next(ports)
        self._addresses = {
            name: {f"{plane}_addresses": f"{scheme}127.0.0.1:{next(ports)}" for plane in ("agent", "client")}
            for name, scheme in (("http", "http://"), ("grpc", ""), ("zeromq", "tcp://"))
        }
        self.programs: dict[str, Program] = {}
        self.harvest: dict[str, str] = {}
        (folder / "careless.py").write_text(CARELESS)

    def transports(self, end: str, http: str, grpc: str) -> dict[str, Any]:
        named = {"secret_key": str(self.curve / f"{end}.key_secret")}
        if end == "hub":
            named["allowed_keys"] = [str(self.curve / "agent.key")]  # type: ignore[assignment]
        else:
            named["server_key"] = str(self.curve / "hub.key")
        more = {"http": {"token": http}, "grpc": {"token": grpc}, "zeromq": named}
        return {name: {**addresses, **more[name]} for name, addresses in self._addresses.items()}

    def file(self, name: str, **sections: Any) -> str:
        path = self.folder / f"{name}.yaml"
        path.touch(0o600)
        path.write_text(yaml.safe_dump({"log_level": "debug", **sections}))
        return str(path)

    def server(self) -> str:
        return self.file(
            "server",
            transports=self.transports("hub", self.http_token, self.grpc_token),
            identity={"key": str(self.identities["hub"])},
            server={
                "port": self.port,
                "tls": {"certificate": str(self.tls.certificate), "key": str(self.tls.key)},
            },
            access={
                "keys": str(self.keys),
                "jwt": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(self.folder / "jwks.json")},
            },
            services={
                "audit": {"folder": str(self.folder / "log"), "key_file": str(self.audit), "tasks": True},
                "careless": {"token": self.careless},
            },
            plugins=[str(self.folder / "careless.py")],
        )

    def agent(self, name: str, end: str, user: str = "", **tokens: str) -> str:
        url = self.upstream.url.replace("://", f"://{user}")
        return self.file(
            name,
            transports=self.transports(end, **tokens),
            identity={"key": str(self.identities["agent"])},
            agent={"id": name},
            engine={"name": "openai", "base_url": url, "api_key": self.upstream_key, "refresh_interval": 0},
            log_format="json",
        )

    def variables(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANYWIRE_")}
        return kept | {"COLUMNS": "200", "NO_COLOR": "1", "ANYWIRE_CA": str(self.tls.ca)} | more

    async def begin(self, name: str, *arguments: str, **variables: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anywire.cli", *arguments,
            cwd=self.folder,
            env=self.variables(**variables),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.programs[name] = Program(process)
        return self.programs[name]

    async def run(self, name: str, *arguments: str, **variables: str) -> int:
        """Run a command that ends; what it writes joins the harvest."""
        program = await self.begin(name, *arguments, **variables)
        code = await asyncio.wait_for(program.process.wait(), PATIENCE)
        await program.ended()
        return code

    def reap(self) -> None:
        """Take what the processes have written and what the list of processes shows of them."""
        for name, program in self.programs.items():
            self.harvest[name] = "\n".join(line for (line,) in program.lines.events)
            if program.process.returncode is None:
                one = psutil.Process(program.process.pid)
                for each in (one, *one.children(recursive=True)):
                    self.harvest[f"arguments of {name} ({each.pid})"] = Path(f"/proc/{each.pid}/cmdline").read_text()

    def found(self) -> list[str]:
        """Which secret is where."""
        return [
            f"{secret} in {place}: …{text[max(0, at - 150) : at + 60]}…"
            for secret, value in self.secrets.items()
            for place, text in self.harvest.items()
            if (at := text.find(value)) >= 0 or (at := _unescaped(text).find(value)) >= 0
        ]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
