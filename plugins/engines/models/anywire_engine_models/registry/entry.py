"""One model of a registry, as the file has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from anywire.messages import Kind

MODEL_LAYER = "application/vnd.ollama.image.model"
MAX_NAME = 256
"""Characters of an identifier, as everywhere in Anywire."""

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Restarts = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Tokens = Annotated[int, msgspec.Meta(ge=64, lt=2**31)]
_Slots = Annotated[int, msgspec.Meta(ge=1, le=256)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Kinds = Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1, max_length=len(get_args(Kind)))]
_Path = Annotated[str, msgspec.Meta(pattern="^/[!-~]*$", max_length=1024)]
_DeviceWish = Annotated[str, msgspec.Meta(pattern=r"^(auto|cpu|gpu:[0-9]{1,3})$")]
_Command = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
_Environment = Annotated[dict[str, str], msgspec.Meta(max_length=1000)]


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

    @property
    def model_layer(self) -> Layer | None:
        """The first layer that holds weights."""
        return next((layer for layer in self.layers if layer.media_type == MODEL_LAYER), None)


class EntrySettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How Anywire runs the model: the entry's member ``settings``, which other programs pass over. None: the default of
    the engine's configuration."""

    autostart: bool | None = None
    on_demand: bool | None = None
    idle_ttl: _Seconds | None = None
    pinned: bool | None = None
    group: _Name | None = None
    context: _Tokens | None = None
    slots: _Slots | None = None
    memory_bytes: _Bytes | None = None
    restart: Literal["never", "on-failure"] | None = None
    max_restarts: _Restarts | None = None
    device: _DeviceWish | None = None
    start_timeout: _Seconds | None = None
    stop_grace: _Seconds | None = None
    command: _Command | None = None
    environment: _Environment | None = None
    health_path: _Path | None = None
    port: _Port | None = None
    kinds: _Kinds | None = None
    served_name: _Name | None = None
    """The model's name towards its server, where that is another one."""


class Entry(msgspec.Struct, frozen=True):
    """``full_identifier`` is the model's id everywhere. ``model_file_path`` and ``manifest_path`` are absolute, and
    empty where nothing is known. ``members`` is the whole object as it was read: what we do not know is written
    back."""

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
