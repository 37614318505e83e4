"""The store of Ollama: ``manifests/PROVIDER/LIBRARY/NAME/VERSION`` and ``blobs/sha256-HEX``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anywire.errors import ConfigError, InvalidRequest
from anywire.printable import printable
from anywire_engine_models.model_files.whole import check_whole
from anywire_engine_models.registry.entry import MAX_NAME, MODEL_LAYER, Entry, Manifest
from anywire_engine_models.registry.importers.imported import Imported, Report
from anywire_engine_models.registry.model_paths import blob
from anywire_engine_models.registry.replaced_file import read_file

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_MANIFESTS = 10_000
_PROJECTOR = "application/vnd.ollama.image.projector"
_ADAPTER = "application/vnd.ollama.image.adapter"
_SYSTEM = "application/vnd.ollama.image.system"


def import_ollama_store(path: Path) -> Imported:
    """The models of a store: its folder (``~/.ollama/models``), or the one above. Raises `InvalidRequest` where none
    is."""
    store = store_at(path)
    report = Report()
    manifests = sorted(each for each in store.glob("manifests/*/*/*/*") if each.is_file())
    # The library's own names before those of others, which are told apart by theirs.
    manifests.sort(key=lambda each: each.parts[-3] != "library")
    taken: set[str] = set()
    for manifest_path in manifests[:MAX_MANIFESTS]:
        about = str(manifest_path.relative_to(store / "manifests"))
        try:
            entry = entry_of_manifest(manifest_path, store)
            if entry.full_identifier in taken:
                identifier = f"{entry.provider}:{entry.library}/{entry.name}:{entry.version}"
                entry = msgspec.structs.replace(entry, full_identifier=identifier)
            if Path(entry.model_file_path).stat().st_size != _size(entry):
                raise ConfigError("its file has another size than its manifest says: pull the model again")
            check_whole(Path(entry.model_file_path))
        except (ValueError, ConfigError) as error:
            report.skip(about, str(error))
            continue
        except OSError as error:
            report.skip(about, f"its file cannot be read: {error.strerror}")
            continue
        taken.add(entry.full_identifier)
        if report.add(entry, about):
            _note(report, entry)
    if len(manifests) > MAX_MANIFESTS:
        report.skip(str(store), f"it has more than {MAX_MANIFESTS} manifests")
    return report.imported()


def store_at(path: Path) -> Path:
    """The store's folder at ``path`` or below it. Raises `InvalidRequest` where none is."""
    for folder in (path, path / "models"):
        if (folder / "manifests").is_dir():
            return folder
    raise InvalidRequest(
        f"{path} is no store of Ollama: it has no folder `manifests`; the store is ~/.ollama/models, or where "
        "OLLAMA_MODELS says",
        param="path",
    )


def entry_of_manifest(path: Path, store: Path) -> Entry:
    """The entry of a manifest in a store. Its model's file need not be there. Raises `ValueError` with a sentence when
    it is no manifest of a model, and `OSError` when it cannot be read."""
    parts = path.parts[-4:]
    if len(parts) < 4 or path.parents[3] != store / "manifests":
        raise ValueError("it is not at manifests/PROVIDER/LIBRARY/NAME/VERSION")
    data = read_file(path, MAX_MANIFEST_BYTES)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"its manifest is longer than {MAX_MANIFEST_BYTES // 2**20} MiB")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its manifest is none: {printable(str(error), 200)}") from error
    layer = manifest.model_layer
    if layer is None:
        raise ValueError(f"its manifest has no layer of the type {MODEL_LAYER}")
    provider, library, name, version = parts
    identifier = f"{provider}:{name}:{version}"
    if len(identifier) > MAX_NAME or not identifier.isprintable():
        raise ValueError("its name is too long or not printable")
    return Entry(
        full_identifier=identifier,
        provider=provider,
        library=library,
        name=name,
        version=version,
        manifest=manifest,
        model_file_path=str(blob(store, layer.digest)),
        manifest_path=str(path),
    )


def _size(entry: Entry) -> int:
    layer = entry.manifest and entry.manifest.model_layer
    return layer.size if layer else 0


def _note(report: Report, entry: Entry) -> None:
    types = [layer.media_type for layer in entry.manifest.layers] if entry.manifest is not None else []
    if _PROJECTOR in types:
        report.note(entry.full_identifier, "its projector is not used: it reads text alone")
    if _ADAPTER in types:
        report.note(entry.full_identifier, "its adapter is not used: the model answers without it")
    if _SYSTEM in types:
        report.note(entry.full_identifier, "its system prompt is not used: clients send their own")
    if types.count(MODEL_LAYER) > 1:
        report.note(entry.full_identifier, "of its layers with weights the first is used")
