"""Requests over the transport under test itself, without HTTP."""

from __future__ import annotations

import asyncio
import time

import msgspec

from anywire.errors import AgentUnavailable, AnywireError
from anywire.messages import Chunk
from anywire.roles.client import Client
from anywire.submission import Submission
from anywire_experiment.load.openai_bodies import Usage
from anywire_experiment.load.rows import Answer
from anywire_experiment.load.spec import ClientPlane
from anywire_experiment.load.target import Question, Target
from anywire_experiment.plan.traffic import CANCELLED

_usage = msgspec.json.Decoder(Usage)


class ClientPlaneTarget(Target):
    """One `anywire.Client` for all the workload's clients, as an application would have."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def open(cls, plane: ClientPlane) -> ClientPlaneTarget:
        """Raises `AnywireError`."""
        client = Client(plane.transport, lease=plane.lease, **plane.options)
        try:
            await client.open()
        except BaseException:
            await client.close()
            raise
        return cls(client)

    async def first_model(self) -> str:
        models = await self._client.models()
        if not models:
            raise AgentUnavailable("the orchestrator offers no model: is there an agent?")
        return models[0]

    async def connect(self, clients: int) -> None:
        await self._client.models()

    async def ask(self, question: Question) -> Answer:
        submission = Submission(
            "chat",
            question.model,
            question.body.decode(),
            question.stream,
            question.priority,
            question.timeout_s,
            session=question.session_name,
        )
        answer = Answer(sent_ns=time.monotonic_ns())
        texts: list[str] = []
        stream = None
        try:
            stream = self._client.submit(submission)
            async with asyncio.timeout(question.patience_s):
                while chunks := await stream.take():
                    _read(answer, chunks, texts, question.stream)
                    if 0 < question.give_up_pieces <= len(answer.piece_ns):
                        answer.outcome = CANCELLED
                        break
        except TimeoutError:
            answer.outcome = question.ended_early()
        except AnywireError as error:
            answer.outcome, answer.origin = error.code, error.origin
        answer.done_ns = time.monotonic_ns()
        answer.first_ns = answer.first_ns or answer.done_ns
        answer.text = "".join(texts)
        if stream is not None:
            stream.cancel("the answer was read, or given up")
            answer.transport, answer.agent = stream.transport, stream.agent_id
            answer.attempts, answer.task_id = stream.attempts, stream.task_id
        return answer

    async def close(self) -> None:
        await self._client.close()


def _read(answer: Answer, chunks: list[Chunk], texts: list[str], streamed: bool) -> None:
    now = time.monotonic_ns()
    for chunk in chunks:
        for text in filter(None, chunk.deltas):
            texts.append(text)
            if streamed:
                answer.first_ns = answer.first_ns or now
                answer.piece_ns.append(now)
        if chunk.usage:
            answer.tokens = _usage.decode(chunk.usage).completion_tokens
