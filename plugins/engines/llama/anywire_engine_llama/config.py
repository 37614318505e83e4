"""What can be set of the engine ``llama``."""

from __future__ import annotations

from typing import Annotated

import pydantic

from anywire.core_settings import FromCore
from anywire.native_api import NativeApi


class LlamaConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    model: str = pydantic.Field(
        default="smollm2", min_length=1, description="Model to load: the path of a .gguf file, or `smollm2`."
    )
    alias: str = pydantic.Field(
        default="", description="Name under which clients find the model. Default: made of the file's name."
    )
    server: str = pydantic.Field(
        default="auto",
        min_length=1,
        description="Server to run: `xllamacpp`, the path of a llama-server, or `auto` for what is installed.",
    )
    slots: Annotated[int, FromCore("agent.slots")] = pydantic.Field(
        default=1, ge=1, le=256, description="Tasks that the model answers at once."
    )
    context: int = pydantic.Field(default=4096, ge=64, description="Tokens of context of each slot.")
    prompt_cache: int | None = pydantic.Field(
        default=256,
        ge=0,
        le=1 << 20,
        description="MiB of memory for prompts that no slot holds any more. 0: none. `null`: the server's own "
        "bound (8192 in recent versions; old ones have no such option).",
    )
    threads: int = pydantic.Field(default=1, ge=1, description="Threads that generate.")
    batch_threads: int = pydantic.Field(default=2, ge=1, description="Threads that read prompts.")
    embedding: bool = pydantic.Field(default=False, description="Answer embedding tasks too (mean pooling).")
    apis: list[NativeApi] = pydantic.Field(
        default_factory=list,
        description="APIs beside OpenAI's that llama.cpp answers itself: `messages` for Anthropic's. Without it they "
        "are translated.",
    )
    default_max_tokens: int = pydantic.Field(
        default=512, ge=1, description="Tokens of the longest answer where the request names no limit."
    )
    port: int = pydantic.Field(
        default=0, ge=0, le=65535, description="Port of the server on 127.0.0.1. 0: any that is free."
    )
    startup_timeout: float = pydantic.Field(default=120.0, gt=0, description="Seconds that loading the model may take.")
    max_restarts: int = pydantic.Field(
        default=5, ge=0, description="Restarts in quick succession before the engine stays failed."
    )
    extra_args: list[str] = pydantic.Field(
        default_factory=list, description="Further arguments of a llama-server (not of xllamacpp)."
    )
