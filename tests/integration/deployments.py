"""The files of deploy/, read: manifests as kustomize puts them together, services of compose, Dockerfiles, units."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
BASE = DEPLOY / "kubernetes" / "base"


def documents(path: Path) -> list[dict[str, Any]]:
    """The manifests in one file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def base(*kinds: str) -> list[dict[str, Any]]:
    """The manifests of these kinds in the base, as they stand in its files."""
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    found = [each for name in names for each in documents(BASE / name)]
    return [each for each in found if not kinds or each["kind"] in kinds]


def named(of: dict[str, Any]) -> str:
    return f"{of['kind']} {of['metadata']['name']}"


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


class Image:
    """What a Dockerfile says of the containers that are made of it: its last stage."""

    def __init__(self, path: Path) -> None:
        joined = path.read_text().replace("\\\n", " ")
        lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
        self.bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
        last = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM ")) :]
        said = [line.partition(" ")[::2] for line in last]
        self.environment = dict(
            word.split("=", 1) for name, rest in said if name == "ENV" for word in shlex.split(rest)
        )
        one = dict(said)
        self.user, self.folder = one["USER"], one.get("WORKDIR", "/")
        # Ray's operator says what runs in the containers of an image without these.
        self.entry_point: list[str] = json.loads(one.get("ENTRYPOINT", "[]"))
        self.command: list[str] = json.loads(one.get("CMD", "[]"))
        found = re.findall(r"CMD (\[.*\])", one.get("HEALTHCHECK", "CMD []"))
        self.health: list[str] = json.loads(found[0])


def image(name: str) -> Image:
    """The one of that name: orchestrator or agent."""
    return Image(DEPLOY / "docker" / f"{name}.Dockerfile")
