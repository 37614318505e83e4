"""llama.cpp's HTTP server as a child process that ends with its parent, however the parent ends.

Run as a script, with the options of `llama-server` that the engine uses, so that both programs are started alike:

    python server.py --parent PID --model FILE --alias NAME …                      the server inside xllamacpp
    python server.py --parent PID --exec /usr/bin/llama-server --model FILE …      a real llama-server

On Linux the kernel ends the child when its parent dies (and the parent's identity is checked once, for a parent
that died before that was arranged). Elsewhere, and in addition, the child's standard input is a pipe from the
parent: its end of file is the parent's end. It imports nothing of Anywire: it is to be up in milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
ON_LINUX: bool = sys.platform == "linux"


def end_with_parent(parent: int) -> None:
    """Arrange to be killed when the process ``parent`` ends; exit at once if it has."""
    if ON_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def at_end_of_input(then: Callable[[], object]) -> None:
    """Call ``then`` on a thread of its own when standard input ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        then()

    threading.Thread(target=watch, daemon=True).start()


def run_program(program: str, options: list[str]) -> int:
    """Become ``program``; where the kernel does not end it with the parent, stay and do that."""
    if ON_LINUX:
        os.execv(program, [program, *options])  # the death signal survives this
    child = subprocess.Popen([program, *options], stdin=subprocess.DEVNULL)
    at_end_of_input(child.kill)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def run_xllamacpp(options: argparse.Namespace) -> None:
    at_end_of_input(lambda: os._exit(0))
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
    if options.cache_ram is not None:
        params.cache_ram_mib = options.cache_ram
    if "LLAMA_API_KEY" in os.environ:
        params.api_keys = [os.environ["LLAMA_API_KEY"]]
    if options.embeddings:
        params.embedding = True
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
        params.n_batch = options.batch_size
        params.n_ubatch = options.ubatch_size
    try:
        server = xllamacpp.Server(params)  # returns when the model is loaded
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description="llama.cpp's server, ending with its parent")
    result.add_argument("--parent", type=int, default=os.getppid(), help="process id to end with")
    result.add_argument("--exec", default="", help="a llama-server to run in place of xllamacpp")
    result.add_argument("--model", required=True)
    result.add_argument("--alias", required=True)
    result.add_argument("--host", default="127.0.0.1")
    result.add_argument("--port", type=int, default=0)
    result.add_argument("--parallel", type=int, default=1)
    result.add_argument("--ctx-size", type=int, default=4096)
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--threads-batch", type=int, default=2)
    result.add_argument("--cache-ram", type=int)
    result.add_argument("--embeddings", action="store_true")
    result.add_argument("--pooling", default="mean", choices=["none", "mean", "cls", "last", "rank"])
    result.add_argument("--batch-size", type=int, default=2048)
    result.add_argument("--ubatch-size", type=int, default=512)
    return result


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--parent"] and arguments[2:3] == ["--exec"]:
        end_with_parent(int(arguments[1]))
        return run_program(arguments[3], arguments[4:])
    options = parser().parse_args(arguments)
    end_with_parent(options.parent)
    run_xllamacpp(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
