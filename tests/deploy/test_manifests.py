"""What deploy/ holds for containers: parsed, complete in what matters, and of one mind with the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from deploy.service.decoder import MEMORY_BYTES
from deploy.service.settings import load_settings
from pipelines.cli import app
from pipelines.servers.programs import OpsSettings, plan
from pipelines.servers.supervisor import _GRACE_SECONDS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE = ROOT / "deploy" / "compose.yaml"
OTHERS_VARIABLES = ("PREFECT_", "MLFLOW_", "AWS_", "TORCH_", "DO_NOT_TRACK", "POSTGRES_", "LSTFE_SERVE_")
LATER_COMMANDS = {"serve"}
"""Checked by the service's own tests."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in YAML(typ="safe").load_all(path.read_text()) if document]


def compose() -> dict[str, Any]:
    """Read the compose file; its `<<: [*a, *b]` is YAML's own merge."""
    (contents,) = documents(COMPOSE)
    return contents


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(set(KUBERNETES.glob("*.yaml")) - {KUBERNETES / "kustomization.yaml"}):
        for document in documents(path):
            yield path.name, document


def pod_specs() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, resource in resources():
        if resource["kind"] == "Deployment":
            found.append((name, resource["spec"]["template"]["spec"]))
        if resource["kind"] == "PyTorchJob":
            replicas = resource["spec"]["pytorchReplicaSpecs"].values()
            found += [(name, replica["template"]["spec"]) for replica in replicas]
    return found


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [(name, container) for name, pod in pod_specs() for container in pod["containers"]]


def images() -> list[str]:
    return [container["image"] for _, container in containers()] + [
        service["image"] for service in compose()["services"].values()
    ]


def commands() -> list[list[str]]:
    found = [container["command"] for _, container in containers()]
    found += [service["command"] for service in compose()["services"].values() if "command" in service]
    for unit in (ROOT / "deploy" / "systemd").glob("*.service"):
        found.append(_unit(unit)["Service"]["ExecStart"].split())
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    found.append(ast.literal_eval(re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[-1]))
    return found


def _unit(path: Path) -> RawConfigParser:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def test_every_image_is_pinned_by_a_tag_and_names_no_host() -> None:
    assert len(images()) >= 8
    for image in images():
        name, _, tag = image.rpartition(":")
        assert tag not in ("", "latest"), image
        assert "." not in name.split("/")[0], f"{image}: the registry is the user's choice"


def test_our_image_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    own = {image for image in images() if image.startswith("lstfe:")}
    assert own == {f"lstfe:{version[1]}", f"lstfe:{version[1]}-cuda"}


def test_every_container_has_requests_and_limits() -> None:
    for name, container in containers():
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), (name, container["name"])
    for name, service in compose()["services"].items():
        assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys(), name


def test_what_serves_is_probed_and_nothing_runs_as_root() -> None:
    for name, pod in pod_specs():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
    for name, container in containers():
        if container.get("ports"):
            probes = {probe: container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")}
            ports = {port["name"] for port in container["ports"]}
            assert {probe["port"] for probe in probes.values()} <= ports, name
    service = next(c for _, c in containers() if c["name"] == "service")
    assert service["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert service["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for name, item in compose()["services"].items():
        assert "healthcheck" in item or name in ("bucket", "worker"), name


def test_selectors_and_references_meet() -> None:
    by_kind: dict[str, dict[str, dict[str, Any]]] = {}
    for _, resource in resources():
        by_kind.setdefault(resource["kind"], {})[resource["metadata"].get("name", "")] = resource
    labels = {
        name: item["spec"]["template"]["metadata"]["labels"] for name, item in by_kind["Deployment"].items()
    }
    for item in by_kind["Deployment"].values():
        assert item["spec"]["selector"]["matchLabels"].items() <= labels[item["metadata"]["name"]].items()
    assert by_kind["Service"]["lstfe"]["spec"]["selector"].items() <= labels["lstfe"].items()
    assert by_kind["HorizontalPodAutoscaler"]["lstfe"]["spec"]["scaleTargetRef"]["name"] in labels
    volumes = [volume for _, pod in pod_specs() for volume in pod.get("volumes", [])]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    assert claims <= by_kind["PersistentVolumeClaim"].keys()
    for _, container in containers():
        for source in container.get("envFrom", []):
            assert source["configMapRef"]["name"] in by_kind["ConfigMap"]
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "training.yaml"}
    assert set(kustomization["resources"]) == files


def test_every_command_of_ours_exists() -> None:
    known = set(get_command(app).commands) | LATER_COMMANDS  # type: ignore[attr-defined]
    ours = [command for command in commands() if Path(command[0]).name == "lstfe"]
    assert len(ours) >= 4
    for command in ours:
        assert command[1] in known, command
    modules = [command[i + 1] for command in commands() for i, word in enumerate(command) if word == "-m"]
    assert {"pipelines.launch", "pipelines.train"} <= set(modules)
    for module in modules:
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file(), module


def test_every_environment_variable_means_something() -> None:
    names: set[str] = set()
    for _, container in containers():
        names |= {entry["name"] for entry in container.get("env", [])}
    for _, resource in resources():
        if resource["kind"] == "ConfigMap":
            names |= resource["data"].keys()
    for service in compose()["services"].values():
        names |= service.get("environment", {}).keys()
    assert {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "LSTFE_SERVE_TOKENS"} <= names
    assert [name for name in names if not name.startswith(OTHERS_VARIABLES)] == []


def test_compose_asks_for_every_secret_and_the_example_lists_them() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    listed = re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy" / "compose.env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} == asked
    assert {value for _, value in listed} == {""}, "a secret that everybody knows"


def test_compose_opens_ports_to_this_machine_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_waits_for_services_that_are_there() -> None:
    services = compose()["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], needed


def test_the_worker_of_compose_is_a_supervisor_without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = compose()["services"]["worker"]
    assert worker["command"] == ["lstfe", "ops", "up", "--foreground"]
    for name, value in worker["environment"].items():
        monkeypatch.setenv(name, value)
    assert [program.name for program in plan(ROOT, OpsSettings())] == ["worker"]
    # What the supervisor may take: for the worker, then for the stages.
    assert int(worker["stop_grace_period"].removesuffix("s")) > 2 * _GRACE_SECONDS


def test_folders_of_volumes_are_the_users_in_the_image() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    installed = re.findall(r"install --directory --owner lstfe (.*)", dockerfile)
    assert [line.split() for line in installed] == [["/project", "/spool"]]
    own = [item for item in compose()["services"].values() if item["image"].startswith("lstfe:")]
    targets = {volume.split(":")[1] for item in own for volume in _volumes(item)}
    assert targets == {"/spool"}


def _volumes(service: dict[str, Any]) -> list[str]:
    return [volume for volume in service.get("volumes", []) if volume.split(":")[0] in compose()["volumes"]]


def test_the_service_has_the_memory_that_its_settings_can_take() -> None:
    pod = next(container for _, container in containers() if container["name"] == "service")
    in_compose = compose()["services"]["service"]
    for memory, environment in (
        (pod["resources"]["limits"]["memory"], {item["name"]: item.get("value", "") for item in pod["env"]}),
        (in_compose["deploy"]["resources"]["limits"]["memory"], in_compose["environment"]),
    ):
        settings = load_settings({**environment, "LSTFE_SERVE_TOKENS": ""})
        frame = 3 * settings.max_frame_px
        jobs = settings.running_jobs * (MEMORY_BYTES + 4 * frame)
        messages = 5 * settings.max_image_bytes  # the queue of the socket, and the one in hand
        streams = settings.max_streams * (settings.max_pending_frames * frame + messages)
        assert jobs + streams + 512 * 1024**2 <= int(memory.rstrip("Gig")) * 1024**3


def test_units_of_systemd_start_again_and_give_time_to_end() -> None:
    units = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
    assert [unit.name for unit in units] == ["lstfe-ops.service", "lstfe-serve.service"]
    for unit in units:
        service = _unit(unit)["Service"]
        assert service["Restart"] == "always"
        assert int(service["TimeoutStopSec"]) >= 45
        assert service["KillMode"] == "mixed", "children are ended by the program itself"


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001"]
    assert sum(line.startswith("FROM") for line in lines) == 2


def test_kubectl_takes_the_kustomization() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(KUBERNETES)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    kinds = [document["kind"] for document in YAML(typ="safe").load_all(built.stdout)]
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PersistentVolumeClaim"} <= set(kinds)
