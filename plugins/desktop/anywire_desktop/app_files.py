"""The files of the app: its settings, its model library, its MCP servers. Each is replaced whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec

from anywire.errors import ConfigError, InvalidRequest
from anywire_engine_models.registry.replaced_file import change_file

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of a file of the app; a longer one is refused."""


class Settings(msgspec.Struct, rename="camel", kw_only=True):
    """What the app lets its user set; in the file and towards the app the names are in camelCase."""

    models_directory: str = ""
    """Folder of the models, as Ollama lays them out. Empty: ``models`` beside the settings."""
    llama_directory: str = ""
    """Folder of a llama-server. Empty: llama.cpp from this environment."""
    theme: str = "system"
    language: str = "en"
    max_tokens: int = 2048
    context_size: int = 8192
    temperature: float = 0.7
    auto_save_chat: bool = True
    chat_history_limit: int = 50
    server_port: int = 8080
    web_search_provider: str = ""
    web_search_mcp_id: str | None = None
    chat_header_style: str = ""


class AppFiles:
    """The files in ``folder``, which is made when the first of them is written."""

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self.settings = folder / "config.json"
        self.library = library or folder / "modelLibrary.json"
        self.mcp = folder / "mcp.json"
        self.templates = folder / "chat-templates"
        self._models = folder / "models"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="app files")

    async def work(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """The result of a function that reads and writes files, on the one thread that does: each sees what the one
        before it has left."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **named))

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def begin_library(self) -> None:
        """Have a library without models where there is none. What keeps it from being written is logged."""
        try:
            if not self.library.exists():
                write_whole(self.library, b'{"models": []}\n')
        except (ConfigError, OSError) as error:
            log.warning("there is no model library, and none can be made: %s", error)

    def read_settings(self) -> dict[str, Any]:
        """All settings, defaults included; members that we do not know are kept. Raises `ConfigError`."""
        found = self._object(self.settings)
        return self._whole(found, f"{self.settings}: ", ConfigError)

    def write_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Keep ``settings``; those not given stay as they are in the file. Returns all. Raises `InvalidRequest` for
        values that do not fit, and `ConfigError`."""
        with contextlib.suppress(ConfigError):  # a broken file is replaced
            settings = self._object(self.settings) | settings
        whole = self._whole(settings, "", InvalidRequest)
        write_whole(self.settings, msgspec.json.format(msgspec.json.encode(whole), indent=2))
        return whole

    def reset_settings(self) -> dict[str, Any]:
        whole = self._whole({}, "", ConfigError)
        write_whole(self.settings, msgspec.json.format(msgspec.json.encode(whole), indent=2))
        return whole

    def models_folder(self, told: str = "") -> Path:
        """Where models are kept: the folder ``told``, or the one of the settings."""
        told = told or self.read_settings()["modelsDirectory"]
        return Path(told).expanduser().absolute() if told else self._models

    def _whole(
        self, found: dict[str, Any], where: str, error: type[ConfigError] | type[InvalidRequest]
    ) -> dict[str, Any]:
        try:
            known = msgspec.convert(found, Settings)
        except msgspec.ValidationError as fault:
            raise error(f"{where}{fault}; `reset_config` writes the defaults") from fault
        whole: dict[str, Any] = found | msgspec.to_builtins(known)
        return whole

    def _object(self, path: Path) -> dict[str, Any]:
        try:
            return read_object(path)
        except FileNotFoundError:
            return {}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `FileNotFoundError`, and `ConfigError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is longer than {MAX_BYTES // 2**20} MiB")
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON: {error}; correct or remove it") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold an object; correct or remove it")
    return content


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by one with this content; a reader sees the content before or after. Its mode is kept, a new
    one is for this user alone. Raises `ConfigError` when it cannot be written; it is as before then."""
    try:
        change_file(path, lambda before: data, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
