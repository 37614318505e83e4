"""Answers requests to agents: each becomes a task of the pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial

import msgspec

from anywire import errors
from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import AnywireError
from anywire.metric import Metric
from anywire.submission import Submission
from anywire_service_deliberation.request import is_deliberation
from anywire_service_deliberation.roles_and_rubrics import Library
from anywire_service_nats.config_inbound import WorkerConfig
from anywire_service_nats.envelopes import NotUnderstood, decode
from anywire_service_nats.listening.callers import Callers
from anywire_service_nats.listening.dead_letters import DeadLetters
from anywire_service_nats.listening.held import Held
from anywire_service_nats.listening.listener import Durable, Listener, Source
from anywire_service_nats.outgoing import Outgoing
from anywire_service_nats.part import Part
from anywire_service_nats.requests.agent_request import (
    AgentRequest,
    NotARequest,
    completed,
    failed,
    read_agent_request,
    submission_of,
)
from anywire_service_nats.requests.serving import MOST_PUT_OFF, OtherRequest, Serving, Work
from anywire_service_nats.subjects import AGENT_REQUESTS

log = logging.getLogger(__name__)

SUFFIX = "-worker"
"""What the producer of its answers has after the service's: collectors count them, this service's own too."""


class Worker(Part):
    """Takes requests while this orchestrator runs. What is under way at its end is given back. Raises `ConfigError` for
    roles that cannot be read."""

    def __init__(
        self,
        config: WorkerConfig,
        context: Context,
        source: Source,
        serving: Serving,
        letters: DeadLetters,
        producer: str,
    ) -> None:
        self._config, self._context, self._serving, self._letters = config, context, serving, letters
        self._producer = f"{producer}{SUFFIX}"
        self._callers = Callers(context.access, config, "services.nats.worker")
        self._library = Library.load(config.roles)
        self._listener = Listener(
            source,
            Durable(config.durable, AGENT_REQUESTS, config.redelivery, MOST_PUT_OFF),
            self._handle,
            config.at_once,
        )

    async def start(self) -> None:
        self._listener.start()

    def gate_closed(self) -> None:
        self._listener.stop()

    async def close(self) -> None:
        await self._listener.close()

    def metrics(self) -> Iterable[Metric]:
        for outcome, count in self._serving.counts.items():
            text = "Requests to agents, by what became of them."
            yield Metric("agent_requests", text, count, {"outcome": outcome}, counter=True)
        yield Metric("running_agent_requests", "Requests to agents that are worked on.", self._listener.running)

    async def _handle(self, held: Held) -> float | None:
        envelope = decode(held.data, held.subject, held.headers)
        if isinstance(envelope, NotUnderstood):
            return await self._letters.keep(held, envelope.reason, "worker")
        try:
            request = read_agent_request(envelope)
        except NotARequest as error:
            return await self._letters.keep(held, str(error), "worker")
        work: Work
        try:
            caller = self._callers.of(held.headers)
        except errors.Unauthenticated as error:
            # Who shows no key can neither take a name away from who does, nor answer as the same agent.
            request = msgspec.structs.replace(request, owner=f"refused {held.stream}:{held.sequence}:{held.at}")
            work = partial(_refuse, error)
        else:
            request = msgspec.structs.replace(request, owner=caller.tenant or caller.id)
            work = partial(self._answer, request, caller)
        began = time.time()

        def refused(error: AnywireError) -> Outgoing:
            now = time.time()
            return failed(request, error, producer=self._producer, now=now, seconds=now - began)

        try:
            _, again = await self._serving.serve(request.key, request.digest, work, refused)
        except OtherRequest as error:
            return await self._letters.keep(held, str(error), "worker")
        return again

    async def _answer(self, request: AgentRequest, caller: Caller) -> Outgoing:
        submission = self._submission(request, caller)
        began = time.time()
        stream = self._context.submit(submission)
        try:
            chunk = await stream.result()
        except BaseException:
            stream.cancel("the request is given back")
            raise
        if not "".join(chunk.deltas).strip():
            raise errors.EngineFailed("the answer is empty")
        now = time.time()
        return completed(
            request,
            chunk,
            producer=self._producer,
            now=now,
            seconds=now - began,
            model=stream.model or submission.model,
            agent=stream.agent_id,
        )

    def _submission(self, request: AgentRequest, caller: Caller) -> Submission:
        """Raises `InvalidRequest` for a role that nobody knows, and `ModelNotFound` while no model is served."""
        role = self._library.role(request.role)
        model = self._config.model or first_model(self._context, caller)
        return submission_of(
            request,
            role.prompt,
            model,
            caller,
            most_tokens=self._config.max_tokens,
            most_seconds=self._config.timeout,
        )


async def _refuse(error: AnywireError) -> Outgoing:
    raise error


def first_model(context: Context, caller: Caller) -> str:
    """The first model, by name, that agents serve for chats. Raises `ModelNotFound` while there is none."""
    for model, offers in sorted(context.offers(caller).items()):
        if not is_deliberation(model) and any(
            not agent.startswith("service ") and offer.takes_tasks and (not offer.kinds or "chat" in offer.kinds)
            for agent, offer in offers
        ):
            return model
    raise errors.ModelNotFound("no model is served now that could answer: set services.nats.worker.model, or wait")
