"""What can be set of the engine ``models``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from anywire.messages import Kind
from anywire.native_api import NativeApi
from anywire.sizes import MAX_SIZE, read_size
from anywire_engine_models.host.hosted import RestartPolicy

MIN_CONTEXT = 64
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_DEVICE = re.compile(r"auto|cpu|gpu:\d{1,3}")


def _budget(value: object) -> object:
    """A share as it is, everything else as `anywire.sizes.read_size` says."""
    if isinstance(value, str) and (found := _SHARE.fullmatch(value.strip())):
        if not 0 < float(found[1]) <= 100:
            raise ValueError(f"expected a share between 0 % and 100 %, found {value[:40]!r}")
        return value.strip()
    size = read_size(value)
    if isinstance(size, int) and not 0 <= size <= MAX_SIZE:
        raise ValueError(f"expected 0 to {MAX_SIZE} bytes, found {size}")
    return size


Size = Annotated[
    int,
    pydantic.BeforeValidator(read_size),
    pydantic.Field(ge=0, le=MAX_SIZE),
    pydantic.WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
Budget = Annotated[
    int | str,
    pydantic.BeforeValidator(_budget),
    pydantic.WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
Resume = Literal["auto", "never", "last_message", "continue_final_message"]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class ModelSettings(_Section):
    """How a model is run. An entry of a registry has some of these members too, as its ``settings``."""

    autostart: bool = pydantic.Field(False, description="Start the model with the agent.")
    on_demand: bool = pydantic.Field(
        False, description="Start the model for a request. Without it a request to a stopped model is refused (409)."
    )
    idle_ttl: float = pydantic.Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds without a request after which a model with `on_demand` is stopped. 0: never.",
    )
    pinned: bool = pydantic.Field(False, description="Never stop the model to make room for another one.")
    group: str = pydantic.Field(
        "",
        max_length=128,
        description="Models of one group may be loaded together with each other, and not with those of another group. "
        "Empty: with all.",
    )
    context: int = pydantic.Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Tokens of context of each slot, at least 64. 0: the model's own, at most 4096.",
    )
    slots: int = pydantic.Field(1, ge=1, le=256, description="Requests that the model answers at once.")
    memory_bytes: Size | None = pydantic.Field(
        None,
        description="Memory that the model is counted with: bytes, or a text such as `3 GB`. Default: estimated from "
        "its file, its context, its slots and its `prompt_cache`.",
    )
    restart: RestartPolicy = pydantic.Field(
        "on-failure", description="Whether the model is started again after an end that nobody asked for."
    )
    max_restarts: int = pydantic.Field(
        5, ge=0, le=1000, description="Restarts in a row before the model stays crashed."
    )
    start_timeout: float = pydantic.Field(
        120.0, gt=0, allow_inf_nan=False, description="Seconds that starting the model may take."
    )
    stop_grace: float = pydantic.Field(
        5.0, ge=0, allow_inf_nan=False, description="Seconds between the request to end and the end by force."
    )
    device: str = pydantic.Field(
        "auto",
        description="Where the model runs: `cpu`, `gpu:0`, or `auto` for a graphics card on which it fits, else the "
        "processor.",
    )
    command: list[str] | None = pydantic.Field(
        None,
        min_length=1,
        description="Command that starts the model's server, in place of llama.cpp: a program and its arguments, in "
        "which `{port}`, `{device}`, `{gpu_layers}` and `{model}` (its file) are filled in. `{{` is a brace.",
    )
    environment: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="Environment variables of the server, beside the agent's own. What may stand in `command`, and "
        "`{key}`, the bearer token that the server must ask for (in `LLAMA_API_KEY` too), is filled in.",
    )
    health_path: str = pydantic.Field(
        "/health", pattern="^/", description="Path at the server that answers 200 once the model is loaded."
    )
    port: int = pydantic.Field(0, ge=0, le=65535, description="Port of the server on 127.0.0.1. 0: any that is free.")
    served_name: str = pydantic.Field(
        "", description="Name of the model towards its server. Default: its full identifier."
    )
    kinds: list[Kind] = pydantic.Field(
        default=["chat", "completion"],
        min_length=1,
        description="Kinds of tasks that the model answers. With `embedding`, llama.cpp pools by the mean; with "
        "`rerank` it ranks, and does no `embedding`. It answers `tokenize` and `detokenize` for every model.",
    )
    resume: Resume = pydantic.Field(
        "auto",
        description="How the server is told to go on from the text of a stream whose agent was lost, as in the engine "
        "`openai`. `auto`: llama.cpp can (`last_message`), other commands are not asked to.",
    )
    apis: list[NativeApi] = pydantic.Field(
        default_factory=list,
        description="APIs beside OpenAI's that the model's server speaks itself, as in the engine `openai`: `messages` "
        "for Anthropic's, which llama.cpp speaks.",
    )
    default_max_tokens: int = pydantic.Field(
        512, ge=0, description="Tokens of the longest answer where the request names no limit. 0: the server decides."
    )
    threads: int = pydantic.Field(1, ge=1, le=1024, description="Threads of llama.cpp that generate.")
    batch_threads: int = pydantic.Field(2, ge=1, le=1024, description="Threads of llama.cpp that read prompts.")
    chat_template: str = pydantic.Field(
        "",
        max_length=100_000,
        description="Chat template for llama.cpp, as Jinja text. Default: the model's own.",
    )
    gpu_layers: int | None = pydantic.Field(
        None, ge=0, le=10_000, description="Layers that llama.cpp puts on a graphics card. Default: all."
    )
    prompt_cache: int | None = pydantic.Field(
        256,
        ge=0,
        le=1 << 20,
        description="MiB of memory of llama.cpp for prompts that no slot holds any more; the model is counted with "
        "them. 0: none. `null`: the server's own, which is not counted (8192 in recent versions; old ones have no such "
        "option).",
    )
    extra_args: list[str] = pydantic.Field(
        default_factory=list, description="Further arguments of a llama-server (not of xllamacpp)."
    )

    @pydantic.field_validator("context")
    @classmethod
    def _is_context(cls, value: int) -> int:
        if 0 < value < MIN_CONTEXT:
            raise ValueError(f"expected at least {MIN_CONTEXT} tokens, or 0 for the model's own")
        return value

    @pydantic.model_validator(mode="after")
    def _llama_does_these(self) -> Self:
        if self.command is not None:
            return self
        for kind in ("transcription", "speech", "image"):
            if kind in self.kinds:
                raise ValueError(f"kinds: llama.cpp answers no {kind}; set command to a server that does")
        if "rerank" in self.kinds and "embedding" in self.kinds:
            raise ValueError("kinds: llama.cpp pools either for rerank or for embedding: leave one of them out")
        return self

    @pydantic.field_validator("device")
    @classmethod
    def _is_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("expected auto, cpu or gpu:N, N being the card's number")
        return value


class SimulatedDevice(_Section):
    """A graphics card that is not there. It is called `simulated` wherever it is shown."""

    vram_total: Size = pydantic.Field(description="Its memory: bytes, or a text such as `8 GB`.")
    vram_free: Size = pydantic.Field(description="Memory of it that is free.")


class DevicesConfig(_Section):
    reserve: Size = pydantic.Field(
        500_000_000, description="Memory of a graphics card that stays free when a model is put there."
    )
    simulated: list[SimulatedDevice] = pydantic.Field(
        default_factory=list, description="Graphics cards to simulate in place of those of this machine, for tests."
    )


class LocalApiConfig(_Section):
    enabled: bool = pydantic.Field(False, description="Serve routes for these models beside the agent.")
    host: str = pydantic.Field("127.0.0.1", description="Loopback address to listen on.")
    port: int = pydantic.Field(0, ge=0, le=65535, description="Port to listen on. 0: any that is free.")


class ModelsConfig(_Section):
    registry: Path | None = pydantic.Field(
        None,
        description="File that lists the models. Default: `anywire/models.json` in your configuration folder if it is "
        "there, else the one that comes with this package, with SmolLM2.",
    )
    model: str = pydantic.Field(
        "",
        description="Full identifier of the one model of the registry to offer; it is started with the agent. Default: "
        "all of them, as their settings say.",
    )
    defaults: ModelSettings = pydantic.Field(
        default_factory=ModelSettings, description="Settings of every model that does not have its own."
    )
    models: dict[str, ModelSettings] = pydantic.Field(
        default_factory=dict,
        description="Settings of single models by full identifier, with the keys of `defaults`. They win over those of "
        "the registry, and these over `defaults`.",
    )
    memory_budget: Budget = pydantic.Field(
        "80%",
        description="Memory for all models with a process together: bytes, a text such as `12 GB`, or a share of this "
        "machine's memory such as `80%` (of its container's, where that is limited), which the programs of one user "
        "divide. 0: no bound.",
    )
    turn: float = pydantic.Field(
        2.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which a model that took another one's memory keeps it, also while it is idle. While "
        "it has requests it keeps it for as long as its load took, where that is longer. It bounds how often models "
        "are swapped.",
    )
    taken_in: int = pydantic.Field(
        8,
        ge=0,
        le=1000,
        description="Requests of each model with `on_demand` that the agent takes in beyond its slots where not all "
        "models fit into memory together. Those of one model are answered together, so that models are swapped less "
        "often.",
    )
    max_waiting: int = pydantic.Field(
        1024, ge=1, le=100_000, description="Requests that may wait for all models together; further ones are refused."
    )
    log_lines: int = pydantic.Field(1000, ge=20, le=100_000, description="Lines of each model's log that are kept.")
    server: str = pydantic.Field(
        "auto",
        min_length=1,
        description="Program for llama.cpp: `xllamacpp`, the path of a llama-server, or `auto` for what is installed.",
    )
    add_commands: bool = pydantic.Field(
        False,
        description="Let operators add models whose entry has a `command` or an `environment` of its own "
        "(`models.add`, `models.import`): this machine then runs what they say. Those in the registry file always do.",
    )
    devices: DevicesConfig = pydantic.Field(
        default_factory=DevicesConfig, description="Where models are put: graphics cards and processor."
    )
    local_api: LocalApiConfig = pydantic.Field(
        default_factory=LocalApiConfig, description="Routes for the models of this agent, for programs beside it."
    )

    @pydantic.field_validator("models", mode="before")
    @classmethod
    def _may_be_empty(cls, value: Any) -> Any:
        return (
            {name: {} if each is None else each for name, each in value.items()} if isinstance(value, dict) else value
        )


def budget_bytes(budget: int | str, total: int) -> int:
    """The bytes of `ModelsConfig.memory_budget` on a machine that has ``total`` bytes of memory."""
    if isinstance(budget, int):
        return budget
    return int(total * float(budget.rstrip("% ")) / 100)
