"""A stand-in for Ray where none is installed: actors that live in the driver's process. It has what the launcher's
driver uses, and no more. `RAY_STAND_IN` in the environment says what goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

from ray import exceptions, util

FAULT = os.environ.get("RAY_STAND_IN", "")
__version__ = "2.51.9" if FAULT == "old" else "2.52.stand-in"


def init(address: str, **_: Any) -> Any:
    if FAULT == "no head":
        raise ConnectionError(f"nobody answers at {address}")
    if FAULT == "hangs":
        time.sleep(3600)
    if FAULT == "reads" and os.read(0, 1):
        raise RuntimeError("what the driver is told can be read by others")
    if FAULT == "chatter":
        print("what is printed is no report", flush=True)
    return SimpleNamespace(address_info={"gcs_address": address, "node_ip_address": "127.0.0.1"})


def shutdown() -> None:
    for each in list(_Handle.alive):
        kill(each)


def nodes() -> list[dict[str, Any]]:
    return [{"Alive": True}, {"Alive": True}, {"Alive": False}]


def cluster_resources() -> dict[str, float]:
    return {"CPU": 2.0, "node:10.0.0.1": 1.0}


available_resources = cluster_resources


def get_runtime_context() -> Any:
    return SimpleNamespace(get_node_id=lambda: "a-node")


def method(**_: Any) -> Callable[[Any], Any]:
    return lambda function: function


def remote(cls: type) -> Any:
    return _Remote(cls)


def kill(handle: Any, *, no_restart: bool = True) -> None:
    _Handle.alive.discard(handle)
    handle.lose(exceptions.ActorDiedError("it was killed"))


class _Remote:
    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._options: dict[str, Any] = {}

    def options(self, **options: Any) -> _Remote:
        self._options = options
        return self

    def remote(self, *arguments: Any) -> _Handle:
        return _Handle(lambda: self._cls(*arguments), self._options)


class _Handle:
    alive: ClassVar[set[_Handle]] = set()

    def __init__(self, make: Callable[[], Any], options: dict[str, Any]) -> None:
        self._make, self._options = make, options
        self._instance = make()
        self._calls: set[asyncio.Future[Any]] = set()
        self._dead: Exception | None = None
        self.alive.add(self)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def lose(self, error: Exception) -> None:
        """End what runs, as the end of a worker does."""
        pid = self._instance._process.pid if self._instance._process is not None else 0
        if pid:
            os.kill(pid, signal.SIGKILL)
        if isinstance(error, exceptions.ActorUnavailableError):
            self._instance = self._make()
        else:
            self._dead = error
        for call in self._calls:
            if not call.done():
                call.set_exception(error)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._dead is not None:
            result.set_exception(self._dead)
            return result
        self._calls.add(result)
        if any(amount > 1 for amount in self._options["resources"].values()):
            return result  # no node has that
        task = asyncio.ensure_future(getattr(self._instance, name)(*arguments))
        task.add_done_callback(lambda done: self._answer(result, done, name))
        return result

    def _answer(self, result: asyncio.Future[Any], done: asyncio.Future[Any], name: str) -> None:
        if FAULT == "a worker is lost" and name == "report" and self._instance._ready:
            os.environ.pop("RAY_STAND_IN")
            globals()["FAULT"] = ""
            self.lose(exceptions.ActorUnavailableError("the worker is gone", None))
        self._calls.discard(result)
        if not result.done():
            result.set_result(done.result())


__all__ = ["exceptions", "util"]
