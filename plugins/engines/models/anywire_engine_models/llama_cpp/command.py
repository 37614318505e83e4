"""The command that starts llama.cpp's server, from settings."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from anywire.errors import ConfigError
from anywire_engine_models.processes.ports import HOST
from anywire_engine_models.processes.server_command import ServerCommand

SCRIPT = Path(__file__).with_name("server.py")
_NEITHER = "server: neither xllamacpp (pip install xllamacpp) nor a llama-server on the PATH is there"


class LlamaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How llama.cpp runs a model.

    ``alias`` is the model's name towards the server. ``server`` is ``xllamacpp``, the path of a llama-server, or
    ``auto``: the first installed of the two. ``slots`` are answered at once, each with ``context`` tokens. ``threads``
    generate, ``batch_threads`` read prompts. ``prompt_cache`` is in MiB, for prompts that no slot holds any more (None:
    the server's own default, 0: none). ``embedding`` has it answer embedding requests too (mean pooling), ``rerank``
    rank documents in place of these.
    ``chat_template`` is the text of a template in place of the model's own. ``gpu_layers`` are put on a GPU when one
    is chosen (None: all).
    ``port`` 0 takes any that is free. ``extra_args`` are for a real llama-server alone.
    """

    alias: str
    server: str = "auto"
    slots: int = 1
    context: int = 4096
    threads: int = 1
    batch_threads: int = 2
    prompt_cache: int | None = None
    embedding: bool = False
    rerank: bool = False
    chat_template: str = ""
    gpu_layers: int | None = None
    port: int = 0
    extra_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


def llama_command(model_file: Path | str, *, settings: LlamaSettings) -> ServerCommand:
    """The command that starts a llama.cpp server with ``model_file``. Raises `ConfigError` when the server asked for is
    not there, or cannot do what is asked."""
    program = _program(settings.server)
    if settings.extra_args and not program:
        raise ConfigError("extra_args are for a real llama-server: set server to its path, or leave them out")
    arguments = [program] if program else [sys.executable, "-P", str(SCRIPT)]
    arguments += ["--model", str(model_file), "--alias", settings.alias, "--host", HOST, "--port", "{port}"]
    arguments += ["--parallel", str(settings.slots), "--ctx-size", str(settings.slots * settings.context)]
    arguments += ["--threads", str(settings.threads), "--threads-batch", str(settings.batch_threads)]
    if settings.prompt_cache is not None:
        arguments += ["--cache-ram", str(settings.prompt_cache)]
    if settings.chat_template:
        arguments += ["--jinja", "--chat-template", settings.chat_template]
    if settings.embedding or settings.rerank:
        # An input must fit one physical batch, so as to be pooled.
        size, pooling = str(settings.context), "mean" if settings.embedding else "rank"
        arguments += ["--embeddings", "--pooling", pooling, "--batch-size", size, "--ubatch-size", size]
    arguments += settings.extra_args
    layers = "{gpu_layers}" if settings.gpu_layers is None else str(settings.gpu_layers)
    return ServerCommand(
        tuple(each if each == "{port}" else _literal(each) for each in arguments),
        environment={name: _literal(value) for name, value in settings.environment.items()},
        port=settings.port,
        on_device={"gpu": ("--n-gpu-layers", layers), "cpu": ("--n-gpu-layers", "0")},
        model_file=str(model_file),
    )


def cards_command(server: str) -> list[str]:
    """The command by which the llama.cpp that ``server`` names says which cards it can use. Raises `ConfigError` when
    it is not there."""
    program = _program(server)
    return [*([program] if program else [sys.executable, "-P", str(SCRIPT)]), "--list-devices"]


def _literal(text: str) -> str:
    """A text that a template gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _program(server: str) -> str:
    """The path of the llama-server to run, empty for xllamacpp."""
    installed = importlib.util.find_spec("xllamacpp") is not None
    if server == "xllamacpp":
        if not installed:
            raise ConfigError("server: xllamacpp is not installed: `pip install xllamacpp`")
        return ""
    if server == "auto":
        if installed:
            return ""
        found = shutil.which("llama-server")
        if found is None:
            raise ConfigError(_NEITHER)
        return found
    found = shutil.which(str(Path(server).expanduser()))
    if found is None:
        raise ConfigError(f"server: {server} is no program here; give xllamacpp, auto or a llama-server's path")
    return str(Path(found).absolute())
