"""The command that starts llama.cpp's server, from the settings."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from anywire.errors import ConfigError
from anywire_engine_llama.config import LlamaConfig

HOST = "127.0.0.1"
_SERVER = Path(__file__).with_name("server.py")
_NEITHER = "llama.server: neither xllamacpp (pip install xllamacpp) nor a llama-server on the PATH is there"


def command(config: LlamaConfig, model: Path, alias: str) -> list[str]:
    """The command line. Raises `ConfigError` when the server asked for is not there."""
    program = _program(config.server)
    if config.extra_args and not program:
        raise ConfigError(
            "llama.extra_args are for a real llama-server: set llama.server to its path, or leave them out"
        )
    arguments = [sys.executable, "-P", str(_SERVER), "--parent", str(os.getpid())]
    if program:
        arguments += ["--exec", program]
    arguments += ["--model", str(model), "--alias", alias, "--host", HOST, "--port", str(config.port)]
    arguments += ["--parallel", str(config.slots), "--ctx-size", str(config.slots * config.context)]
    arguments += ["--threads", str(config.threads), "--threads-batch", str(config.batch_threads)]
    if config.prompt_cache is not None:
        arguments += ["--cache-ram", str(config.prompt_cache)]
    if config.embedding:
        # An input must fit one physical batch, so as to be pooled.
        size = str(config.context)
        arguments += ["--embeddings", "--pooling", "mean", "--batch-size", size, "--ubatch-size", size]
    return arguments + config.extra_args


def _program(server: str) -> str:
    """The path of the llama-server to run, empty for xllamacpp."""
    installed = importlib.util.find_spec("xllamacpp") is not None
    if server == "xllamacpp":
        if not installed:
            raise ConfigError("llama.server: xllamacpp is not installed: `pip install xllamacpp`")
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
        raise ConfigError(f"llama.server: {server} is no program here; give xllamacpp, auto or a llama-server's path")
    return str(Path(found).absolute())
