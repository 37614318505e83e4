"""An MCP server on stdin and stdout in plain Python, up in milliseconds, that behaves as badly as it is told to.

It speaks the handshake of 2025-11-25. Arguments: ``--never`` never answers; ``--deaf`` goes on when its input is
closed and when it gets SIGTERM; ``--pages`` lists tools and resources without end; ``--exit N`` says two lines on
stderr and ends with that status; ``--grandchild FILE`` starts a process that holds its streams, and writes its id to
the file; ``--escaped FILE`` the same, in a session of its own; ``--log FILE`` appends a line for each call;
``--meta FILE`` keeps the `_meta` of the newest one there.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

TOOLS: dict[str, dict[str, Any]] = {
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    "echo": {"type": "object", "properties": {"text": {"type": "string"}}},
    "fail": {"type": "object", "properties": {}},
    "crash": {"type": "object", "properties": {}},
    "hang": {"type": "object", "properties": {}},
    "variable": {"type": "object", "properties": {"name": {"type": "string"}}},
    "noise": {"type": "object", "properties": {}},
    "change": {"type": "object", "properties": {}},
    "unreadable": {"type": "object", "properties": {}},
    "endless": {"type": "object", "properties": {}},
    "against_schema": {"type": "object", "properties": {}},
}
RESULTS = {"against_schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}}
"""What the tools say of their results."""
options = sys.argv[1:]
lock = threading.Lock()
pages = 0
"""How often tools were listed."""


def option(name: str) -> str:
    return options[options.index(name) + 1] if name in options else ""


def send(message: dict[str, Any]) -> None:
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
        sys.stdout.flush()


def text(value: object, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": str(value)}], "isError": is_error}


def described(name: str) -> dict[str, Any]:
    return {"name": name, "description": "x" * 30_000, "inputSchema": {"type": "object"}}


def call(name: str, arguments: dict[str, Any], request_id: object) -> dict[str, Any] | None:
    if option("--log"):
        with Path(option("--log")).open("a") as file:
            file.write(json.dumps([name, arguments]) + "\n")
    match name:
        case "add":
            return text(arguments["a"] + arguments["b"])
        case "echo":
            return text(arguments.get("text", ""))
        case "fail":
            return text("it went wrong", is_error=True)
        case "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            return None
        case "variable":
            return text(os.environ.get(arguments["name"], "(not set)"))
        case "noise":
            with lock:
                sys.stdout.write("this is no message\n" + "{" * 50 + "\n")
                sys.stdout.flush()
            return text("noisy")
        case "change":
            TOOLS["new_tool"] = {"type": "object", "properties": {}}
            send({"method": "notifications/tools/list_changed"})
            return text("changed")
        case "unreadable":
            with lock:
                half_a_letter = '{"content":[{"type":"text","text":"\\ud83d"}]}'
                sys.stdout.write(f'{{"jsonrpc":"2.0","id":{json.dumps(request_id)},"result":{half_a_letter}}}\n')
                sys.stdout.flush()
            return None
        case "endless":
            with lock:
                for _ in range(17):
                    sys.stdout.write("x" * 2**20)
                sys.stdout.flush()
            return None
        case "against_schema":
            return {"content": [], "structuredContent": {"a": "a" * 16 + "!"}}
    return text("new")


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    method, params = request["method"], request.get("params") or {}
    if method == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "plain", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "ping":
        return {}
    if method == "tools/list" and "--pages" in options:
        global pages
        pages += 1
        return {"tools": [described(f"page{pages}"), described("pages")], "nextCursor": str(pages)}
    if method == "resources/list":
        uri = "note:" + "x" * 100_000
        return {"resources": [{"uri": uri, "name": "note"}] * 5, "nextCursor": "further"}
    if method == "tools/list":
        return {
            "tools": [
                {"name": name, "description": f"The tool {name}.", "inputSchema": schema}
                | ({"outputSchema": RESULTS[name]} if name in RESULTS else {})
                for name, schema in TOOLS.items()
            ]
        }
    if method == "tools/call":
        if option("--meta"):
            Path(option("--meta")).write_text(json.dumps(params.get("_meta")))
        if params["name"] == "pages":
            return text(pages)
        if params["name"] not in TOOLS:
            raise LookupError(f"unknown tool {params['name']}")
        return call(params["name"], params.get("arguments") or {}, request["id"])
    raise NotImplementedError


def main() -> None:
    if "--exit" in options:
        print("first line\nlast line", file=sys.stderr, flush=True)
        sys.exit(int(option("--exit")))
    if "--deaf" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--grandchild" in options:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(option("--grandchild")).write_text(str(child.pid))
    if "--escaped" in options:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(option("--escaped")).write_text(str(child.pid))
    print("ready to listen", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "--never" in options or "id" not in request:
            continue
        try:
            result = answer(request)
        except NotImplementedError:
            send({"id": request["id"], "error": {"code": -32601, "message": f"no method {request['method']}"}})
        except Exception as error:
            send({"id": request["id"], "error": {"code": -32602, "message": str(error)}})
        else:
            if result is not None:
                send({"id": request["id"], "result": result})
    while "--deaf" in options:
        time.sleep(600)


main()
