"""Where an experiment ran: what a reader needs to judge its figures, and nothing that tells whose machine it was."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path, PurePath

import msgspec
import psutil

import anywire
from anywire.identity import boot_id
from anywire.protocol import PROTOCOL
from anywire_experiment.record import provenance
from anywire_experiment.record.checkout import checkout_of
from anywire_experiment.record.masking import redacted
from anywire_experiment.record.sources import Source

_SYSCTLS = (
    "net/core/rmem_max",
    "net/core/rmem_default",
    "net/core/wmem_max",
    "net/core/wmem_default",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_congestion_control",
    "kernel/sched_autogroup_enabled",
    "vm/swappiness",
)
_CGROUP = ("cpu.max", "memory.max", "cpuset.cpus.effective")


class Environment(msgspec.Struct):
    """One machine and one installation at one time. ``host`` is a hash: it tells two machines apart and names none."""

    anywire: dict[str, str]
    packages: dict[str, str]
    python: str
    commit: str
    dirty: str
    host: str
    boot_id: str
    kernel: str
    machine: str
    cpu_model: str
    cores: int
    usable_cores: list[int]
    governor: str
    turbo: str
    frequency_mhz: list[float]
    clock_source: str
    memory_bytes: int
    swap_bytes: int
    load_average: list[float]
    cgroup: dict[str, str]
    container: str
    network: dict[str, str]
    invocation: list[str]
    protocol: str = ""
    """The version of the messages (`anywire.protocol`); empty in records from before it was told."""
    sources: dict[str, Source] = {}
    """Where the plugins and companions of the plan come from (`sources_of`)."""
    installed: dict[str, Source] = {}
    """By distribution, what else has its part in Anywire here: all that is of others, and its own where that came as
    wheels (`anywire_experiment.record.provenance.installed`)."""


def environment(invocation: Sequence[str], sources: Mapping[str, Source]) -> Environment:
    """Of this process, now; ``sources`` are of what a plan loads (`sources_of`)."""
    installed = {each.metadata["Name"].lower(): each.version for each in distributions()}
    ours = {name: version for name, version in installed.items() if name.split("-")[0] == "anywire"}
    commit, dirty = checkout_of(Path(anywire.__file__))
    frequency = psutil.cpu_freq(percpu=True) if hasattr(psutil, "cpu_freq") else []
    return Environment(
        anywire=dict(sorted(ours.items())),
        packages=dict(sorted((name, version) for name, version in installed.items() if name not in ours)),
        python=f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})",
        commit=commit,
        dirty=dirty,
        host=hashlib.sha256(socket.gethostname().encode()).hexdigest()[:16],
        boot_id=boot_id(),
        kernel=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        cpu_model=_cpu_model(),
        cores=os.cpu_count() or 0,
        usable_cores=sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [],
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(),
        frequency_mhz=[round(each.current) for each in frequency],
        clock_source=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        memory_bytes=psutil.virtual_memory().total,
        swap_bytes=psutil.swap_memory().total,
        load_average=[round(each, 2) for each in os.getloadavg()],
        cgroup={name: _read(f"/sys/fs/cgroup/{name}") for name in _CGROUP},
        container=_container(),
        network={name: _read(f"/proc/sys/{name}") for name in _SYSCTLS} | {"lo mtu": _read("/sys/class/net/lo/mtu")},
        invocation=[_word(redacted(each)) for each in invocation],
        protocol=PROTOCOL,
        sources=dict(sources),
        installed=provenance.installed(),
    )


def _word(given: str) -> str:
    """A word of the command: of a path from the root only its last part, for folders tell of whom they are."""
    option, equals, value = given.rpartition("=")
    path = PurePath(value)
    return f"{option}{equals}…/{path.name}" if path.is_absolute() else given


def differences(before: Environment, after: Environment) -> list[str]:
    """What is not the same as it was, for figures that should come of one environment."""
    said = []
    passing = {"load_average", "frequency_mhz", "invocation"}
    for name in Environment.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name in passing or old == new:
            continue
        if isinstance(old, dict):
            changed = [key for key in {*old, *new} if old.get(key) != new.get(key)]
            said += [f"{name} {key}: {old.get(key, 'none')} → {new.get(key, 'none')}" for key in sorted(changed)]
        else:
            said.append(f"{name}: {old} → {new}")
    return said


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor()


def _turbo() -> str:
    if no_turbo := _read("/sys/devices/system/cpu/intel_pstate/no_turbo"):
        return "off" if no_turbo == "1" else "on"
    boost = _read("/sys/devices/system/cpu/cpufreq/boost")
    return {"1": "on", "0": "off"}.get(boost, "unknown")


def _container() -> str:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    virtual = next((line for line in _read("/proc/1/environ").split("\0") if line.startswith("container=")), "")
    return virtual.removeprefix("container=") or ("virtual machine" if " hypervisor" in _read("/proc/cpuinfo") else "")


def _read(path: str) -> str:
    """A file of the kernel's, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
