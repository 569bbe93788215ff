"""prefect.yaml: what is wrong with it is one line; the project's own names flows that run one at a time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.servers.programs import WORK_POOL
from pipelines.servers.schedule import read_deployments, register

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "no deployments in it"),
        ("deployments: [", "not YAML"),
        ("deployments: []", "no deployments in it"),
        ("deployments: [{name: x, schedules: [{cron: '0 2 * * *'}]}]", "deployment 1 has no entrypoint"),
        ("deployments: [{name: x, entrypoint: 'a.py:b'}]", "deployment 1 has no schedules"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "prefect.yaml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(UserError, match=message):
        read_deployments(path)


def test_without_a_server_nothing_can_be_registered(project: Path) -> None:
    with pytest.raises(UserError, match="no Prefect server: `lstfe ops up` starts one"):
        register(project)


def test_the_projects_flows_run_alone_in_utc_and_outlive_their_worker() -> None:
    deployments = read_deployments(ROOT / "prefect.yaml")

    assert [item["name"] for item in deployments] == ["nightly", "weekly", "hourly"]
    for item in deployments:
        assert item["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert [schedule["timezone"] for schedule in item["schedules"]] == ["UTC"]
        assert item["work_pool"] == {"name": WORK_POOL, "job_variables": {"stream_output": False}}
        assert item["entrypoint"].partition(":")[0] == "pipelines/flows.py"


def test_every_entry_point_is_a_flow() -> None:
    source = ast.parse((ROOT / "pipelines" / "flows.py").read_text())
    functions = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    named = {item["entrypoint"].partition(":")[2] for item in read_deployments(ROOT / "prefect.yaml")}
    if not named & functions:
        pytest.skip("the flows of retraining are not part of this tree")

    assert named <= functions
