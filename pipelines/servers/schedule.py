"""Registers the deployments of prefect.yaml with the Prefect server: which flow runs by itself, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lstfe.errors import UserError
from pipelines.environment import child_environment
from pipelines.servers.programs import WORK_POOL
from pipelines.servers.state import ops_dir

SCHEDULES = Path("prefect.yaml")
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Registered:
    """A deployment as the server has it."""

    name: str
    """FLOW/DEPLOYMENT, as `prefect deployment run` wants it."""
    schedules: tuple[str, ...]
    """Cron lines (UTC) or intervals."""


def register(root: Path, *, interval_seconds: float | None = None) -> list[Registered]:
    """Register every deployment of prefect.yaml and delete those that it named before; again, it changes nothing.

    `interval_seconds` replaces all schedules by an interval, to see them run. Raises UserError without a
    Prefect server, for a wrong prefect.yaml, and for a flow that cannot be loaded.
    """
    api = _api(root)
    deployments = read_deployments(root / SCHEDULES)
    if interval_seconds is not None and interval_seconds <= 0:
        raise UserError(f"--interval must be > 0 seconds, got {interval_seconds}")
    _require_pool(root, api)
    path = root / SCHEDULES
    if interval_seconds is not None:
        path = _with_interval(root, interval_seconds)
    _prefect(root, "deploy", "--all", "--prefect-file", str(path))
    names = {deployment["name"] for deployment in deployments}
    files = {_file(deployment) for deployment in deployments}
    _delete_all_but(names, api, root, files)
    return [item for item in registered(api) if item.name.rpartition("/")[2] in names]


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """Return the deployments of prefect.yaml; raises UserError where they lack a name or an entry point."""
    try:
        contents = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it says which flow runs when") from None
    except YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    deployments = contents.get("deployments") if isinstance(contents, dict) else None
    if not deployments:
        raise UserError(f"{path}: no deployments in it; docs/servers.md shows one")
    for number, deployment in enumerate(deployments, start=1):
        if lacking := [key for key in ("name", "entrypoint", "schedules") if not deployment.get(key)]:
            raise UserError(f"{path}: deployment {number} has no {lacking[0]}; docs/servers.md shows one")
    return list(deployments)


def _delete_all_but(names: set[str], api: str, root: Path, files: set[str]) -> None:
    """Delete the deployments of other names whose flows lie in these files of this very project.

    Another project's may have the same pool.
    """
    with httpx.Client(base_url=api, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        for item in _of_pool(client):
            if item["name"] not in names and _file(item) in files and _directory(item) == root:
                client.delete(f"/deployments/{item['id']}").raise_for_status()


def _of_pool(client: httpx.Client) -> list[dict[str, Any]]:
    """Return the server's deployments that have the project's work pool."""
    wanted = {"work_pools": {"name": {"any_": [WORK_POOL]}}}
    return list(client.post("/deployments/filter", json=wanted).raise_for_status().json())


def _file(deployment: dict[str, Any]) -> str:
    return str(deployment.get("entrypoint")).partition(":")[0]


def _directory(deployment: dict[str, Any]) -> Path | None:
    """Return the folder that a deployment's flow starts in: with `pull: null`, where it was registered."""
    for step in deployment.get("pull_steps") or ():
        place = step.get("prefect.deployments.steps.set_working_directory")
        if place:
            return Path(place["directory"])
    return None


def registered(api: str) -> list[Registered]:
    """Return the deployments of the server that have the project's work pool."""
    with httpx.Client(base_url=api, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        deployments = _of_pool(client)
        flows = client.post("/flows/filter", json={}).raise_for_status().json()
    flow_names = {flow["id"]: flow["name"] for flow in flows}
    return [
        Registered(
            f"{flow_names.get(item['flow_id'], '?')}/{item['name']}",
            tuple(_words(schedule["schedule"]) for schedule in item["schedules"] if schedule["active"]),
        )
        for item in sorted(deployments, key=lambda item: str(item["name"]))
    ]


def _words(schedule: dict[str, Any]) -> str:
    if "cron" in schedule:
        return f"{schedule['cron']} {schedule.get('timezone') or 'UTC'}"
    return f"every {float(schedule.get('interval', 0)):g} s"


def _api(root: Path) -> str:
    api = child_environment(root).get("PREFECT_API_URL")
    if not api:
        raise UserError("no Prefect server: `lstfe ops up` starts one, PREFECT_API_URL names another one")
    return api


def _require_pool(root: Path, api: str) -> None:
    if _has_pool(api):
        return
    try:
        _prefect(root, "work-pool", "create", WORK_POOL, "--type", "process")
    except UserError:
        if not _has_pool(api):  # the worker makes it too, perhaps a moment before us
            raise


def _has_pool(api: str) -> bool:
    try:
        response = httpx.get(f"{api}/work_pools/{WORK_POOL}", timeout=_TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        raise UserError(f"{api}: no answer ({error}); is that Prefect server up?") from None
    return response.status_code != httpx.codes.NOT_FOUND


def _with_interval(root: Path, seconds: float) -> Path:
    yaml = YAML()
    contents = yaml.load((root / SCHEDULES).read_text(encoding="utf-8"))
    for deployment in contents["deployments"]:
        deployment["schedules"] = [{"interval": seconds}]
    path = ops_dir(root) / "prefect.interval.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(contents, file)
    return path


def _prefect(root: Path, *arguments: str) -> None:
    environment = child_environment(root, {"NO_COLOR": "1", "COLUMNS": "200"})
    # The flows are imported from their files, which import `pipelines` from the project's folder.
    paths = [os.fspath(root), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = [line.strip(" │╭╰─╮╯") for line in (result.stdout + result.stderr).splitlines()]
        reason = next((line for line in reversed(said) if line), "no word")
        raise UserError(f"prefect {arguments[0]} failed: {reason}")
