"""Flow runs whose process died without a word (a kill, a power cut): Prefect would show them running for ever.

With `concurrency_limit: 1` such a run would also keep all later ones from starting. Before a worker starts, its
predecessor's runs are looked through: those whose process still runs are left alone; of the others what is left is
ended, and they are started again (the flows are idempotent), at most `MAX_STARTS` times in all. The webhook hears of
those that are given up: the flow's own hooks (pipelines/flows.py) run in the process that is gone.

On a server that others use too, whose runs are lost cannot be told from here. There a supervisor that is told to stop
puts back those runs that it has ended itself.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from pipelines.notify import notify
from pipelines.servers.processes import end, with_variable

RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
"""Prefect gives it to the process of a flow run; the stages inherit it."""
MAX_STARTS = 3
_GRACE_SECONDS = 30.0  # a training saves within this time
_TIMEOUT_SECONDS = 20.0
_STOP_SECONDS = 5.0  # whoever stops us has little patience left
_UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]


def recover(root: Path, api: str, work_pool: str, report: Callable[[str], None]) -> None:
    """Put the pool's lost runs back; `api` must be a server whose workers are all on this machine.

    Raises httpx.HTTPError when the server does not answer.
    """
    with httpx.Client(base_url=api, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        wanted = {
            "flow_runs": {"state": {"type": {"any_": _UNFINISHED}}},
            "work_pools": {"name": {"any_": [work_pool]}},
        }
        response = client.post("/flow_runs/filter", json=wanted).raise_for_status()
        for run in response.json():
            if is_alive(run):
                report(f"flow run {run['name']}: its process outlived its worker and is left alone")
                continue
            end(with_variable(RUN_VARIABLE, run["id"]), grace_seconds=_GRACE_SECONDS)
            _settle(client, run, root, report)


def put_back(
    root: Path, environment: Mapping[str, str], run_ids: Iterable[str], report: Callable[[str], None]
) -> None:
    """Put runs back whose processes were ended with their worker, but for those that had come to an end.

    `environment` has Prefect's settings of the server. Raises httpx.HTTPError when it does not answer.
    """
    with httpx.Client(
        base_url=environment["PREFECT_API_URL"], timeout=_STOP_SECONDS, headers=_authorization(environment)
    ) as client:
        for run_id in run_ids:
            run = client.get(f"/flow_runs/{run_id}").raise_for_status().json()
            if run["state_type"] in _UNFINISHED:
                _settle(client, run, root, report)


def _authorization(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the header that Prefect's own client sends."""
    if key := environment.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if words := environment.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
    return {}


def _settle(client: httpx.Client, run: dict[str, Any], root: Path, report: Callable[[str], None]) -> None:
    """Tell Prefect what becomes of a lost run, and the webhook if that is the end of it."""
    state = next_state(run)
    body = {"state": state, "force": True}
    client.post(f"/flow_runs/{run['id']}/set_state", json=body).raise_for_status()
    report(f"flow run {run['name']}: {state['message']}")
    if state["type"] == "CRASHED":
        flow = _flow_name(client, run)
        notify(root, "flow failed", state["message"], flow=flow, run=run["name"], state="Crashed")


def _flow_name(client: httpx.Client, run: dict[str, Any]) -> str:
    try:
        return str(client.get(f"/flows/{run['flow_id']}").raise_for_status().json()["name"])
    except (httpx.HTTPError, ValueError, KeyError):  # what failed is told all the same
        return "?"


def is_alive(run: dict[str, Any]) -> bool:
    """Return whether the process that runs the flow itself (not one of its stages) is still there."""
    pid = str(run.get("infrastructure_pid") or "").rpartition(":")[2]
    return any(str(process.pid) == pid for process in with_variable(RUN_VARIABLE, run["id"]))


def next_state(run: dict[str, Any]) -> dict[str, Any]:
    """Return what becomes of a lost run: started again, or given up."""
    if run["state_type"] == "CANCELLING":
        return {"type": "CANCELLED", "message": "cancelled; its process had already died"}
    starts = int(run.get("run_count") or 0)
    if starts >= MAX_STARTS:
        return {"type": "CRASHED", "message": f"its process died in each of {starts} starts; given up"}
    return {
        "type": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": "its process died with its worker; started again",
        "state_details": {"scheduled_time": datetime.now(UTC).isoformat()},
    }
