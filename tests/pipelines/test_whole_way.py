"""From nothing to a deployed detector, by `dvc repro`, on a few tiny videos; and then nothing is left to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lstfe.data.video import probe_video
from pipelines.demo import run_demo
from pipelines.environment import child_environment
from pipelines.stage import outdated_stages

from ..project_copy import commit_all, copy_project

STAGES = ("render", "prepare", "train", "evaluate", "export", "deploy")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMOKE: dict[str, dict[str, Any]] = {
    "render": {
        "num_train_videos": 2,
        "num_val_videos": 1,
        "num_test_videos": 1,
        "num_frames": 12,
        "image_size": [96, 128],
        "drone_size_px": [10.0, 24.0],
    },
    "train": {
        "iterations": 30,
        "batch_size": 2,
        "warmup_iterations": 1,
        "still_iterations": 0,
        "num_workers": 0,
        "log_every": 5,
        "checkpoint_every": 5,
        "validate_every": 0,
        "validation_frames": 2,
    },
    "inference": {"lookahead": 2},
    "evaluate": {"num_pictures": 2},
    "export": {"parity_frames": 2},
}
TINY: dict[str, dict[str, Any]] = {
    "backbone": {"width": 16, "feature_channels": 16, "reduce_channels": 16},
    "proposals": {"pre_nms_top_k": 100, "current_top_k": 20, "reference_top_k": 8},
    "relation": {"embedding": 32, "num_groups": 4, "stages": ["long_term", "short_term"]},
    "head": {"rois_per_image": 16, "detections_per_frame": 10},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A fresh copy of the project under git (without a user name), shrunk until a CPU needs seconds."""
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    _shrink(folder / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    commit_all(folder, "all")
    (folder / ".work").mkdir()
    shutil.copy(mlflow_template, folder / ".work" / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def interrupted(clone: Path) -> dict[str, Any]:
    """The clone after a training that was killed (SIGKILL) between two checkpoints: what it left behind."""
    _repro(clone, "prepare")
    with (clone / "killed.log").open("w") as log:
        training = _start(clone, "train", stdout=log, stderr=subprocess.STDOUT)
        while not (found := list(clone.glob(".work/checkpoints/*/checkpoint_*.pt"))):
            assert training.poll() is None, (clone / "killed.log").read_text()
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGKILL)
        training.wait()
    return {
        "run_id": json.loads((found[0].parent / "run.json").read_text())["run_id"],
        "key": found[0].parent.name,
    }


@pytest.fixture(scope="module")
def reproduced(clone: Path, interrupted: dict[str, Any]) -> Path:
    """The clone after `dvc repro`."""
    _repro(clone)
    return clone


@pytest.fixture
def inside(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reproduced clone as the current folder."""
    monkeypatch.chdir(reproduced)
    return reproduced


def _shrink(path: Path) -> None:
    yaml = YAML()
    params = yaml.load(path)
    for section, values in SMOKE.items():
        params[section] |= values
    tiny = params["presets"]["tiny"]
    tiny |= {"image_short_side": 96, "image_long_side": 128}
    for part, values in TINY.items():
        tiny[part] |= values
    yaml.dump(params, path)


def _set(root: Path, section: str, name: str, value: object) -> None:
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    params[section][name] = value
    yaml.dump(params, root / "params.yaml")


def _start(root: Path, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    environment = child_environment(root, {"OMP_NUM_THREADS": "1"})
    return subprocess.Popen(command, cwd=root, env=environment, text=True, start_new_session=True, **streams)


def _repro(root: Path, *arguments: str) -> str:
    child = _start(root, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = child.communicate()[0]
    assert child.returncode == 0, output
    return output


def _dvc(root: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "dvc", *arguments, "--json"]
    result = subprocess.run(command, cwd=root, env=child_environment(root), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_stage_leaves_what_the_next_ones_and_people_need(reproduced: Path) -> None:
    expected = {
        "data/raw/embedded": ["annotations/train.json", "videos", "report.json"],
        "data/prepared/embedded": ["annotations/test.json", "frames", "report.json"],
        "artifacts/trained": [
            "weights.safetensors",
            "config.yaml",
            "labels.json",
            "run.json",
            "history.jsonl",
        ],
        "artifacts/evaluated": [
            "metrics.json",
            "errors.json",
            "report.html",
            "detections.json",
            "plots",
            "pictures",
        ],
        "artifacts/exported": ["backbone.onnx", "parity.json"],
        "artifacts/deployed": ["manifest.json", "weights.safetensors", "config.yaml", "labels.json"],
    }
    missing = [
        f"{folder}/{name}"
        for folder, names in expected.items()
        for name in names
        if not (reproduced / folder / name).exists()
    ]

    assert missing == []
    assert {"coco", "voc07"} <= json.loads(
        (reproduced / "artifacts/evaluated/metrics.json").read_text()
    ).keys()


def test_a_killed_training_goes_on_as_the_same_run_and_clears_up(
    reproduced: Path, interrupted: dict[str, Any]
) -> None:
    record = json.loads((reproduced / "artifacts/trained/run.json").read_text())

    assert record["run_id"] == interrupted["run_id"]
    assert record["train_key"] == interrupted["key"]
    assert list((reproduced / ".work" / "checkpoints").iterdir()) == []
    assert list((reproduced / ".work" / "detections").iterdir()) == []
    lines = (reproduced / "artifacts/trained/history.jsonl").read_text().splitlines()
    iterations = [entry["iteration"] for entry in map(json.loads, lines) if "loss" in entry]
    assert iterations == [5, 10, 15, 20, 25, 30]


def test_one_run_carries_parameters_losses_scores_pictures_and_hashes(reproduced: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{reproduced}/.work/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lstfe").experiment_id])

    assert run.info.status == "FINISHED"
    assert run.data.params["train.iterations"] == "30"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [
        5,
        10,
        15,
        20,
        25,
        30,
    ]
    assert {"voc07.AP50", "coco.AP"} <= run.data.metrics.keys()
    assert {
        "train.key",
        "data.md5",
        "weights.md5",
        "machine.torch",
        "machine.device",
        "dvc.lock.md5",
        "bundle.version",
    } <= run.data.tags.keys()
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == [
        "deployed",
        "evaluated",
        "exported",
        f"model-{run.data.tags['bundle.version']}",
    ]


def test_the_runs_model_has_a_signature_and_detects(reproduced: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient, pyfunc

    client = MlflowClient(f"sqlite:///{reproduced}/.work/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lstfe").experiment_id])
    folder = f"model-{run.data.tags['bundle.version']}"
    model = pyfunc.load_model(client.download_artifacts(run.info.run_id, folder, str(tmp_path)))
    signature = model.metadata.signature

    table = model.predict({"frames": np.zeros((3, 96, 128, 3), np.uint8)})

    assert signature.inputs.input_names() == ["frames"]
    assert signature.outputs.input_names() == list(table.columns)


def test_dvc_shows_metrics_and_plots(reproduced: Path) -> None:
    (metrics,) = [shown["data"] for shown in _dvc(reproduced, "metrics", "show").values()]
    plots = _dvc(reproduced, "plots", "show")

    assert metrics["artifacts/evaluated/metrics.json"]["data"]["voc07"].keys() >= {"AP50"}
    assert metrics["artifacts/trained/metrics.json"]["data"].keys() >= {"loss"}
    assert {"losses", "precision_recall_coco", "precision_recall_voc07"} <= plots["data"].keys()
    assert not plots.get("errors")


def test_a_second_dvc_repro_does_nothing_and_says_so(reproduced: Path) -> None:
    assert "Data and pipelines are up to date." in _repro(reproduced)
    assert outdated_stages(reproduced) == []


@pytest.mark.usefixtures("prefect_server")
def test_after_dvc_repro_the_flow_finds_nothing_to_do(inside: Path) -> None:
    from pipelines.flows import reproduce

    assert reproduce(inside) == dict.fromkeys(STAGES, False)


def test_the_demo_starts_nothing_draws_a_video_once_and_says_where_to_look(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = run_demo(inside)
    video = inside / "artifacts/demo/annotated.mp4"
    written = video.stat().st_mtime_ns

    assert "up to date" in capsys.readouterr().out
    assert probe_video(video).num_frames == 12
    for place in (
        "artifacts/demo/annotated.mp4",
        "mlflow ui",
        "/#/experiments/1/runs",
        "prefect server start",
        "voc07.AP50",
        "lstfe ",
    ):
        assert place in screen
    assert len(screen.splitlines()) < 25

    run_demo(inside)
    assert video.stat().st_mtime_ns == written


def test_going_back_to_old_parameters_is_free(reproduced: Path) -> None:
    manifest = reproduced / "artifacts" / "deployed" / "manifest.json"
    deployed = manifest.read_bytes()
    before = YAML().load(reproduced / "params.yaml")
    _set(reproduced, "deploy", "score_threshold", 0.6)
    assert outdated_stages(reproduced) == ["deploy"]
    changed = _repro(reproduced, "--single-item", "deploy")
    _set(reproduced, "deploy", "score_threshold", before["deploy"]["score_threshold"])
    back = _repro(reproduced, "--single-item", "deploy")

    assert "Running stage 'deploy'" in changed
    assert "is cached - skipping run" in back
    assert manifest.read_bytes() == deployed


def test_git_sees_none_of_the_data(reproduced: Path) -> None:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    listed = subprocess.run(command, cwd=reproduced, capture_output=True, text=True, check=True).stdout

    untracked = {line[3:].split("/")[0] for line in listed.splitlines()}
    assert untracked.isdisjoint({"data", "artifacts", ".work", ".prefect"})
