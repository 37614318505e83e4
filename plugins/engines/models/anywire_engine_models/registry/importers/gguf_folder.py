"""GGUF files in a folder as models."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from anywire.errors import ConfigError, InvalidRequest
from anywire_engine_models.model_files.file_names import name_parts
from anywire_engine_models.model_files.gguf import read
from anywire_engine_models.model_files.shards import shards_of
from anywire_engine_models.model_files.weights import digest
from anywire_engine_models.model_files.whole import check_whole
from anywire_engine_models.registry.entry import MODEL_LAYER, Entry, Layer, Manifest
from anywire_engine_models.registry.importers.imported import Imported, Report

PROVIDER, LIBRARY = "local", "library"
MAX_DEPTH = 8
"""Folders below each other that are looked through."""
MAX_FILES = 10_000
_SUFFIX = ".gguf"
_NO_CONFIG = Layer(
    "application/vnd.oci.empty.v1+json", "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2
)
"""OCI's empty descriptor: the manifest says nothing but where the weights are."""
_UNSUITABLE = {
    "clip": "it is the projector of a model that sees or hears, and no model of its own",
    "adapter": "it is an adapter for a model, and no model of its own",
    "imatrix": "it holds statistics for quantization, and no model",
}


def import_gguf_folder(path: Path) -> Imported:
    """The GGUF files in ``path`` and the folders below it, or the file ``path``. Raises `InvalidRequest` when it cannot
    be read or has none."""
    if not path.exists():
        raise InvalidRequest(f"{path} is not there: give a folder with .gguf files, or one", param="path")
    report = Report()
    seen: dict[tuple[int, int], Path] = {}
    files = [path] if path.is_file() else sorted(_gguf_files(path, report))
    for file in files:
        if name_parts(file.name).shard > 1:
            continue  # it belongs to the first, where it is missed if need be
        try:
            status = file.stat()
            same = seen.setdefault((status.st_dev, status.st_ino), file)
            if same is not file:
                report.skip(str(file), f"it is the same file as {same}")
                continue
            report.add(entry_of_file(file), str(file))
        except OSError as error:
            report.skip(str(file), f"it cannot be read: {error.strerror}")
        except ConfigError as error:
            report.skip(str(file), str(error))
    if not files:
        raise InvalidRequest(f"there is no .gguf file in {path}", param="path")
    return report.imported()


def entry_of_file(path: Path, identifier: str = "") -> Entry:
    """The entry of one GGUF file, or of the first of several that make a model. Its identifier is ``identifier``, or
    ``local:NAME:QUANTIZATION`` by the file's name. Raises `ConfigError` when it is not whole or no model."""
    path = path.absolute()
    check_whole(path)
    file = read(path)
    reason = _UNSUITABLE.get(file.architecture) or _UNSUITABLE.get(file.kind)
    if reason is not None:
        raise ConfigError(f"{path}: {reason}")
    parts = name_parts(path.name)
    version = parts.quantization or "latest"
    size = sum(each.stat().st_size for each in shards_of(path))
    try:
        layer = Layer(MODEL_LAYER, digest(path), size)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return Entry(
        full_identifier=identifier or f"{PROVIDER}:{parts.name}:{version}"[:256],
        provider=PROVIDER,
        library=LIBRARY,
        name=parts.name[:256],
        version=version,
        manifest=Manifest(2, "application/vnd.oci.image.manifest.v1+json", _NO_CONFIG, (layer,)),
        model_file_path=str(path),
    )


def _gguf_files(folder: Path, report: Report, depth: int = 0) -> Iterator[Path]:
    """Links to files are followed, links to folders are not."""
    count = 0
    waiting = [(folder, depth)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as found:
                names = sorted(found, key=lambda each: each.name)
        except OSError as error:
            report.skip(str(folder), f"it cannot be read: {error.strerror}")
            continue
        for each in names:
            try:
                if each.is_dir(follow_symlinks=False):
                    if depth == MAX_DEPTH:
                        report.skip(each.path, f"it is more than {MAX_DEPTH} folders deep")
                    else:
                        waiting.append((Path(each.path), depth + 1))
                elif each.name.lower().endswith(_SUFFIX):
                    if not stat.S_ISREG(each.stat().st_mode):
                        report.skip(each.path, "it is no file")
                        continue
                    count += 1
                    if count > MAX_FILES:
                        report.skip(each.path, f"it and what follows are more than {MAX_FILES} files")
                        return
                    yield Path(each.path)
            except OSError as error:
                report.skip(each.path, f"it cannot be read: {error.strerror}")
