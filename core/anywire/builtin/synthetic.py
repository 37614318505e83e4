"""The synthetic engine: known answers at known times, so that any two runs can be compared token by token.

The text depends on the original prompt and the seed alone (the request's ``seed``, else the configured one);
``max_tokens`` and ``stop`` cut it, ``resume`` makes it go on where the delivered text ends. Several choices and
prompts, log probabilities, tool calls and JSON by a schema are as deterministic; what is not supported is refused by
name (`anywire.builtin.synthetic_request`). A tool is called when ``tool_choice`` asks for it, or when the last message
is a user's that says the tool's name; its arguments are what its schema describes. Times are drawn from given
distributions by a generator seeded the same way, and kept on a schedule from the start of the task, so that the
event loop's own delays do not add up.

What it offers is settable, and so is the state of its models: one that is stopped and on demand is loaded by its first
task, which takes ``loading`` and is told as progress.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import ClassVar, cast, get_args

import msgspec
import pydantic

from anywire.builtin.distribution import Distribution, Drawn
from anywire.builtin.synthetic_choices import Choice, named_in, seed_of
from anywire.builtin.synthetic_request import (
    MAX_ANSWER_CHARS,
    Asked,
    Body,
    asked,
    decode_body,
    inputs_of,
    last_user_text,
    prompt_text,
    stop_texts,
    too_long,
)
from anywire.builtin.synthetic_whole import WholeAnswers
from anywire.clock import SystemClock
from anywire.demand import beyond_text
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import InvalidRequest
from anywire.large_body import LARGE_BYTES, PIECE_BYTES, read_large_body
from anywire.messages import WHOLE_KINDS, Kind, TaskRequest, WholeKind
from anywire.offers import Offer, OfferState
from anywire.transport import MAX_MESSAGE_BYTES

WORDS = (
    "the a of to and in that it is was for on with as at by from or an be this which one had not but what all were "
    "when we there can more time over only new some could other than then them these two may first any my now such "
    "like our even most made after also did many must through back years where much your way well down should"
).split()


class SyntheticConfig(pydantic.BaseModel):
    """A bare number stands for a constant."""

    model_config = pydantic.ConfigDict(extra="forbid")

    models: list[str] = pydantic.Field(default=["synthetic"], min_length=1, description="Names of the models to offer.")
    ttft: Drawn = pydantic.Field(default=Distribution(mean=0), description="Time to the first token in milliseconds.")
    itl: Drawn = pydantic.Field(default=Distribution(mean=0), description="Time between two tokens in milliseconds.")
    slow_share: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of attempts that take `slow_factor` times as long; drawn by seed, prompt and number of the "
        "attempt, so that a second attempt of a request may be quick.",
    )
    slow_factor: float = pydantic.Field(
        default=10.0, ge=1, allow_inf_nan=False, description="Times as long as others that slow attempts take."
    )
    length: Drawn = pydantic.Field(default=Distribution(mean=20), description="Tokens in an answer.")
    seed: int = pydantic.Field(default=0, description="Seed of texts and times where the request names none.")
    embedding_size: int = pydantic.Field(default=64, ge=1, le=16_384, description="Numbers in an embedding.")
    kinds: list[Kind] = pydantic.Field(
        default_factory=list, description="Kinds of tasks that the models are offered for; empty offers all."
    )
    features: dict[str, bool] = pydantic.Field(
        default_factory=dict, description="Features that the offers name (`vision: false`); others are unknown."
    )
    context: int = pydantic.Field(default=0, ge=0, le=2**31 - 1, description="Context that the offers name in tokens.")
    digest: str = pydantic.Field(default="", max_length=256, description="Name of the weights in the offers.")
    state: OfferState = pydantic.Field(default="ready", description="State of the models at start.")
    on_demand: bool = pydantic.Field(default=False, description="Load a stopped model when its first task comes.")
    loading: Drawn = pydantic.Field(
        default=Distribution(mean=0), description="Time to load a model on demand in milliseconds."
    )


MAX_RESUMED_BYTES = 4 * 1024 * 1024
"""Bytes of a body whose answer can be resumed: in a larger one it takes long to see what it asks for."""
MAX_NUMBERS = 2_000_000
"""Numbers in the embeddings of one answer."""
MAX_DIMENSIONS = 16_384
"""Numbers in one embedding."""
CHOICES_AT_ONCE = 16
"""Choices whose next token is made before the event loop runs again."""


class SyntheticEngine(Engine):
    name: ClassVar[str] = "synthetic"
    Config = SyntheticConfig
    capabilities = (*get_args(Kind), "resume")
    config: SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.clock = SystemClock()
        self._changed: Callable[[], None] = lambda: None
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._whole_answers = WholeAnswers(WORDS, config.seed, config.context)
        self.offer(
            *(
                Offer(
                    model,
                    tuple(config.kinds),
                    dict(config.features),
                    config.state,
                    context=config.context,
                    digest=config.digest,
                    on_demand=config.on_demand,
                )
                for model in config.models
            )
        )

    async def start(self, changed: Callable[[], None]) -> None:
        """Ready at once."""
        self._changed = changed

    async def close(self) -> None:
        for loading in self._loading.values():
            loading.cancel()

    def status(self) -> EngineStatus:
        return self._status

    def offer(self, *offered: Offer) -> None:
        """Offer this from now on, in place of what was offered before."""
        self._status = EngineStatus("ready", offered)
        self._changed()

    def resumable(self, task: TaskRequest) -> bool:
        if task.kind not in ("chat", "completion") or len(task.body) > MAX_RESUMED_BYTES or beyond_text(task.body):
            return False
        if task.kind == "chat":
            return True
        try:
            return decode_body(task.body).plain
        except msgspec.DecodeError:
            return True  # refused by `run`

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self._state_of(task.model) in ("stopped", "starting"):
            yield EngineProgress("loading", task.model)
            await self._loaded(task.model)
            yield EngineProgress("running")
        if task.kind in WHOLE_KINDS:
            yield await asyncio.to_thread(self._whole_answers.answer, cast("WholeKind", task.kind), task.body)
            return
        text, prompt_tokens = task.body, -1
        if len(text) > LARGE_BYTES:
            text, prompt_tokens = await _outlined(text)
        try:
            body = decode_body(text)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the request body is not understood: {error}") from error
        if task.kind == "embedding":
            yield await self._embedding(body)
            return
        if not body.plain:
            async for delta in self._choices(task, body, prompt_tokens):
                yield delta
            return
        prompt = prompt_text(task.kind, body)
        rng = random.Random(seed_of(prompt, self.config.seed if body.seed is None else body.seed))
        began = self.clock.now()
        tokens, finish = self._text(rng, body)
        usage = _usage(len(prompt.split()) if prompt_tokens < 0 else prompt_tokens, len(tokens))
        tokens = _after(tokens, task.resume)
        millisecond = self._millisecond(task, prompt, body)
        due = began + self.config.ttft.draw(rng) * millisecond
        last = len(tokens) - 1
        if last < 0:
            yield Delta("", "", finish, usage)
        timed = self.config.itl.mean > 0
        for at, token in enumerate(tokens):
            wait = due - self.clock.now() if timed or at == 0 else 0
            if wait > 0:
                await self.clock.sleep(wait)
            if timed:
                due += self.config.itl.draw(rng) * millisecond
            yield Delta(token) if at < last else Delta(token, "", finish, usage)

    def _text(self, rng: random.Random, body: Body) -> tuple[list[str], str]:
        """The tokens of a plain text, and why it ends."""
        length = max(1, round(self.config.length.draw(rng)))
        text = rng.choices(WORDS, k=length)
        limit = length if body.limit is None else body.limit
        finish = "stop" if length <= limit else "length"
        tokens = [word if at == 0 else " " + word for at, word in enumerate(text[:limit])]
        return (tokens, finish) if body.stop is None else _stopped(tokens, finish, stop_texts(body))

    async def _choices(self, task: TaskRequest, body: Body, prompt_tokens: int) -> AsyncGenerator[Delta, None]:
        """An answer that is more than plain text."""
        request = asked(task.kind, body)
        if task.resume:
            raise InvalidRequest("only plain text of one choice can be resumed", param="resume")
        began = self.clock.now()
        # In a thread, which lets the event loop run between any two steps of Python.
        choices, rng = await asyncio.to_thread(self._drawn, task.kind, body, request)
        if prompt_tokens < 0:
            prompt_tokens = sum(len(prompt.split()) for prompt in request.prompts)
        usage = _usage(prompt_tokens, sum(choice.made for choice in choices))
        millisecond = self._millisecond(task, request.prompts[0], body)
        due = began + self.config.ttft.draw(rng) * millisecond
        last = max(1, *(len(choice.tokens) for choice in choices)) - 1
        first = choices[0]
        for at in range(last + 1):
            wait = due - self.clock.now()
            if wait > 0:
                await self.clock.sleep(wait)
            due += self.config.itl.draw(rng) * millisecond
            if task.stream:
                steps = []
                for number, choice in enumerate(choices):
                    if (step := choice.step(at)) is not None:
                        steps.append(step)
                    if number % CHOICES_AT_ONCE == CHOICES_AT_ONCE - 1:
                        await asyncio.sleep(0)
                text = first.tokens[at] if first.text and at < len(first.tokens) else ""
                ending = (first.finish, usage) if at == last else ("", "")
                yield Delta(text, _encode(steps), *ending)
        if not task.stream:
            extra = await asyncio.to_thread(_whole, choices)
            yield Delta(first.text, extra, first.finish, usage)

    def _drawn(self, kind: Kind, body: Body, request: Asked) -> tuple[list[Choice], random.Random]:
        """The choices, and the generator of the first. Raises `InvalidRequest` when they are too long together."""
        seed = self.config.seed if body.seed is None else body.seed
        named = named_in(last_user_text(body), request.tools) if request.tools else None
        draw = partial(self._text, body=body)
        rng, size = random.Random(), 0
        choices: list[Choice] = []
        for number in range(len(request.prompts) * request.choices):
            prompt, which = request.prompts[number // request.choices], number % request.choices
            own = random.Random(seed_of(f"{which}\0{prompt}" if which else prompt, seed))
            rng = own if not number else rng
            choices.append(Choice(kind, number, own, request, prompt, named, draw, body.limit, WORDS))
            size += choices[-1].size
            if size > MAX_ANSWER_CHARS:
                raise too_long("n" if number else "max_tokens")
        return choices, rng

    def _millisecond(self, task: TaskRequest, prompt: str, body: Body) -> float:
        """Seconds that a millisecond of the configured times is to take in this attempt."""
        config = self.config
        if not config.slow_share:
            return 0.001
        seed = config.seed if body.seed is None else body.seed
        drawn = random.Random(seed_of(f"attempt {task.attempt}\0{prompt}", seed)).random()
        return 0.001 * config.slow_factor if drawn < config.slow_share else 0.001

    def _state_of(self, model: str) -> OfferState:
        return next((each.state for each in self._status.offers if each.model == model), "ready")

    async def _loaded(self, model: str) -> None:
        """Load the model, or wait for a task that does: one that is cancelled does not stop it."""
        loading = self._loading.get(model)
        if loading is None:
            loading = self._loading[model] = asyncio.create_task(self._load(model))
            loading.add_done_callback(lambda _: self._loading.pop(model))
        await asyncio.shield(loading)

    async def _load(self, model: str) -> None:
        self._set_state(model, "starting")
        await self.clock.sleep(self.config.loading.draw(random.Random(self.config.seed)) / 1000)
        self._set_state(model, "ready")

    def _set_state(self, model: str, state: OfferState) -> None:
        self.offer(
            *(
                msgspec.structs.replace(each, state=state) if each.model == model else each
                for each in self._status.offers
            )
        )

    async def _embedding(self, body: Body) -> Delta:
        inputs = inputs_of(body)
        size = self.config.embedding_size if body.dimensions is None else body.dimensions
        if size * len(inputs) > MAX_NUMBERS:
            raise InvalidRequest(f"an answer has at most {MAX_NUMBERS} numbers, asked for are {size * len(inputs)}",
                                 param="dimensions")  # fmt: skip
        if body.dimensions is not None and body.dimensions > MAX_DIMENSIONS:
            raise InvalidRequest(f"an embedding has at most {MAX_DIMENSIONS} numbers", param="dimensions")
        data, made = [], 0
        for index, one in enumerate(inputs):
            rng = random.Random(seed_of(json.dumps(one), self.config.seed))
            vector: list[float] | str = [round(rng.uniform(-1, 1), 6) for _ in range(size)]
            if body.encoding_format == "base64":
                vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
            data.append(_encode({"object": "embedding", "index": index, "embedding": vector}))
            made += 1 + size
            if made > MAX_DIMENSIONS:
                made = 0
                await asyncio.sleep(0)
        tokens = sum(len(str(one).split()) for one in inputs)
        usage = json.dumps({"prompt_tokens": tokens, "total_tokens": tokens})
        return Delta("", f"[{','.join(data)}]", "stop", usage)


async def _outlined(text: str) -> tuple[str, int]:
    """The outline of a large body, and its words: they count for those of the prompt, which is most of it."""
    outline = (await read_large_body(text, MAX_MESSAGE_BYTES)).outline
    words = 0
    for start in range(0, len(text), PIECE_BYTES):
        words += len(text[start : start + PIECE_BYTES].split())
        await asyncio.sleep(0)
    return outline, words


def _whole(choices: list[Choice]) -> str:
    return f"[{','.join([_encode(choice.whole()) for choice in choices])}]"


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _stopped(tokens: list[str], finish: str, stops: list[str]) -> tuple[list[str], str]:
    """The tokens before the first of ``stops``."""
    text = "".join(tokens)
    at = min((found for stop in stops if (found := text.find(stop)) >= 0), default=-1)
    if at < 0:
        return tokens, finish
    kept: list[str] = []
    for token in tokens:
        if at <= 0:
            break
        kept.append(token[:at])
        at -= len(token)
    return kept, "stop"


def _usage(prompt_tokens: int, completion_tokens: int) -> str:
    total = prompt_tokens + completion_tokens
    return f'{{"prompt_tokens":{prompt_tokens},"completion_tokens":{completion_tokens},"total_tokens":{total}}}'


def _after(tokens: list[str], delivered: str) -> list[str]:
    """The tokens that follow ``delivered``; a token delivered in part is finished first."""
    if not delivered:
        return tokens
    text = "".join(tokens)
    if not text.startswith(delivered):
        raise InvalidRequest("the text to resume from is not the beginning of this answer", param="resume")
    rest, at = [], 0
    for token in tokens:
        end = at + len(token)
        if end > len(delivered):
            rest.append(token[max(0, len(delivered) - at) :])
        at = end
    return rest
