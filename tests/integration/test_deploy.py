"""The files of deploy/ are held against the code: configurations, options, probes, users, modes, times to end."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.integration.deployments import (
    BASE,
    COMPOSE,
    DEPLOY,
    DOCKERFILES,
    ROOT,
    UNITS,
    Image,
    base,
    documents,
    image,
    named,
    pod_of,
)

from anywire.cli import app
from anywire.config_layers import load
from anywire.keys.key_records import add_key, record_of
from anywire.keys.key_text import new_key
from anywire.plugins import Plugins
from anywire.roles import alive
from anywire.roles.assembly import effective
from anywire.roles.orchestrator_role import SETTLE

PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
WORKLOADS = base("Deployment", "StatefulSet")
CONFIGS = [
    path
    for folder in ("compose", "kubernetes/base/config", "kubernetes/standby/config", "kubernetes/ray/config")
    for path in sorted((DEPLOY / folder).glob("*.yaml"))
    if path.name in ("orchestrator.yaml", "agent.yaml")
]


def options_of(arguments: list[str]) -> set[str]:
    """Those of ``arguments`` that the command that they begin with does not have."""
    command = typer.main.get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    return {each for each in arguments if each.startswith("-")} - known


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_workload_is_confined_and_has_what_it_mounts(workload: dict[str, Any]) -> None:
    pod = pod_of(workload)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    claimed = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())}
    for container in pod["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"]
        assert not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {each["name"] for each in container["volumeMounts"]} == volumes.keys() | claimed
        assert not options_of(container["args"])
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        assert {each["httpGet"]["path"] for each in probes if "httpGet" in each} <= {"/healthz", "/readyz"}
        assert container["livenessProbe"]
    if claimed:
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    for volume in volumes.values():
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
            assert f"create secret generic {volume['secret']['secretName']} " in PAGE


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_pod_has_the_time_to_end_what_runs(workload: dict[str, Any]) -> None:
    name = workload["metadata"]["name"]
    grace = yaml.safe_load((BASE / "config" / f"{name}.yaml").read_text())["shutdown_grace"]
    (container,) = pod_of(workload)["containers"]
    before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert pod_of(workload)["terminationGracePeriodSeconds"] > float(before[1]) + grace + SETTLE


@pytest.mark.parametrize("name", ["orchestrator", "agent"])
def test_a_container_of_compose_has_the_time_to_end_what_runs(name: str) -> None:
    grace = yaml.safe_load((DEPLOY / "compose" / f"{name}.yaml").read_text())["shutdown_grace"]
    assert float(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > grace + SETTLE


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_configuration_is_one(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    wanted = set(re.findall(r"/secrets/curve/([\w.]+)", text))
    made = re.findall(r"create secret generic curve-\w+ .*", PAGE)
    given = {file for line in made for file in re.findall(r"--from-file=curve/([\w.]+)", line)}
    assert wanted <= given
    from anywire_zeromq.keys import make_keys

    make_keys(tmp_path / "curve")
    copy = tmp_path / "anywire.yaml"
    copy.write_text(text.replace("/secrets", str(tmp_path)))
    config = load(copy, environment={})
    _, faults = effective(config, Plugins())
    assert not faults
    if path.name == "orchestrator.yaml":
        assert config.access.keys is not None, "an orchestrator that others reach needs keys"


def test_selectors_services_and_budgets_lead_to_pods() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in WORKLOADS]
    for service in base("Service"):
        assert any(service["spec"]["selector"].items() <= each.items() for each in labels), named(service)
    for selecting in (*WORKLOADS, *base("PodDisruptionBudget")):
        selector = selecting["spec"]["selector"]["matchLabels"]
        assert any(selector.items() <= each.items() for each in labels), named(selecting)
    for policy in base("NetworkPolicy"):
        assert any(policy["spec"]["podSelector"]["matchLabels"].items() <= each.items() for each in labels)
    assert {each["metadata"].get("namespace", "anywire") for each in base()} == {"anywire"}


@pytest.mark.parametrize("name", ["orchestrator", "agent"])
def test_names_of_orchestrators_that_stand_by_lead_to_their_pods_whichever_these_are(name: str) -> None:
    """DDS resolves a name once, and only one that has an address: services have theirs always, pods and headless
    services have those of pods that are there."""
    folder = DEPLOY / "kubernetes" / "standby"
    dds = yaml.safe_load((folder / "config" / f"{name}.yaml").read_text())["transports"]["dds"]
    (pods,) = documents(folder / "orchestrator.yaml")
    assert len(dds["peers"]) == pods["spec"]["replicas"]
    services = {each["metadata"]["name"]: each["spec"] for each in documents(folder / "fleet.yaml")}
    for peer in dds["peers"]:
        assert services[peer].get("clusterIP") is None
        assert services[peer]["publishNotReadyAddresses"]
        assert services[peer]["selector"]["statefulset.kubernetes.io/pod-name"] == peer
        assert re.fullmatch(rf"{pods['metadata']['name']}-\d", peer)
        (port,) = services[peer]["ports"]
        assert (port["port"], port["protocol"]) == (7400 + 250 * dds.get("domain", 0) + 10, "UDP")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_not_roots_and_starts_a_command_that_is_there(path: Path) -> None:
    made = Image(path)
    for each in made.bases:
        assert re.search(r":\d+\.\d+", each), f"{each} is no version"
    assert made.user.split(":")[0] != "root"
    assert made.user.split(":")[0] != "0"
    if path.stem != "ray":
        assert made.entry_point == ["anywire"]
        assert not options_of(made.command)
        assert made.health
    copied = re.findall(r"\./(plugins/[\w/]+\w)(?=[\[\" ]|$)", path.read_text(), re.M)
    assert copied
    for each in copied:
        assert (ROOT / each).is_dir(), each


@pytest.mark.parametrize("name", ["agent", "ray"])
def test_an_image_with_llama_has_the_library_that_its_engine_loads(name: str) -> None:
    """xllamacpp's wheel is built against libgomp.so.1 and does not bring it."""
    _, last = (DEPLOY / "docker" / f"{name}.Dockerfile").read_text().rsplit("\nFROM ", 1)
    assert re.search(r'^ARG ENGINES\n(#.*\n)*RUN case .*" llama ".*" models ".*\\\n.* libgomp1 ', last, re.M)


def test_all_pods_of_a_ray_cluster_have_the_version_that_is_tested() -> None:
    (version,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)
    cluster = documents(DEPLOY / "kubernetes" / "ray" / "raycluster.yaml")[0]
    assert cluster["spec"]["rayVersion"] == version
    assert Image(DEPLOY / "docker" / "ray.Dockerfile").bases[-1].startswith(f"rayproject/ray:{version}-")


@pytest.mark.parametrize("name", ["orchestrator", "ray"])
def test_the_image_of_an_orchestrator_has_all_services(name: str) -> None:
    there = {path.parent.name for path in (ROOT / "plugins" / "services").glob("*/pyproject.toml")}
    text = (DEPLOY / "docker" / f"{name}.Dockerfile").read_text()
    assert set(re.findall(r"\./plugins/services/(\w+)", text)) == there


def test_images_are_built_from_the_tree_alone() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in lines, "a file of keys in the folder must not come into an image"
    assert all((ROOT / line[1:]).exists() for line in lines if line.startswith("!"))


def test_the_probe_of_agents_is_older_than_what_they_tell() -> None:
    (agent,) = (each for each in WORKLOADS if each["metadata"]["name"] == "agent")
    (container,) = pod_of(agent)["containers"]
    probe = container["livenessProbe"]["exec"]["command"]
    (seconds,) = re.findall(r"-(\d+) seconds", probe[2])
    assert int(seconds) >= 4 * alive.INTERVAL
    assert image("agent").health == probe
    environment = {each["name"]: each.get("value") for each in container["env"]}
    file = environment["ANYWIRE_ALIVE_FILE"]
    assert file is not None
    assert file in probe[2]
    assert image("agent").environment["ANYWIRE_ALIVE_FILE"] == file


def test_nothing_of_compose_is_reached_from_elsewhere_runs_as_root_or_is_of_no_version() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["user"].startswith("${ANYWIRE_UID:?"), name
        assert service["mem_limit"], name
        assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", service["image"]), name
        assert "privileged" not in service
        if service["image"].startswith("anywire"):
            assert not options_of(service["command"])
    assert COMPOSE["services"]["agent"]["deploy"]["replicas"] == 2
    assert all(each["file"].startswith("./secrets/") for each in COMPOSE["secrets"].values())
    ignored = (DEPLOY / "compose" / ".gitignore").read_text().split()
    assert {"/.env", "/secrets/", "/state/"} <= set(ignored)


def test_what_is_mounted_in_compose_is_where_it_is_read() -> None:
    for name in ("orchestrator", "agent"):
        service = COMPOSE["services"][name]
        mounted = [each["target"] for each in service["volumes"]] + [
            f"/run/secrets/{each}" for each in service["secrets"]
        ]
        text = (DEPLOY / "compose" / f"{name}.yaml").read_text()
        for read in re.findall(r"(/(?:run/)?secrets/[\w./]+)", text):
            assert any(read == each or read.startswith(f"{each}/") for each in mounted), read
        assert service["command"][-1] in mounted
    for service in COMPOSE["services"].values():
        for each in service.get("volumes", ()):
            source = DEPLOY / "compose" / each["source"]
            made = each["source"].startswith(("./secrets/", "./state/"))
            assert made or source.exists(), source
            assert not made or not each.get("bind", {}).get("create_host_path", True), (
                f"Docker would make {source} as root"
            )


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_is_there_and_gives_it_the_time_to_end(path: Path) -> None:
    text = path.read_text()
    (command,) = re.findall(r"^ExecStart=\S+/anywire (.*)$", text, re.M)
    assert not options_of(command.split())
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    graces = [float(each) for each in re.findall(r"shutdown_grace: (\d+)", PAGE)]
    assert graces
    assert int(stop) > max(graces) + SETTLE
    (watchdog,) = re.findall(r"^WatchdogSec=(\d+)$", text, re.M)
    assert int(watchdog) >= 4 * alive.INTERVAL


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
