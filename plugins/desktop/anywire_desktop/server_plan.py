"""From what the app says of its server to an entry and settings that Anywire runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire_engine_models.config import ModelsConfig, ModelSettings
from anywire_engine_models.registry.entry import Entry, EntrySettings
from anywire_engine_models.registry.importers.gguf_folder import entry_of_file
from anywire_engine_models.registry.replaced_file import read_file

LLAMA_SERVER = "llama-server"
MAX_TEMPLATE = 1024 * 1024
ALL_LAYERS = 999
"""So many, or more, are all of them."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """With what the app starts its server. An empty ``binary_path`` is the llama-server in the folder that the app's
    settings name, else llama.cpp from this environment. ``port`` 0 takes any that is free. ``ctx_size`` are tokens for
    all of its ``parallel`` requests together. ``n_gpu_layers`` 0 is the processor alone, -1 all of them on
    a graphics card where the model fits one."""

    binary_path: str = ""
    model_path: str
    port: int = 0
    ctx_size: int = 4096
    n_gpu_layers: int = 0
    parallel: int = 1
    chat_template: str = ""
    chat_template_file: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What `anywire_engine_models.local_models.LocalModels.put` is given."""

    entry: Entry
    config: ModelsConfig


def planned(config: ServerConfig, entries: Sequence[Entry], base: ModelsConfig, llama_directory: str) -> Plan:
    """Call it on a thread: it reads the model's file. A file that one of ``entries`` names has that one's identifier.
    Raises `ConfigError` when the file cannot be read or is no model."""
    path = Path(config.model_path).expanduser().absolute()
    found = next((each for each in entries if each.model_file_path == str(path)), None)
    entry = found if found is not None else entry_of_file(path)
    server = config.binary_path or _installed(llama_directory) or base.server
    settings = ModelSettings(
        context=max(64, config.ctx_size // config.parallel),
        slots=config.parallel,
        port=config.port,
        device="auto" if config.n_gpu_layers else "cpu",
        gpu_layers=config.n_gpu_layers if 0 < config.n_gpu_layers < ALL_LAYERS else None,
        chat_template=_template(config),
        extra_args=["--jinja"] if server not in (base.server, "auto", "xllamacpp") else [],
    )
    models = {**base.models, entry.full_identifier: settings}
    return Plan(
        msgspec.structs.replace(entry, settings=EntrySettings()),
        base.model_copy(update={"server": server, "models": models}),
    )


def _template(config: ServerConfig) -> str:
    """The text of a chat template in the place of the model's own. Raises `ConfigError`."""
    if not config.chat_template_file:
        return config.chat_template
    path = Path(config.chat_template_file).expanduser()
    try:
        data = read_file(path, MAX_TEMPLATE)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(data) <= MAX_TEMPLATE:
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise ConfigError(f"{path} is no chat template: it must be text of at most {MAX_TEMPLATE // 2**20} MiB")


def _installed(directory: str) -> str:
    path = Path(directory).expanduser() / LLAMA_SERVER
    return str(path) if directory and os.access(path, os.X_OK) else ""
