"""Containers of compose and of pods, run as their files say: with the mounts, variables and users that stand there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.integration.deployments import BASE, DEPLOY, Image, base, image, pod_of
from tests.patience import PATIENCE
from tests.system.contained import Spec, why_not

BIN = Path(sys.executable).parent
HOSTS = ("nats", "orchestrator-agents", "model-server")
MODEL_SERVER = 8000
FOLDERS = {"/tmp": "1777", "/state": "0700"}
"""Folders of the images, and their modes."""
URL = "http://127.0.0.1:8080"


def client_of(key: str) -> httpx.AsyncClient:
    """Who asks the orchestrator with that key."""
    return httpx.AsyncClient(base_url=URL, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE)


def opened(folder: Path) -> None:
    """Let every user pass through the folders above one of a test."""
    for each in (folder, *folder.parents):
        if each != Path("/tmp") and each.stat().st_uid == os.geteuid():
            each.chmod(each.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)


class Compose:
    """The folder of compose as somebody has it who has run ``./prepare``; agents ask the server ``model-server``."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(DEPLOY, folder / "deploy")
        opened(folder)
        self.folder = folder / "deploy" / "compose"
        self.services: dict[str, Any] = yaml.safe_load((self.folder / "compose.yaml").read_text())["services"]
        self._secrets = yaml.safe_load((self.folder / "compose.yaml").read_text())["secrets"]
        made = self.prepare()
        assert made.returncode == 0, made.stderr
        pairs = (line.split("=") for line in (self.folder / ".env").read_text().splitlines())
        self.variables = dict(pairs)
        self._answer_with_the_model_server()

    def prepare(self) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ANYWIRE": "anywire", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            [self.folder / "prepare"], env=environment, cwd="/", text=True, capture_output=True, check=False
        )

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def spec(self, name: str) -> Spec:
        """The service of that name."""
        service = self.services[name]
        mounts: dict[str, Path] = {}
        kept: dict[str, Path] = {}
        for each in service["volumes"]:
            (mounts if each.get("read_only") else kept)[each["target"]] = (self.folder / each["source"]).resolve()
        for each in service.get("secrets", ()):
            mounts[f"/run/secrets/{each}"] = (self.folder / self._secrets[each]["file"]).resolve()
        return Spec(
            image(name) if service["image"].startswith("anywire") else _others(),
            service["command"],
            mounts,
            kept,
            [self._in_memory(each) for each in service.get("tmpfs", ())],
            service.get("environment", {}),
            f"{self.variables['ANYWIRE_UID']}:{self.variables['ANYWIRE_GID']}",
            HOSTS,
        )

    def _in_memory(self, said: str) -> str:
        """A folder in memory as Docker mounts it: without options it is root's, with its mode in the image."""
        if ":" not in said:
            return f"{said}:mode={FOLDERS[said]}"
        return re.sub(r"\$\{(\w+)\}", lambda found: self.variables[found[1]], said)

    def _answer_with_the_model_server(self) -> None:
        """Do what the comment in agent.yaml says."""
        file = self.folder / "agent.yaml"
        made_up, named = "engine: synthetic\n", "#   engine: {name: openai"
        text = file.read_text()
        assert made_up in text
        assert named in text
        file.write_text(text.replace(made_up, "").replace(named, "engine: {name: openai"))


def _others() -> Image:
    """NATS's image, as far as it matters here: its server is the one of the tests."""
    other = image("agent")
    other.entry_point, other.environment, other.folder = ["/opt/anywire/bin/nats-server"], {}, "/"
    return other


def pod(
    name: str, folder: Path, secrets: Mapping[str, Mapping[str, bytes]], state: Path
) -> tuple[Spec, dict[str, Any]]:
    """The container of a workload of the base, with configuration and secrets as the kubelet mounts them, and what its
    manifest says of it. ``state`` is the volume of that name."""
    (workload,) = (each for each in base("Deployment", "StatefulSet") if each["metadata"]["name"] == name)
    (container,) = pod_of(workload)["containers"]
    user = pod_of(workload)["securityContext"]
    volumes = {each["name"]: each for each in pod_of(workload)["volumes"]}
    mounts, kept, empty = {}, {}, []
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if "configMap" in volume:
            files = {"anywire.yaml": (BASE / "config" / f"{volume['configMap']['name']}.yaml").read_bytes()}
            mounts[mount["mountPath"]] = _projected(folder / mount["name"], files, 0o644, 0)
        elif "secret" in volume:
            files = dict(secrets[volume["secret"]["secretName"]])
            mode, group = volume["secret"]["defaultMode"], user["fsGroup"]
            mounts[mount["mountPath"]] = _projected(folder / mount["name"], files, mode, group)
        elif mount["name"] == "state":
            _as_the_kubelet_opens(state, user["fsGroup"], user.get("fsGroupChangePolicy", "Always"))
            kept[mount["mountPath"]] = state
        else:
            empty.append(mount["mountPath"])
    variables = {}
    for each in container["env"]:
        key = each.get("valueFrom", {}).get("secretKeyRef")
        variables[each["name"]] = secrets[key["name"]][key["key"]].decode() if key else each["value"]
    made = image("agent" if name == "agent" else "orchestrator")
    run_as = f"{user['runAsUser']}:{user['runAsGroup']}"
    return Spec(made, container["args"], mounts, kept, empty, variables, run_as, HOSTS), container


def unit(path: Path, folder: Path, instance: str = "") -> Spec:
    """What a unit of systemd starts, with ``folder`` as /etc/anywire and everything else in memory."""
    text = path.read_text().replace("%i", instance)
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    program, *arguments = said["ExecStart"].split()
    made = image("orchestrator")
    made.entry_point, made.folder = [program], "/"
    made.environment = dict(each.split("=", 1) for each in said["Environment"].split())
    assert (said["User"], said["Group"]) == ("anywire", "anywire")
    empty = ("/tmp", f"/var/lib/{said['StateDirectory']}", f"/run/{said['RuntimeDirectory']}")
    return Spec(made, arguments, {"/etc/anywire": folder}, {}, empty)


def _projected(folder: Path, files: Mapping[str, bytes], mode: int, group: int) -> Path:
    data = folder / "..2026_01_31"
    data.mkdir(parents=True)
    for name, content in files.items():
        (data / name).write_bytes(content)
        (data / name).chmod(mode)
        os.chown(data / name, 0, group)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to(data.name)
    data.chmod(0o755)
    folder.chmod(0o1777)
    return folder


def _as_the_kubelet_opens(volume: Path, group: int, policy: str) -> None:
    """Let the group in: everything, unless the policy is to look at the root and that is right already."""
    volume.mkdir(exist_ok=True)
    status = volume.stat()
    right = status.st_gid == group and status.st_mode & 0o2070 == 0o2070
    if policy == "OnRootMismatch" and right:
        return
    for each in (volume, *_below(volume)):
        os.chown(each, -1, group)
        each.chmod(each.stat().st_mode | (0o2770 if each.is_dir() else 0o660))


def _below(folder: Path) -> Iterator[Path]:
    return (each for each in folder.rglob("*") if not each.is_symlink())


UNAVAILABLE = why_not() or ("" if shutil.which("nats-server", path=str(BIN)) else "missing: nats-server")
