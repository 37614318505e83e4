"""llama.cpp's HTTP server out of the package xllamacpp, as a program with the options of a `llama-server` that
`llama_cpp.command` uses:

    python server.py --model FILE --alias NAME --port 8080 …

It imports nothing of Anywire: it is to be up in milliseconds. The bearer token that it wants is in the environment
variable ``LLAMA_API_KEY``.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import Any


def parameters(options: argparse.Namespace) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.ctx_size
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads_batch
    if options.n_gpu_layers is not None:
        params.n_gpu_layers = options.n_gpu_layers
    if options.cache_ram is not None:
        params.cache_ram_mib = options.cache_ram
    if options.jinja:
        params.use_jinja = True
    if options.chat_template:
        params.chat_template = options.chat_template
    if "LLAMA_API_KEY" in os.environ:
        params.api_keys = [os.environ["LLAMA_API_KEY"]]
    if options.embeddings:
        params.embedding = True
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
        params.n_batch = options.batch_size
        params.n_ubatch = options.ubatch_size
    return params


def serve(params: Any) -> None:
    """Load the model, and serve until this process is ended."""
    import xllamacpp

    try:
        server = xllamacpp.Server(params)  # returns when the model is loaded
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


def list_devices() -> None:
    """Print the cards that it can use, as a llama-server does."""
    import xllamacpp

    print("Available devices:")
    for device in xllamacpp.get_device_info():
        if str(device["type"]).endswith("GPU"):
            print(f"  {device['name']}: {device['description']}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description="llama.cpp's server inside xllamacpp")
    result.add_argument("--list-devices", action="store_true")
    result.add_argument("--model")
    result.add_argument("--alias")
    result.add_argument("--host", default="127.0.0.1")
    result.add_argument("--port", type=int, default=0)
    result.add_argument("--parallel", type=int, default=1)
    result.add_argument("--ctx-size", type=int, default=4096)
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--threads-batch", type=int, default=2)
    result.add_argument("--n-gpu-layers", type=int)
    result.add_argument("--cache-ram", type=int)
    result.add_argument("--jinja", action="store_true")
    result.add_argument("--chat-template", default="")
    result.add_argument("--embeddings", action="store_true")
    result.add_argument("--pooling", default="mean", choices=["none", "mean", "cls", "last", "rank"])
    result.add_argument("--batch-size", type=int, default=2048)
    result.add_argument("--ubatch-size", type=int, default=512)
    return result


if __name__ == "__main__":
    options = parser().parse_args()
    if options.list_devices:
        list_devices()
    else:
        serve(parameters(options))
