"""Differences of runs, from detections that lie in MLflow or in a DVC experiment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lstfe.config import Config
from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    save_annotations,
)
from lstfe.evaluation.records import DetectionRecord, save_detections
from pipelines.compare import compared_runs
from pipelines.differences import UNKNOWN, differences
from pipelines.environment import child_environment
from pipelines.tracking import fetch_file, training_run

ROOT = Path(__file__).parents[2]
NUM_VIDEOS, NUM_FRAMES = 4, 5
PARAMS = {"data.name": "mine", "evaluate.split": "test", "evaluate.frame_stride": "1"}
BOX = (10.0, 10.0, 20.0, 20.0)


def detections(found: int) -> list[DetectionRecord]:
    """The object is found in the first `found` frames of each video."""
    return [
        DetectionRecord(f"v{video}", frame, BOX, 0.9, "drone")
        for video in range(1, NUM_VIDEOS + 1)
        for frame in range(found)
    ]


def run_of(run_id: str | None, **tags: str) -> dict[str, Any]:
    return {"id": run_id, "params": PARAMS, "metrics": {}, "tags": tags}


@pytest.fixture
def evaluated(project: Path) -> Path:
    """A project with a test split, and detections of the current run that find all objects but one a video."""
    videos = [VideoEntry(v, f"v{v}", "", 100, 100, NUM_FRAMES) for v in range(1, NUM_VIDEOS + 1)]
    images = [
        ImageEntry(1 + i, 1 + i // NUM_FRAMES, i % NUM_FRAMES, 100, 100)
        for i in range(NUM_VIDEOS * NUM_FRAMES)
    ]
    objects = [AnnotationEntry(i.id, i.id, i.video_id, 1, BOX, 400.0, 0, 1) for i in images]
    annotations = project / "data/prepared/mine/annotations"
    annotations.mkdir(parents=True)
    content = VideoAnnotations(videos, images, objects, [CategoryEntry(1, "drone")])
    save_annotations(content, annotations / "test.json")
    shutil.copy(ROOT / "params.yaml", project)
    (project / "artifacts/evaluated").mkdir(parents=True)
    save_detections(detections(4), project / "artifacts/evaluated/detections.json")
    return project


def tracked_run(folder: Path, found: int) -> str | None:
    folder.mkdir()
    (folder / "evaluated").mkdir()
    save_detections(detections(found), folder / "evaluated" / "detections.json")
    with training_run(Config(), train_key="k", state_dir=folder, data_md5="0" * 32) as run:
        run.log_summary({"voc07.AP50": found / NUM_FRAMES})
        run.log_folder(folder / "evaluated", "evaluated")
    return run.id


def test_without_other_runs_nothing_is_read_and_nothing_said(project: Path) -> None:
    assert differences(run_of("a"), []) == {}


@pytest.mark.usefixtures("mlflow_store")
def test_a_run_whose_detections_are_nowhere_gets_a_dash(evaluated: Path) -> None:
    assert differences(run_of("a"), [run_of("unknown")]) == {"unknown": UNKNOWN}
    missing = run_of("unknown", **{"dvc.exp_name": "gone"})
    assert differences(run_of("a"), [missing]) == {"unknown": UNKNOWN}


@pytest.mark.usefixtures("mlflow_store")
def test_without_the_data_set_there_is_a_dash_and_a_warning(
    evaluated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(evaluated / "data")
    assert differences(run_of("a"), [run_of("b")]) == {"b": UNKNOWN}
    assert "no such prepared data set" in caplog.text


@pytest.mark.usefixtures("mlflow_store")
def test_a_file_of_a_run_is_fetched_and_one_that_it_lacks_is_none(evaluated: Path, tmp_path: Path) -> None:
    run_id = str(tracked_run(tmp_path / "run", 2))
    (tmp_path / "fetched").mkdir()
    path = fetch_file(run_id, "evaluated/detections.json", tmp_path / "fetched")
    assert path is not None
    assert len(json.loads(path.read_text())) == 2 * NUM_VIDEOS
    assert fetch_file(run_id, "evaluated/other.json", tmp_path / "fetched") is None


@pytest.mark.usefixtures("mlflow_store")
def test_detections_in_mlflow_give_a_difference_with_its_interval(evaluated: Path, tmp_path: Path) -> None:
    worse = tracked_run(tmp_path / "run", 2)
    # 11 points at precision 1: recall 0.8 reaches 9 of them, 0.4 reaches 5; every video is the same.
    expected = (5 - 9) / 11
    assert differences(run_of("a"), [run_of(worse)]) == {
        worse: f"{expected:+.3f} ({expected:+.3f} to {expected:+.3f})"
    }


@pytest.mark.usefixtures("mlflow_store")
def test_detections_that_do_not_fit_the_data_give_a_dash(evaluated: Path, tmp_path: Path) -> None:
    other = tracked_run(tmp_path / "run", NUM_FRAMES + 1)
    assert differences(run_of("a"), [run_of(other)]) == {other: UNKNOWN}


@pytest.mark.usefixtures("mlflow_store")
def test_detections_in_a_dvc_experiment_do_too(evaluated: Path) -> None:
    save_detections(detections(2), evaluated / "two.json")
    save_detections(detections(4), evaluated / "four.json")
    (evaluated / "dvc.yaml").write_text(
        "stages: {evaluate: {cmd: 'mkdir -p artifacts/evaluated && cp ${data.name}.json "
        "artifacts/evaluated/detections.json', params: [data.name], deps: [two.json, four.json], "
        "outs: [artifacts/evaluated]}}\n"
    )
    params = (evaluated / "params.yaml").read_text()
    (evaluated / "params.yaml").write_text(params.replace("name: embedded", "name: four"))
    (evaluated / ".gitignore").write_text("/artifacts\n/data\n/.work\n")
    identity = {f"GIT_{role}_{part}": "n" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    environment = child_environment(evaluated) | identity
    for command in (
        ["git", "add", "--all"],
        ["git", "commit", "-qm", "all"],
        [sys.executable, "-m", "dvc", "exp", "run", "-q", "--temp", "-n", "worse", "-S", "data.name=two"],
    ):
        subprocess.run(command, cwd=evaluated, check=True, env=os.environ | environment)
    run = run_of("b", **{"dvc.exp_name": "worse"})
    assert differences(run_of("a"), [run])["b"].startswith("-0.364 (")


@pytest.mark.usefixtures("mlflow_store")
def test_the_table_of_runs_ends_in_the_difference_to_the_current_run(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [tracked_run(tmp_path / method, found) for method, found in (("lstfe", 4), ("rdn", 2))]
    from pipelines import compare

    runs = compare.finished_runs()
    for run in runs:
        run["params"] |= PARAMS | {"model.method": "lstfe" if run["id"] == ids[0] else "rdn"}
    monkeypatch.setattr(compare, "finished_runs", lambda: runs)
    (evaluated / "artifacts/trained").mkdir()
    (evaluated / "artifacts/trained/run.json").write_text(json.dumps({"run_id": ids[0]}))

    header, current, other = compared_runs().splitlines()

    assert "voc07.AP50 difference" in header
    assert current.split()[:2] == ["lstfe", "0.800"]
    assert " to " not in current
    assert other.split()[:2] == ["rdn", "0.400"]
    assert "-0.364 (-0.364 to -0.364)" in other
