"""The clients of a cell: streams asked at once through the gateway, and what each of them saw.

They come by the gateway's Unix socket, which reaches an orchestrator in another network namespace too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from anywire_experiment.fault_table.observed import Seen
from anywire_experiment.run.managed import CellFailed

_ROOT = "http://orchestrator/v1"


class Round:
    """Streams that were asked at once."""

    def __init__(self, count: int) -> None:
        self.seen = [Seen() for _ in range(count)]
        self._asking: list[asyncio.Task[None]] = []
        self._waits: list[tuple[int, asyncio.Event]] = []

    def begin(self, ask: Callable[[Seen, int], Any]) -> None:
        self._asking = [asyncio.create_task(ask(seen, number)) for number, seen in enumerate(self.seen)]

    async def under_way(self, tokens: int) -> None:
        """Wait until each has brought so many tokens, or has ended."""
        reached = asyncio.Event()
        self._waits.append((tokens, reached))
        self.moved()
        await reached.wait()

    async def ended(self) -> None:
        await asyncio.gather(*self._asking)

    def moved(self) -> None:
        """One of them has brought a token, or has ended."""
        for tokens, reached in self._waits:
            if all(each.ended_ns or len(each.piece_ns) >= tokens for each in self.seen):
                reached.set()

    async def close(self) -> None:
        for each in self._asking:
            each.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


class Clients:
    """Ask the orchestrator behind a Unix socket; each gives up after ``patience`` seconds. An asynchronous context
    manager: leaving it ends all streams."""

    def __init__(self, socket: Path, patience: float) -> None:
        self._model, self._patience = "", patience
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        self._rounds: list[Round] = []

    async def __aenter__(self) -> Clients:
        """Learn which model there is: the first is the one that is asked. Raises `CellFailed` when there is none."""
        try:
            async with asyncio.timeout(self._patience), self._session.get(f"{_ROOT}/models") as response:
                self._model = (await response.json())["data"][0]["id"]
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            await self._session.close()
            raise CellFailed(f"the gateway does not tell its models: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._rounds:
            await each.close()
        await self._session.close()

    def ask(self, prompts: Sequence[str], tokens: int) -> Round:
        """A stream for each of ``prompts``, of ``tokens`` tokens, from now on."""
        asked = Round(len(prompts))
        self._rounds.append(asked)

        async def one(seen: Seen, number: int) -> None:
            await self._stream(asked, seen, prompts[number], tokens)

        asked.begin(one)
        return asked

    async def ask_background(self, prompt: str) -> tuple[int, str]:
        """Ask for an answer that is fetched later: the status, 0 for none, and the code of an error."""
        body = self._body(prompt, 1) | {"stream": False}
        headers = {"x-anywire-background": "true"}
        try:
            async with (
                asyncio.timeout(self._patience),
                self._session.post(f"{_ROOT}/chat/completions", json=body, headers=headers) as response,
            ):
                return response.status, _code(await response.read())[0]
        except (aiohttp.ClientError, OSError) as error:
            return 0, str(error)

    def _body(self, prompt: str, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self._model, "messages": messages, "max_tokens": tokens, "stream": True, "temperature": 0}

    async def _stream(self, asked: Round, seen: Seen, prompt: str, tokens: int) -> None:
        seen.sent_ns = time.monotonic_ns()
        pieces: list[str] = []
        try:
            async with (
                asyncio.timeout(self._patience),
                self._session.post(f"{_ROOT}/chat/completions", json=self._body(prompt, tokens)) as response,
            ):
                seen.status = response.status
                seen.agent = response.headers.get("x-anywire-agent", "")
                seen.transport = response.headers.get("x-anywire-transport", "")
                if response.status != 200:
                    seen.outcome, seen.message = _code(await response.read())
                    return
                async for line in response.content:
                    self._take(asked, seen, pieces, line)
        except TimeoutError:
            seen.outcome = "timeout"
        except (aiohttp.ClientError, OSError) as error:
            seen.outcome, seen.message = "connection", str(error)
        finally:
            seen.outcome = seen.outcome or "no_end"
            seen.text, seen.ended_ns = "".join(pieces), time.monotonic_ns()
            asked.moved()

    def _take(self, asked: Round, seen: Seen, pieces: list[str], line: bytes) -> None:
        """One line of the event stream."""
        if not line.startswith(b"data: "):
            return
        if line.strip() == b"data: [DONE]":
            seen.outcome = seen.outcome or "ok"
            return
        try:
            event = json.loads(line[6:])
            text = "".join(each["delta"].get("content") or "" for each in event.get("choices", ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            seen.outcome = seen.outcome or "bad_event"
            return
        if event.get("error"):
            seen.outcome, seen.message = _code(line[6:])
        if text:
            pieces.append(text)
            seen.piece_ns.append(time.monotonic_ns())
            asked.moved()


def _code(body: bytes) -> tuple[str, str]:
    """The code and the message of an error body; both empty where it is none."""
    try:
        error = json.loads(body).get("error") or {}
        return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
    except (ValueError, AttributeError):
        return "bad_json", ""
