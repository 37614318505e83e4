"""The manifests for Kubernetes are held against the code: configurations, probes, users and modes of files."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.integration.test_docs import ROOT

from anywire.cli import app
from anywire.config_layers import load
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.plugins import Plugins
from anywire.roles.assembly import effective

FOLDER = ROOT / "examples" / "kubernetes"
PAGE = (ROOT / "docs" / "how-to" / "who-may-do-what.md").read_text()
MANIFESTS = [each for path in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in MANIFESTS if each["kind"] in kinds]


def named(of: dict[str, Any]) -> str:
    return f"{of['kind']} {of['metadata']['name']}"


WORKLOADS = of_kind("Deployment", "StatefulSet")


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_workload_is_confined_and_has_what_it_mounts(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert "USER 10001" in (FOLDER / "Dockerfile").read_text()
    assert not pod["automountServiceAccountToken"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    for container in pod["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"]
        assert not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {each["name"] for each in container["volumeMounts"]} == volumes.keys()
        command = typer.main.get_command(app).commands[container["args"][0]]  # type: ignore[attr-defined]
        assert {each for each in container["args"] if each.startswith("-")} <= {
            option for parameter in command.params for option in parameter.opts
        }
        probes = [value["httpGet"]["path"] for key, value in container.items() if key.endswith("Probe")]
        assert set(probes) <= {"/health"}
    for volume in volumes.values():
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
            assert f"create secret generic {volume['secret']['secretName']} " in PAGE
        if "configMap" in volume:
            assert volume["configMap"]["name"] in {each["metadata"]["name"] for each in of_kind("ConfigMap")}


@pytest.mark.parametrize("manifest", of_kind("ConfigMap"), ids=named)
def test_a_configuration_in_a_manifest_is_one(manifest: dict[str, Any], tmp_path: Path) -> None:
    text = manifest["data"]["anywire.yaml"]
    wanted = set(re.findall(r"/secrets/curve/([\w.]+)", text))
    given = {
        file
        for line in re.findall(r"create secret generic curve-\w+ .*", PAGE)
        for file in re.findall(r"--from-file=curve/([\w.]+)", line)
    }
    assert wanted <= given
    from anywire_zeromq.keys import make_keys

    make_keys(tmp_path / "curve")
    path = tmp_path / "anywire.yaml"
    path.write_text(text.replace("/secrets", str(tmp_path)))
    config = load(path, environment={})
    _, faults = effective(config, Plugins())
    assert not faults
    if manifest["metadata"]["name"] != "agent":
        assert config.access.keys is not None, "an orchestrator in a cluster needs keys"


def test_selectors_and_services_lead_to_pods() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in WORKLOADS]
    for service in of_kind("Service"):
        assert any(service["spec"]["selector"].items() <= each.items() for each in labels), named(service)
    for workload in WORKLOADS:
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    names = [(named(each), each["metadata"]["namespace"]) for each in MANIFESTS]
    assert {namespace for _, namespace in names} == {"anywire"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files as the kubelet does")
def test_files_of_a_secret_are_taken_as_the_kubelet_mounts_them(tmp_path: Path) -> None:
    """A folder that all may write to with the sticky bit, links in it, files of root that a group may read."""
    mounted = tmp_path / "clients"
    data = mounted / "..2026_01_31"
    data.mkdir(parents=True)
    file = data / "keys.json"
    add_key(file, record_of(new_key()))
    file.chmod(0o440)
    os.chown(file, 0, 10001)
    data.chmod(0o755)
    mounted.chmod(0o1777)
    (mounted / "..data").symlink_to(data.name)
    (mounted / "keys.json").symlink_to("..data/keys.json")
    for folder in itertools.takewhile(lambda each: each != Path("/tmp"), tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.setgid(10001)
        os.setuid(10001)
        from anywire.keys.key_records import read_keys

        try:
            os.write(write, str(len(read_keys(mounted / "keys.json"))).encode())
        except BaseException as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000) == b"1"
