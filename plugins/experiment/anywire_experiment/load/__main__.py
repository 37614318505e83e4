"""``python -m anywire_experiment.load SPEC.json``: see `anywire_experiment.load.spec`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
import pydantic

from anywire.errors import AnywireError, ConfigError
from anywire.roles.stop import Stop, run
from anywire_experiment.load.generator import Generator
from anywire_experiment.load.rows import Rows
from anywire_experiment.load.spec import SIGN_OF_LIFE, LoadSpec
from anywire_experiment.load.target import Target
from anywire_experiment.plan.workload import Workload


class _Command(msgspec.Struct):
    do: Literal["warm_up", "measure", "finish"]
    workload: str = ""


_command = msgspec.json.Decoder(_Command)


def say(event: str, **members: Any) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.write(msgspec.json.encode({"event": event, **members}).decode() + "\n")
    sys.__stdout__.flush()


class _Session:
    """One cell, from the first command to the last."""

    def __init__(self, spec: LoadSpec) -> None:
        self._spec = spec
        self._rows = Rows()
        self._targets: dict[str, Target] = {}
        self._generators: dict[str, Generator] = {}

    async def obey(self, command: _Command) -> bool:
        """False after the last command."""
        name = command.workload
        match command.do:
            case "warm_up":
                requests, steady = await (await self._generator(name)).warm_up()
                say("warmed_up", workload=name, requests=requests, steady=steady)
            case "measure":
                generator = await self._generator(name)
                done = await generator.measure(lambda at_ns: say("began", workload=name, at_ns=at_ns))
                say("ended", workload=name, at_ns=done.ended_ns, requests=done.requests, failed=done.failed)
            case "finish":
                await self.close()
                self._rows.write(self._spec.out)
                say("written", rows=len(self._rows))
                return False
        return True

    async def close(self) -> None:
        for target in self._targets.values():
            await target.close()
        self._targets.clear()

    async def _generator(self, name: str) -> Generator:
        if name not in self._generators:
            workload = self._spec.workloads.get(name)
            if workload is None:
                known = ", ".join(self._spec.workloads)
                raise ConfigError(f"there is no workload {name!r} in this cell; there are: {known}")
            self._generators[name] = Generator(
                name,
                workload,
                await self._target(workload),
                self._rows,
                seed=self._spec.seed,
                transports=frozenset(self._spec.transports),
                folder=self._spec.folder,
                request=self._spec.request,
            )
        return self._generators[name]

    async def _target(self, workload: Workload) -> Target:
        through = workload.through
        if through not in self._targets:
            self._targets[through] = await self._open(through)
        return self._targets[through]

    async def _open(self, through: str) -> Target:
        if through == "gateway":
            from anywire_experiment.load.openai_http import HttpTarget

            if not self._spec.url:
                raise ConfigError("a workload goes through the gateway, and the spec has no url")
            return HttpTarget(self._spec.url, self._spec.headers)
        from anywire_experiment.load.client_plane import ClientPlaneTarget

        if self._spec.client_plane is None:
            raise ConfigError("a workload goes through the client plane, and the spec does not say which")
        return await ClientPlaneTarget.open(self._spec.client_plane)


async def _signs_of_life() -> None:
    while True:
        await asyncio.sleep(SIGN_OF_LIFE)
        say("going")


def _session(path: Path) -> _Session:
    return _Session(LoadSpec.model_validate_json(path.read_bytes()))


async def _obey_all(path: Path) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say("ready", pid=os.getpid())
    session = None
    alive = asyncio.create_task(_signs_of_life())
    try:
        while line := await reader.readline():
            session = session or _session(path)
            if not await session.obey(_command.decode(line)):
                return
    finally:
        alive.cancel()
        if session is not None:
            await session.close()


def main() -> int:
    sys.stdout = sys.stderr  # what plugins print is for the log
    try:

        async def work(stop: Stop) -> None:
            await stop.unless(_obey_all(Path(sys.argv[1])))

        run(work)
    except (AnywireError, OSError, msgspec.DecodeError, pydantic.ValidationError) as error:
        say("error", message=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
