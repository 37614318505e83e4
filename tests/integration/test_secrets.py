"""Known secrets are planted wherever a fleet takes one, and nothing that its processes let out has one of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
from aiohttp import web
from jwt.algorithms import RSAAlgorithm
from tests.integration.fake_openai_server import FakeServer
from tests.integration.planted_secrets import AUDIENCE, ISSUER, Planted
from tests.long_form import SOAK
from tests.patience import PATIENCE

from anywire.cli.shown_arguments import secrets_in
from anywire.keys.key_records import revoke_keys

pytestmark = pytest.mark.timeout(300)


async def refuse(request: web.Request) -> web.StreamResponse:
    """As OpenAI does it: the error repeats the key."""
    given = request.headers.get("Authorization", "")
    return web.json_response(
        {"error": {"message": f"Incorrect API key provided: {given}.", "headers": {"authorization": given}}}, status=401
    )


async def everything_asked(planted: Planted, tokens: dict[str, str]) -> None:
    """Ask for everything that a gateway has, with keys of every kind in every place, also where none belongs."""
    harvest = planted.harvest
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{planted.port}", verify=planted.tls.client(), timeout=PATIENCE
    ) as client:

        async def ask(what: str, method: str, path: str, **given: Any) -> httpx.Response:
            answer = await client.request(method, path, **given)
            harvest[f"{what} {len(harvest)}"] = f"{answer.headers}\n{answer.text}"
            return answer

        async def events() -> None:
            headers = {"authorization": f"Bearer {planted.operator}"}
            async with client.stream("GET", "/v1/events", headers=headers) as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_text():
                    harvest["events"] = harvest.get("events", "") + piece

        following = asyncio.create_task(events())
        question = {"model": "m1", "messages": [{"role": "user", "content": "Hello"}]}
        for name, token in tokens.items():
            for headers in (
                {"authorization": f"Bearer {token}"},
                {"x-api-key": token},
                {"authorization": token},
                {"authorization": f"Basic {token}"},
                {"cookie": f"key={token}"},
            ):
                await ask(f"models for {name}", "GET", "/v1/models", headers=headers)
            await ask(f"a chat for {name}", "POST", "/v1/chat/completions", json=question, headers={"api-key": token})
            socket = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-protocol": f"anywire-key.{token}"}
            await ask(f"a socket for {name}", "GET", "/v1/ws/chat", headers=socket)
            await ask(f"{name} in the path", "GET", f"/v1/models/{token}")
            await ask(f"{name} in the query", "GET", f"/v1/models?api_key={token}")
            await ask(f"no route for {name}", "GET", f"/v1/none/{token}?key={token}")
            operator = {"authorization": f"Bearer {planted.operator}"}
            for body in (
                question | {"model": token},
                question | {"messages": token},
                question | {"max_tokens": token},
                question | {token: 1, "user": token},
            ):
                await ask(f"{name} in the body", "POST", "/v1/chat/completions", json=body, headers=operator)
            await ask(f"{name} as the body", "POST", "/v1/chat/completions", content=token, headers=operator)
        for path in ("/metrics", "/v1/stats", "/v1/agents", "/v1/tasks", "/v1/audit", "/health", "/v1/version", "/v1"):
            answer = await ask(path, "GET", path, headers=operator)
            assert answer.status_code == 200, (path, answer.text)
        answer = await ask("careless", "GET", "/v1/careless", headers=operator)
        assert answer.status_code == 500
        planted.upstream.handler = refuse
        answer = await ask("refused", "POST", "/v1/chat/completions", json=question, headers=operator)
        assert answer.status_code >= 400
        assert "Incorrect API key" in answer.text
        answer = await ask(
            "refused", "POST", "/v1/chat/completions", json=question | {"stream": True}, headers=operator
        )
        revoke_keys(planted.keys, [planted.key.id])
        following.cancel()


async def test_no_secret_is_in_anything_that_is_let_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = FakeServer()
    await upstream.up()
    planted = Planted(tmp_path, upstream)
    jwk = RSAAlgorithm.to_jwk(planted.issuer.public_key(), as_dict=True) | {"kid": "one"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600}
    token = jwt.encode(claims, planted.issuer, "RS256", headers={"kid": "one"})
    planted.secrets["a token of an issuer"] = token
    planted.secrets["the signature of such a token"] = token.rpartition(".")[2]
    try:
        server = await planted.begin("server", "serve", "--config", planted.server())
        await server.says("ready: …")
        right = planted.agent("agent", "agent", http=planted.http_token, grpc=planted.grpc_token)
        wrong = planted.agent("stranger", "stranger", http=planted.wrong_token, grpc=planted.wrong_token)
        await planted.begin("agent", "agent", "--config", right)
        await planted.begin("stranger", "agent", "--config", wrong)
        await server.says("agent agent joined …")
        tokens = {
            "the key": str(planted.key),
            "a wrong key": str(planted.wrong),
            "a forged key": str(planted.forged),
            "a key cut short": str(planted.key)[:-2],
            "a token": token,
            "a token of nobody": token[:-4] + "AAAA",
        }
        planted.secrets["a key cut short"] = planted.key.secret[:-2]
        planted.secrets["a token of nobody"] = tokens["a token of nobody"]
        await everything_asked(planted, tokens)
        url = f"https://127.0.0.1:{planted.port}"
        odd = planted.agent(
            "odd", "agent", f"user:{planted.password}@", http=planted.http_token, grpc=planted.grpc_token
        )
        wrong_variable = {"ANYWIRE_SHUTDOWN_GRACE": planted.environment}
        commands: list[tuple[str, list[str], dict[str, str]]] = [
            ("a wrong variable", ["agent", "--config", right], wrong_variable),
            ("a password", ["agent", "--config", odd], {}),
            ("a key as an argument", ["chat", "hi", "--url", url, "--key", str(planted.operator)], {}),
            ("a wrong key as an argument", ["chat", "hi", "--url", url, "--key", str(planted.wrong)], {}),
            ("a damaged key", ["agents", "--url", url], {"ANYWIRE_API_KEY": str(planted.operator)[:-2]}),
            ("a key as the invite code", ["agents"], {"ANYWIRE_INVITE": str(planted.operator)}),
            ("config", ["config", "--config", str(tmp_path / "server.yaml")], {}),
            ("doctor", ["doctor", "--config", right], {"ANYWIRE_API_KEY": str(planted.operator)}),
            ("audit", ["audit", "verify", str(tmp_path / "log"), "--key", str(planted.audit)], {}),
        ]
        if SOAK:
            commands += [
                ("config of the agent", ["config", "--config", right], {}),
                ("keys", ["keys", "list", "--file", str(planted.keys), "--json"], {}),
                ("the log", ["audit", "show", str(tmp_path / "log")], {}),
            ]
        await asyncio.gather(*(planted.run(name, *given, **variables) for name, given, variables in commands))
    finally:
        planted.reap()
        for program in planted.programs.values():
            await program.kill()
        await upstream.down()
    for path in (tmp_path / "log").rglob("*.jsonl"):
        planted.harvest[str(path)] = path.read_text()
    assert "careless" in planted.harvest["server"]
    assert len(planted.harvest) > 100
    assert planted.found() == []


def test_secrets_among_arguments_are_found() -> None:
    for arguments, shown in (
        ("chat|--key|SECRET|hi", "chat|--key|******|hi"),
        ("chat|--key=SECRET|hi", "chat|--key=******|hi"),
        ("agent|--invite|SECRET", "agent|--invite|******"),
        ("serve|--set|transports.http.token=SECRET|--port|3", "serve|--set|transports.http.token=******|--port|3"),
        ("serve|--set=engine.api_key=SECRET", "serve|--set=engine.api_key=******"),
        ("serve|--set|transports={http: {token: A}}", "serve|--set|transports=" + "*" * 18),
        ("serve|--set|server.port=3|--key|", "serve|--set|server.port=3|--key|"),
        ("keys|create|--label|key", "keys|create|--label|key"),
        ("chat|--key", "chat|--key"),
    ):
        given = arguments.replace("|", "\0").encode() + b"\0"
        hidden = bytearray(given)
        for begin, end in secrets_in(given):
            hidden[begin:end] = b"*" * (end - begin)
        assert hidden[:-1].decode().replace("\0", "|") == shown


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
async def test_a_key_among_the_arguments_is_hidden_from_the_list_of_processes() -> None:
    code = "import sys; from anywire.cli.shown_arguments import hide_secrets as hide; hide(); print(sys.argv); input()"
    command = [sys.executable, "-c", code, "--key", "planted-7KqZx2Wm9R", "last"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"planted-7KqZx2Wm9R" in await process.stdout.readline(), "the process itself still has it"
    assert psutil.Process(process.pid).cmdline()[-3:] == ["--key", "*" * 18, "last"]
    process.stdin.close()
    assert await process.wait() != 2
