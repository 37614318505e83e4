"""What can be set of the engine ``llama``."""

from __future__ import annotations

import pydantic


class LlamaConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    model: str = pydantic.Field(default="smollm2", min_length=1, description="path of a .gguf file, or smollm2")
    alias: str = pydantic.Field(default="", description="the model's public name; empty makes one of the file's name")
    server: str = pydantic.Field(
        default="auto",
        min_length=1,
        description="xllamacpp, the path of a llama-server, or auto: xllamacpp if installed, else llama-server on PATH",
    )
    slots: int = pydantic.Field(default=1, ge=1, le=256, description="tasks it answers at once; the agent's slots")
    context: int = pydantic.Field(default=4096, ge=64, description="tokens of context of each slot")
    threads: int = pydantic.Field(default=1, ge=1, description="threads that generate")
    batch_threads: int = pydantic.Field(default=2, ge=1, description="threads that read prompts")
    embedding: bool = pydantic.Field(default=False, description="answer embedding tasks too (mean pooling)")
    default_max_tokens: int = pydantic.Field(
        default=512, ge=1, description="max_tokens of a request that names none: a small model may never end by itself"
    )
    port: int = pydantic.Field(default=0, ge=0, le=65535, description="on 127.0.0.1; 0 takes a free one")
    startup_timeout: float = pydantic.Field(default=120.0, gt=0, description="seconds it may take to load the model")
    max_restarts: int = pydantic.Field(
        default=5, ge=0, description="restarts after deaths in quick succession, before the engine stays failed"
    )
    extra_args: list[str] = pydantic.Field(
        default_factory=list, description="further arguments of a real llama-server (not of xllamacpp)"
    )
