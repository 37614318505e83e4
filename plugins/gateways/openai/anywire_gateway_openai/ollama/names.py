"""Models' names as Ollama has them: each has a tag, ``latest`` where none is said."""

from __future__ import annotations

from collections.abc import Container

LATEST = ":latest"


def tagged(model: str) -> str:
    """The name under which a model is listed: clients add the tag where they find none."""
    return model if ":" in model else model + LATEST


def served(name: str, models: Container[str]) -> str:
    """The model of ``models`` that ``name`` means; ``name`` itself where there is none."""
    if name in models:
        return name
    other = name.removesuffix(LATEST) if name.endswith(LATEST) else name + LATEST
    return other if other in models else name
