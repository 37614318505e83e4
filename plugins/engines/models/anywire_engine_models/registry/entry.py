"""One model of a registry, as the file has it."""

from __future__ import annotations

from typing import Any

import msgspec

MODEL_LAYER = "application/vnd.ollama.image.model"


class Layer(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    media_type: str
    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True, rename={"schema_version": "schemaVersion", "media_type": "mediaType"}):
    """In the form of Ollama and OCI."""

    schema_version: int = 2
    media_type: str = ""
    config: Layer | None = None
    layers: tuple[Layer, ...] = ()


class EntrySettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How Anywire runs the model: the entry's member ``settings``, which other programs pass over. None: the default of
    the engine's configuration."""

    autostart: bool | None = None
    on_demand: bool | None = None
    idle_ttl: float | None = None
    pinned: bool | None = None
    group: str | None = None
    context: int | None = None
    slots: int | None = None
    memory_bytes: int | None = None
    restart: str | None = None
    device: str | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None
    health_path: str | None = None
    port: int | None = None
    served_name: str | None = None
    """The model's name towards its server, where that is another one."""


class Entry(msgspec.Struct, frozen=True):
    """``full_identifier`` is the model's id everywhere. ``members`` is the whole object as it was read: what we do not
    know is written back."""

    full_identifier: str
    provider: str
    library: str
    name: str
    version: str
    manifest: Manifest | None = None
    model_file_path: str = ""
    manifest_path: str = ""
    settings: EntrySettings = EntrySettings()
    members: dict[str, Any] = {}
