"""An agent on this machine, asked by its own routes (`anywire_engine_models.local_api`)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from anywire.errors import BY_CODE, AgentUnavailable, AnywireError
from anywire_engine_models.local_api.records import LocalApiRecord

TIMEOUT = 5.0
"""Seconds until the agent must take a request; what it answers may take any time."""


class RoutesOfAgent:
    """See `anywire_engine_models.cli.where.Models`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        path = f"/v1/commands/{quote(name, safe='')}"
        async with self._client.stream("POST", path, json=dict(arguments)) as answer:
            if answer.is_error:
                raise _told(await answer.aread())
            async for line in answer.aiter_lines():
                try:
                    result = json.loads(line)
                except ValueError as error:
                    raise AgentUnavailable(f"what listens at {answer.url} gave no answer of an agent") from error
                if isinstance(result, dict) and result.keys() == {"error"}:
                    raise _told(line)
                yield result


@asynccontextmanager
async def opened(record: LocalApiRecord) -> AsyncIterator[RoutesOfAgent]:
    """The routes that ``record`` tells. Raises `AgentUnavailable` when the agent does not answer, or answers no
    more."""
    headers = {"authorization": f"Bearer {record.token}"}
    patience = httpx.Timeout(TIMEOUT, read=None)
    try:
        async with httpx.AsyncClient(base_url=record.url, headers=headers, timeout=patience, trust_env=False) as client:
            yield RoutesOfAgent(client)
    except httpx.TransportError as error:
        raise AgentUnavailable(
            f"the agent at {record.url} (pid {record.pid}) does not answer: {error or type(error).__name__}"
        ) from error


def _told(text: str | bytes) -> AnywireError:
    """The error that an answer tells."""
    try:
        told = json.loads(text)["error"]
        return BY_CODE.get(str(told.get("code")), AnywireError)(str(told["message"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return AnywireError("the agent answered with what is no error of its routes")
