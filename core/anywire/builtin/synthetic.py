"""The synthetic engine: known answers at known times, so that any two runs can be compared token by token.

The text depends on the original prompt and the seed alone (the request's ``seed``, else the configured one);
``max_tokens`` cuts it, ``resume`` makes it go on where the delivered text ends. Times are drawn from given
distributions by a generator seeded the same way, and kept on a schedule from the start of the task, so that the
event loop's own delays do not add up.

What it offers is settable, and so is the state of its models: one that is stopped and on demand is loaded by its first
task, which takes ``loading`` and is told as progress.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pydantic

from anywire.clock import SystemClock
from anywire.demand import beyond_text
from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import InvalidRequest
from anywire.messages import Kind, TaskRequest
from anywire.offers import Offer, OfferState

WORDS = (
    "the a of to and in that it is was for on with as at by from or an be this which one had not but what all were "
    "when we there can more time over only new some could other than then them these two may first any my now such "
    "like our even most made after also did many must through back years where much your way well down should"
).split()


class Distribution(pydantic.BaseModel):
    """``constant``: always ``mean``. ``uniform``: mean ± spread. ``normal``: spread is the standard deviation, cut at
    0. ``exponential``: mean. ``lognormal``: with that mean and standard deviation ``spread``."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["constant", "uniform", "normal", "exponential", "lognormal"] = "constant"
    mean: float = pydantic.Field(ge=0, allow_inf_nan=False)
    spread: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)

    def draw(self, rng: random.Random) -> float:
        match self.kind:
            case "constant":
                return self.mean
            case "uniform":
                return max(0.0, rng.uniform(self.mean - self.spread, self.mean + self.spread))
            case "normal":
                return max(0.0, rng.gauss(self.mean, self.spread))
            case "exponential":
                return rng.expovariate(1 / self.mean) if self.mean else 0.0
            case "lognormal":
                return self._lognormal(rng)

    def _lognormal(self, rng: random.Random) -> float:
        if not self.mean:
            return 0.0
        from math import log, sqrt

        variance = log(1 + (self.spread / self.mean) ** 2)
        return rng.lognormvariate(log(self.mean) - variance / 2, sqrt(variance))


def _constant(value: Any) -> Any:
    return {"mean": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Drawn = Annotated[Distribution, pydantic.BeforeValidator(_constant)]


class SyntheticConfig(pydantic.BaseModel):
    """A bare number stands for a constant."""

    model_config = pydantic.ConfigDict(extra="forbid")

    models: list[str] = pydantic.Field(default=["synthetic"], min_length=1, description="Names of the models to offer.")
    ttft: Drawn = pydantic.Field(default=Distribution(mean=0), description="Time to the first token in milliseconds.")
    itl: Drawn = pydantic.Field(default=Distribution(mean=0), description="Time between two tokens in milliseconds.")
    length: Drawn = pydantic.Field(default=Distribution(mean=20), description="Tokens in an answer.")
    seed: int = pydantic.Field(default=0, description="Seed of texts and times where the request names none.")
    embedding_size: int = pydantic.Field(default=64, ge=1, description="Numbers in an embedding.")
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


class _Message(msgspec.Struct):
    content: Any = None
    role: str = ""


class _Body(msgspec.Struct):
    messages: list[_Message] = []
    prompt: Any = ""
    input: Any = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    n: int | None = None


_decoder = msgspec.json.Decoder(_Body)


class SyntheticEngine(Engine):
    name: ClassVar[str] = "synthetic"
    Config = SyntheticConfig
    capabilities = ("chat", "completion", "embedding", "resume")
    config: SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.clock = SystemClock()
        self._changed: Callable[[], None] = lambda: None
        self._loading: dict[str, asyncio.Task[None]] = {}
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
        return task.kind != "embedding" and not beyond_text(task.body)

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        if self._state_of(task.model) in ("stopped", "starting"):
            yield EngineProgress("loading", task.model)
            await self._loaded(task.model)
            yield EngineProgress("running")
        try:
            body = _decoder.decode(task.body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the request body is not understood: {error}") from error
        if body.n is not None and body.n > 1:
            raise InvalidRequest("the synthetic engine gives one choice", param="n")
        prompt = _prompt_text(task.kind, body)
        rng = random.Random(_seed(prompt, self.config.seed if body.seed is None else body.seed))
        began = self.clock.now()
        if task.kind == "embedding":
            yield self._embedding(rng, body.input)
            return
        length = max(1, round(self.config.length.draw(rng)))
        text = rng.choices(WORDS, k=length)
        limit = body.max_completion_tokens or body.max_tokens or length
        finish = "stop" if length <= limit else "length"
        tokens = [word if at == 0 else " " + word for at, word in enumerate(text[:limit])]
        usage = _usage(len(prompt.split()), len(tokens))
        tokens = _after(tokens, task.resume)
        due = began + self.config.ttft.draw(rng) / 1000
        last = len(tokens) - 1
        if last < 0:
            yield Delta("", "", finish, usage)
        timed = self.config.itl.mean > 0
        for at, token in enumerate(tokens):
            wait = due - self.clock.now() if timed or at == 0 else 0
            if wait > 0:
                await self.clock.sleep(wait)
            if timed:
                due += self.config.itl.draw(rng) / 1000
            yield Delta(token) if at < last else Delta(token, "", finish, usage)

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

    def _embedding(self, rng: random.Random, given: Any) -> Delta:
        inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        data = []
        for index, one in enumerate(inputs):
            seed = _seed(json.dumps(one), self.config.seed)
            vector = [round(random.Random(seed + at).uniform(-1, 1), 6) for at in range(self.config.embedding_size)]
            data.append({"object": "embedding", "index": index, "embedding": vector})
        tokens = sum(len(str(one).split()) for one in inputs)
        return Delta("", json.dumps(data), "stop", json.dumps({"prompt_tokens": tokens, "total_tokens": tokens}))


def _prompt_text(kind: str, body: _Body) -> str:
    if kind == "chat":
        return "\n".join(
            each.content if isinstance(each.content, str) else json.dumps(each.content) for each in body.messages
        )
    if kind == "completion":
        return body.prompt if isinstance(body.prompt, str) else json.dumps(body.prompt)
    return ""


def _seed(prompt: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


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
