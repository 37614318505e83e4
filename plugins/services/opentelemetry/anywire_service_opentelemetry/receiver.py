"""The receiver that speaks OTLP over HTTP, as it is asked with one request after the other."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from anywire.errors import ConfigError
from anywire.secrecy import without_secrets

Signal = Literal["traces", "metrics", "logs"]
AGAIN = frozenset((429, 502, 503, 504))
"""Statuses after which OTLP has a request sent again."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""
SHOWN = 200
"""Characters of what a receiver says that are logged."""
LONGEST_PAUSE = 300.0


class Outcome(NamedTuple):
    """``fault`` is empty where it was taken. ``again``: it may be sent again, ``after`` seconds later if that is not 0.
    ``rejected`` are the parts that were not taken of a request that was, ``said`` is why."""

    fault: str = ""
    again: bool = False
    after: float = 0.0
    rejected: int = 0
    said: str = ""


class Receiver:
    """Open it before `send`; close it."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], ca: Path | None, timeout: float) -> None:
        self._endpoint, self._ca = endpoint, ca
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Raises `ConfigError` for a certificate that cannot be read. Connects to nobody yet."""
        secure: ssl.SSLContext | bool = True
        if self._ca is not None:
            try:
                secure = ssl.create_default_context(cafile=str(self._ca.expanduser()))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"services.opentelemetry.ca: {self._ca} is no certificate: {error}") from error
        connector = aiohttp.TCPConnector(limit=4, ssl=secure)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=self._headers)

    async def send(self, signal: Signal, request: Message) -> Outcome:
        """Send a request. It raises nothing but what cancels it."""
        session = self._session
        if session is None:
            return Outcome("it is closed")
        url = f"{self._endpoint}/v1/{signal}"
        try:
            async with session.post(url, data=request.SerializeToString(), allow_redirects=False) as response:
                body = await _read(response.content)
        except TimeoutError:
            return Outcome(f"it did not answer within {self._timeout.total:g} s", again=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(without_secrets(f"{type(error).__name__}: {error}")[:SHOWN], again=True)
        if 200 <= response.status < 300:
            return _taken(signal, body)
        said = without_secrets(body[:SHOWN].decode(errors="replace"))
        again = response.status in AGAIN
        return Outcome(f"it answered {response.status} {said!r}", again, _after(response) if again else 0.0)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The beginning of an answer; the rest of one that is too long is not waited for."""
    found = b""
    async for block in content.iter_any():
        found += block
        if len(found) > MAX_ANSWER:
            break
    return found[:MAX_ANSWER]


def _after(response: aiohttp.ClientResponse) -> float:
    try:
        return min(max(0.0, float(response.headers.get("Retry-After", "0"))), LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _taken(signal: Signal, body: bytes) -> Outcome:
    """What is said in the answer to a request that was taken, in part at least."""
    try:
        match signal:
            case "traces":
                part = ExportTraceServiceResponse.FromString(body).partial_success
                return Outcome(rejected=max(0, part.rejected_spans), said=part.error_message[:SHOWN])
            case "metrics":
                points = ExportMetricsServiceResponse.FromString(body).partial_success
                return Outcome(rejected=max(0, points.rejected_data_points), said=points.error_message[:SHOWN])
            case "logs":
                lines = ExportLogsServiceResponse.FromString(body).partial_success
                return Outcome(rejected=max(0, lines.rejected_log_records), said=lines.error_message[:SHOWN])
    except DecodeError:
        return Outcome()  # whatever it says, it has taken them
