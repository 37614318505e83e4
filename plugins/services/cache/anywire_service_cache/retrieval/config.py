"""The settings of the service ``retrieval``."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.service import ServiceConfig


class RetrievalConfig(ServiceConfig):
    folder: Path = pydantic.Field(description="Folder of the documents; those of its folders are read too.")
    files: tuple[str, ...] = pydantic.Field(
        ("*.md", "*.rst", "*.txt"), min_length=1, description="Names of the files that are documents, text in UTF-8."
    )
    model: str = pydantic.Field(
        "",
        description="Embedding model that compares questions with passages; an agent must serve it. Empty, and while "
        "nobody serves it: they are compared by their words.",
    )
    passages: int = pydantic.Field(3, ge=1, le=20, description="Passages of an answer.")
    passage_chars: int = pydantic.Field(
        1200, ge=100, le=10_000, description="Characters of the longest passage. Paragraphs are kept whole up to it."
    )
    min_similarity: float = pydantic.Field(
        0.3, ge=-1, le=1, description="Cosine of the embeddings below which a passage is no answer."
    )
    timeout: float = pydantic.Field(
        3.0, gt=0, le=9, description="Seconds that an answer waits for the embedding of its question."
    )
    max_files: int = pydantic.Field(
        1000, ge=1, le=100_000, description="Documents that are read; further ones are not."
    )
    max_bytes: int = pydantic.Field(
        32 * 1024 * 1024, ge=1, le=2**30, description="Bytes of all documents; what exceeds them is not read."
    )
    passed_on: bool = pydantic.Field(
        False,
        description="Answer tasks that another orchestrator has passed on, too; its other agents are not tried then.",
    )
    introduction: str = pydantic.Field(
        "No model can answer now. These passages of the documents are closest to the question:",
        description="Sentence before the passages.",
    )
