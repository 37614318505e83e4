"""A process that starts servers, for tests that kill it: `python owner.py HOW MODEL OPTIONS …`.

HOW: ``runs`` tells of its server once it is ready, ``loads`` once it is spawned too; ``thread`` starts it in a thread
that ends, and leaves its event loop as it is; ``uvloop`` is as ``runs``, on that event loop. MODEL is a GGUF file for
llama.cpp, or empty for a small server with OPTIONS. What is told is a line of JSON.
"""

import asyncio
import json
import sys
import threading
from pathlib import Path

from tests.models.started_servers import Watching, small

from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.llama_cpp.command import LlamaSettings, llama_command
from anywire_engine_models.processes.launcher import ProcessLauncher


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def start(how: str, model: HostedModel) -> None:
    watching = Watching()
    launching = asyncio.create_task(ProcessLauncher().launch(model, "cpu", watching))
    if how == "loads":
        tell(pid=await watching.is_spawned())
    server = await launching
    tell(pid=server.pid, address=server.address, key=server.key)
    if how != "thread":
        tell(signal=(await asyncio.shield(server.exited)).signal)
        await asyncio.get_running_loop().create_future()


def start_in_thread(model: HostedModel) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(start("thread", model)))
    thread.start()
    thread.join()
    tell(thread="ended")
    threading.Event().wait()


def main() -> None:
    how, path, *options = sys.argv[1:]
    if path:
        settings = LlamaSettings(alias="m", server="xllamacpp", context=65536)
        model = HostedModel("local:m:1", launch=llama_command(Path(path), settings=settings))
    else:
        model = small(*options)
    if how == "thread":
        start_in_thread(model)
    elif how == "uvloop":
        import uvloop

        uvloop.run(start(how, model))
    else:
        asyncio.run(start(how, model))


if __name__ == "__main__":
    main()
