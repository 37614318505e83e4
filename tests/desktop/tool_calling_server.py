"""A llama-server that is none, for tests: it thinks, asks for the first tool it is offered, and repeats its result.

It takes the options of a llama-server and heeds ``--port`` alone. Without tools it repeats the number of messages.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def deltas(asked: dict[str, Any]) -> list[dict[str, Any]]:
    messages = asked["messages"]
    if messages[-1]["role"] == "tool":
        return [{"content": "The tool says "}, {"content": messages[-1]["content"]}]
    if not asked.get("tools"):
        return [{"reasoning_content": "I count"}, {"content": f"{len(messages)} messages"}]
    function: dict[str, Any] = asked["tools"][0]["function"]
    given = json.dumps(dict.fromkeys(function["parameters"].get("properties", {}), 20))
    call: dict[str, Any] = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": function["name"], "arguments": ""},
    }
    return [
        {"reasoning_content": "a tool is needed"},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": given[:3]}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": given[3:]}}]},
    ]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"{}", "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = deltas(asked)
        reason = "tool_calls" if any("tool_calls" in each for each in said) else "stop"
        choices: list[dict[str, Any]] = [{"index": 0, "delta": each, "finish_reason": None} for each in said]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        events = [f"data: {json.dumps({'choices': [each]})}\n\n" for each in choices]
        self._answer("".join([*events, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is logged."""


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
