"""Entries made of what other programs keep: `gguf_folder`, `ollama_store`, `llama_swap`.

An importer reads and never writes. What it cannot use is left out with a reason, and never ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from anywire.errors import InvalidRequest
from anywire_engine_models.registry.importers.gguf_folder import import_gguf_folder
from anywire_engine_models.registry.importers.imported import Imported
from anywire_engine_models.registry.importers.llama_swap import import_llama_swap
from anywire_engine_models.registry.importers.ollama_store import import_ollama_store
from anywire_engine_models.registry.model_paths import expanded

IMPORTERS: Mapping[str, Callable[[Path], Imported]] = {
    "gguf": import_gguf_folder,
    "ollama": import_ollama_store,
    "llama-swap": import_llama_swap,
}
"""By the name of what is imported: a folder with GGUF files (or one file), Ollama's store, a file of llama-swap."""


def import_models(kind: str, path: Path) -> Imported:
    """The entries of what ``kind`` (of `IMPORTERS`) finds at ``path``. It reads many files; call it on a thread. Raises
    `InvalidRequest` for an unknown kind and where there is nothing of the kind."""
    importer = IMPORTERS.get(kind)
    if importer is None:
        raise InvalidRequest(f"nothing imports {kind[:50]!r}: give one of {', '.join(IMPORTERS)}", param="kind")
    try:
        return importer(expanded(path).absolute())
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="path") from error
