"""prefect.yaml: what is wrong with it is one line; the project's own names flows that run one at a time."""

from __future__ import annotations

import ast
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lstfe.errors import UserError
from pipelines.servers import schedule
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


class _Server(BaseHTTPRequestHandler):
    """Plays Prefect's server with the deployments of two projects."""

    deployments: ClassVar[list[dict[str, Any]]] = []
    deleted: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.deployments if self.path == "/api/deployments/filter" else [])

    def do_GET(self) -> None:
        self._answer({})

    def do_DELETE(self) -> None:
        self.deleted.append(self.path.rpartition("/")[2])
        self._answer({})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_deployment_that_the_file_names_no_more_goes_and_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str, *, file: str = "pipelines/flows.py", directory: Path = project) -> dict[str, Any]:
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(directory)}}
        identity = {"id": name, "name": name, "flow_id": "f", "schedules": [], "pull_steps": [step]}
        return identity | {"entrypoint": f"{file}:retrain"}

    kept = [
        made("nightly"),
        made("by-hand", file="own.py"),
        made("theirs", directory=project.parent),
        made("pulled") | {"pull_steps": None},
    ]
    _Server.deployments, _Server.deleted = [*kept, made("renamed")], []
    (project / "prefect.yaml").write_text(
        "deployments: [{name: nightly, entrypoint: 'pipelines/flows.py:retrain', schedules: [{cron: '0 2 * * *'}]}]"
    )
    monkeypatch.setattr(schedule, "_prefect", lambda *arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        register(project)
        server.shutdown()

    assert _Server.deleted == ["renamed"]


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
