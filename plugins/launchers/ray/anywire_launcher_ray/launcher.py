"""The launcher ``ray``."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any, ClassVar

import pydantic

from anywire import config as configuration
from anywire.errors import ConfigError
from anywire.launcher import Launcher, RoleName
from anywire.this_system import needs_posix
from anywire_launcher_ray.config import OWN, RayConfig
from anywire_launcher_ray.driver_process import DriverProcess
from anywire_launcher_ray.messages import Connected, Down, Ended, Placed, Reported, Reports, Start, Stop, Waiting
from anywire_launcher_ray.process import RayProcess

log = logging.getLogger(__name__)

HERE = "127.0.0.1"


class RayLauncher(Launcher):
    """Agents as actors of a Ray cluster. The driver's process starts with the first agent and is shared by all."""

    name: ClassVar[str] = "ray"
    Config: ClassVar[type[pydantic.BaseModel]] = RayConfig
    config: RayConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.driver: DriverProcess | None = None
        self._processes: dict[int, RayProcess] = {}
        self._started = 0
        self._cluster: asyncio.Future[Connected] | None = None
        self._warned = False
        self._failed = ""

    async def start(
        self, role: RoleName, config: configuration.Config, name: str, changed: Callable[[], None] = lambda: None
    ) -> RayProcess:
        needs_posix("the launcher ray")
        driver = self._running_driver()
        number, self._started = self._started, self._started + 1
        start = Start(
            number, name, role, config.model_dump_json(), config.lease.timeout, self.config.place(name, number)
        )
        process = RayProcess(start, changed, lambda grace: self._stop(process, grace))
        self._processes = {each.number: each for each in (*self._processes.values(), process) if not each.is_over}
        if self._failed:
            process.over(self._failed)
        else:
            driver.tell(process.order)
        return process

    async def reached(self) -> str:
        """The address by which the nodes reach this machine. Waits until the cluster is known. Raises `ConfigError`
        when the cluster cannot be used."""
        if self.config.reach:
            return self.config.reach
        if self.config.address == OWN:
            return HERE
        self._running_driver()
        assert self._cluster is not None
        return (await asyncio.shield(self._cluster)).host

    async def close(self) -> None:
        processes = [each for each in self._processes.values() if not each.is_over]
        await asyncio.gather(*(each.stop() for each in processes))
        if self.driver is not None:
            await self.driver.close()
        if self._cluster is not None and not self._cluster.cancel() and not self._cluster.cancelled():
            self._cluster.exception()

    def _running_driver(self) -> DriverProcess:
        if self.driver is None:
            if importlib.util.find_spec("ray") is None:
                raise ConfigError(
                    "the launcher ray needs the package ray, in the version of the cluster: "
                    "pip install 'anywire-launcher-ray[ray]'"
                )
            told = f"connecting to the Ray cluster at {self.config.address}" if self.config.address else "starting Ray"
            log.info("%s", told)
            self._cluster = asyncio.get_running_loop().create_future()
            self.driver = DriverProcess(
                self.config.address,
                connected=self._connected,
                told=self._told,
                lost=self._lost,
                ended=self._ended,
            )
        return self.driver

    def _connected(self, cluster: Connected) -> None:
        assert self.driver is not None
        assert self._cluster is not None
        log.info(
            "connected to the Ray cluster at %s: Ray %s, %d nodes", cluster.address, cluster.version, cluster.nodes
        )
        if not self._warned:
            self._warned = True
            log.warning("%s", _open(cluster, is_own=self.config.address == OWN))
        if not self._cluster.done():
            self._cluster.set_result(cluster)
        for process in self._processes.values():
            if not process.is_over:
                self.driver.tell(process.order)

    def _told(self, told: Reports) -> None:
        process = self._processes.get(getattr(told, "agent", -1))
        if process is None or process.is_over:
            return
        match told:
            case Placed():
                process.placed(told)
            case Reported():
                process.reported(told)
            case Down():
                process.down(told)
            case Waiting():
                process.waiting(told)
            case Ended():
                process.ended_for_good(told)

    def _lost(self, reason: str, pause: float) -> None:
        log.error("the Ray cluster is lost with its agents (%s), again in %.1f s", reason, pause)
        for process in list(self._processes.values()):
            if process.is_stopping:
                process.over(f"stopped ({reason})")
            elif not process.is_over:
                process.away()

    def _ended(self, reason: str) -> None:
        assert self._cluster is not None
        self._failed = f"Ray cannot be used: {reason}"
        if not self._cluster.done():
            self._cluster.set_exception(ConfigError(self._failed))
        for process in list(self._processes.values()):
            process.over(self._failed)

    def _stop(self, process: RayProcess, grace: float) -> None:
        if self.driver is not None and self.driver.is_connected:
            self.driver.tell(Stop(process.number, grace))
        else:
            process.over("stopped (it was not running)")


def _open(cluster: Connected, *, is_own: bool) -> str:
    """What is to be known of the ports of Ray."""
    if is_own:
        ports = ", ".join(map(str, cluster.ports)) or "(which are not seen)"
        return (
            f"Ray listens on all interfaces of this machine, on the ports {ports} and further ones for each agent: it "
            "refuses whoever has not the token that only this user can read; let a firewall keep them from others"
        )
    told = f"the Ray cluster at {cluster.address} listens on all interfaces of its nodes"
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return f"{told} and asks for a token; let a firewall keep its ports from others all the same"
    return f"{told} and asks for no token: whoever reaches its ports runs programs there, unless a firewall is in front"
