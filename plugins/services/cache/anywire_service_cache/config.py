"""The settings of the service ``cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import pydantic

from anywire.messages import Kind
from anywire.service import ServiceConfig


class SemanticConfig(ServiceConfig):
    """Questions that mean the same."""

    model: str = pydantic.Field(
        min_length=1, description="Embedding model that compares questions; an agent must serve it."
    )
    threshold: float = pydantic.Field(
        0.95, gt=0, le=1, description="Cosine of two questions' embeddings from which they count as the same."
    )
    timeout: float = pydantic.Field(
        0.5, gt=0, le=0.9, description="Seconds that a task waits for the embedding of its question, and goes on then."
    )
    max_compared: int = pydantic.Field(
        1000, ge=1, le=100_000, description="Kept questions that one question is compared with: the newest."
    )


class CacheConfig(ServiceConfig):
    store: Literal["memory", "sqlite"] = pydantic.Field(
        "memory", description="Where answers are kept. `sqlite`: in a file, over a restart."
    )
    folder: Path | None = pydantic.Field(
        None,
        description="Folder of the file, for this user alone. Default: `cache` in the fleet's state folder.",
    )
    max_entries: int = pydantic.Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Answers that are kept. Of more, those of the tenant that has the most go, the longest unused one "
        "first.",
    )
    max_bytes: int = pydantic.Field(256 * 1024 * 1024, ge=1024, description="Bytes of all of them.")
    max_answer_bytes: int = pydantic.Field(
        1024 * 1024, ge=1, description="Bytes of one answer; a longer one is not kept."
    )
    max_age: float = pydantic.Field(
        86_400.0, gt=0, le=3650 * 86_400, description="Seconds for which an answer is kept."
    )
    models: tuple[str, ...] = pydantic.Field(
        (), description="Models whose answers are kept; `*` stands for any characters. Empty: all."
    )
    kinds: tuple[Kind, ...] = pydantic.Field(
        ("chat", "completion", "embedding"), description="Kinds of tasks whose answers are kept."
    )
    only_deterministic: bool = pydantic.Field(
        False, description="Keep answers of requests with `temperature: 0`, and embeddings, alone."
    )
    unknown_weights: bool = pydantic.Field(
        True,
        description="Keep answers of models whose weights nobody tells (no digest in their offers). Whether these "
        "have changed cannot be seen: `max_age` bounds how old such an answer can be.",
    )
    passed_on: bool = pydantic.Field(
        False,
        description="Serve tasks that one other orchestrator has passed on, too. It does not tell what its client says "
        "in `cache-control`.",
    )
    semantic: SemanticConfig | None = pydantic.Field(
        None, description="Answer questions that mean the same as an earlier one. Default: off."
    )

    @pydantic.model_validator(mode="after")
    def _has_a_use_for_its_folder(self) -> Self:
        if self.folder is not None and self.store == "memory":
            raise ValueError("folder is for store: sqlite; answers are kept in memory")
        return self
