"""The gateway ``grpc`` beside the deliberation bench, and a client of it; for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from tests.deliberation.deliberation_bench import bench

from anywire.testing.patience import PATIENCE
from anywire.testing.service_bench import ServiceBench
from anywire_gateway_grpc import GrpcGateway, GrpcGatewayConfig
from anywire_gateway_grpc import orchestrator_pb2 as wire
from anywire_gateway_grpc import ray_executor_pb2 as executor
from anywire_service_deliberation.deliberations import KeptDeliberations

ORCHESTRATOR = "fleet.orchestrator.v1.OrchestratorService"
EXECUTOR = "fleet.ray_executor.v1.RayExecutorService"
LAB = (("x-anywire-tenant", "lab"),)
"""What makes a client of this machine the tenant of `deliberation_bench.ANN`."""
ANSWERS = {
    **{name: getattr(wire, f"{name}Response") for name in (
        "Deliberate", "GetDeliberationResult", "Orchestrate", "RegisterAgent", "UnregisterAgent", "CreateCouncil",
        "ListCouncils", "DeleteCouncil", "GetStatus", "GetMetrics")},
    "DeliberateForBacklogReview": wire.DeliberateResponse,
    "StreamDeliberation": wire.DeliberationUpdate,
}  # fmt: skip


class Client:
    """Calls methods by their names, as the tenant ``lab`` unless ``metadata`` is other."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = LAB) -> None:
        self.channel, self.metadata = channel, metadata

    def call(self, name: str, asked: Message, *, service: str = ORCHESTRATOR, timeout: float | None = PATIENCE) -> Any:
        """The call, to be awaited."""
        answer = getattr(executor, _executors(name)) if service == EXECUTOR else ANSWERS[name]
        method: Callable[..., Any] = self.channel.unary_unary(
            f"/{service}/{name}", type(asked).SerializeToString, answer.FromString
        )
        return method(asked, metadata=self.metadata, timeout=timeout)

    def stream(self, asked: Message) -> Any:
        method: Callable[..., Any] = self.channel.unary_stream(
            f"/{ORCHESTRATOR}/StreamDeliberation", type(asked).SerializeToString, wire.DeliberationUpdate.FromString
        )
        return method(asked, metadata=self.metadata, timeout=PATIENCE)

    def raw(self, path: str, body: bytes = b"") -> Any:
        """A call with bytes."""
        method: Callable[..., Any] = self.channel.unary_unary(path, None, None)
        return method(body, metadata=self.metadata, timeout=PATIENCE)

    async def result(self, task_id: str = "q-1") -> wire.GetDeliberationResultResponse:
        asked = wire.GetDeliberationResultRequest(task_id=task_id)
        found: wire.GetDeliberationResultResponse = await self.call("GetDeliberationResult", asked)
        return found


def _executors(name: str) -> str:
    return "ExecuteDeliberationResponse" if name.startswith("Execute") else f"{name}Response"


def channel_to(
    gateway: GrpcGateway, credentials: grpc.ChannelCredentials | None = None, *more: tuple[str, int]
) -> grpc.aio.Channel:
    """``more`` are further options of the channel."""
    target = gateway.address.partition("://")[2]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *more]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


@asynccontextmanager
async def listening(served: ServiceBench, **settings: Any) -> AsyncIterator[GrpcGateway]:
    gateway = GrpcGateway(GrpcGatewayConfig(**{"port": 0, "shutdown_grace": 0.0, **settings}))
    await gateway.start(served.context("grpc"))
    try:
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def serving(
    folder: Path, clock: Any = None, gateway: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Client, KeptDeliberations, GrpcGateway]]:
    """``gateway`` has the gateway's settings, ``settings`` are the bench's."""
    async with (
        bench(folder, clock, **settings) as (served, kept),
        listening(served, **gateway or {}) as opened,
        channel_to(opened) as channel,
    ):
        yield Client(channel), kept, opened


def question(task_id: str = "q-1", **members: Any) -> wire.DeliberateRequest:
    asked = {"task_description": "Reverse a list.", "role": "DEV", "num_agents": 3, **members}
    asked.setdefault("constraints", wire.TaskConstraints(rubric="clarity\ntruth"))
    return wire.DeliberateRequest(task_id=task_id, **asked)
