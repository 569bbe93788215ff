"""`lstfe score`, in-process: the table, metrics.json and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines.cli import app
from pipelines.scoring import figure_table, score_files


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two frames of one video with a drone each; one is found, and a bird where none is."""
    box = [10.0, 10.0, 12.0, 8.0]
    truth = {
        "videos": [{"id": 1, "name": "left"}],
        "images": [{"id": 1, "video_id": 1, "frame_id": 0}, {"id": 2, "video_id": 1, "frame_id": 1}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": box, "instance_id": 1} for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "drone"}, {"id": 2, "name": "bird"}],
    }
    found = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9},
        {"image_id": 2, "category_id": 2, "bbox": box, "score": 0.8},
    ]
    (tmp_path / "test.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path / "test.json", tmp_path / "found.json"


def run(files: tuple[Path, Path], *options: str) -> Any:
    truth, found = files
    command = ["score", "--ground-truth", str(truth), "--detections", str(found), *options]
    return CliRunner().invoke(app, command)


def test_no_preset_has_an_empty_table() -> None:
    assert figure_table({}) == "figure"


def test_all_presets_stand_side_by_side(files: tuple[Path, Path]) -> None:
    result = run(files)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["figure", "coco", "voc07", "voc07_inclusive", "mega_vid", "ilsvrc"]
    assert ["AP50", "0.5050", "0.5455", "0.5455", "0.5000"] in lines
    assert ["drone", "0.5050", "0.5455", "0.5455", "0.5000", "0.5000", "2"] in lines
    assert ["bird", "null", "null", "null", "null", "null", "0"] in lines
    assert (
        "2 frames, 0 empty frames, 2 ground truths, 2 detections; split test, frame stride 1" in result.output
    )


def test_metrics_hold_one_object_per_preset_asked_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "metrics.json"
    result = run(files, "--protocol", "mega_vid", "--protocol", "voc07", "--output", str(output))
    assert result.output.rstrip().endswith(f"written: {output}")
    metrics = json.loads(output.read_text())
    assert list(metrics) == ["mega_vid", "voc07"]
    assert metrics["mega_vid"]["AP50_slow"] == pytest.approx(0.5)
    assert metrics["mega_vid"]["AP50_fast"] is None
    assert metrics["voc07"]["split"] == "test"


def test_a_stride_scores_fewer_frames(files: tuple[Path, Path]) -> None:
    assert "1 frames, 0 empty frames, 1 ground truths, 1 detections; split test, frame stride 2" in run(
        files, "--frame-stride", "2"
    ).output.replace("\n", " ")


def test_notes_are_printed_below_the_table(files: tuple[Path, Path]) -> None:
    truth = json.loads(files[0].read_text())
    for entry in truth["annotations"]:
        del entry["instance_id"]
    files[0].write_text(json.dumps(truth))
    assert "note: the ground truth names no track (instance_id)" in score_files(*files, ["mega_vid"])


def test_an_unknown_preset_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="unknown evaluation protocol 'map', expected one of coco, voc07"):
        score_files(*files, ["map"])


def test_an_output_that_cannot_be_written_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/metrics\.json: not writable"):
        score_files(*files, ["coco"], output=tmp_path / "file" / "metrics.json")


def test_a_report_is_written_beside_the_table_and_says_that_it_has_no_pictures(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    report, output = tmp_path / "new" / "report.html", tmp_path / "metrics.json"
    result = run(files, "--report", str(report), "--output", str(output))
    assert result.exit_code == 0, result.output
    assert f"written: {report}" in result.output
    assert "interval" not in result.output
    page = report.read_text()
    assert "<h1>found.json against test.json</h1>" in page
    assert "The frames were not given" in page
    figures = json.loads(output.read_text())["coco"]
    assert (figures["num_videos"], figures["AP50_interval"]) == (1, None)  # one video has no interval


def test_intervals_are_there_when_asked_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "metrics.json"
    assert run(files, "--output", str(output)).exit_code == 0
    assert "AP50_interval" not in json.loads(output.read_text())["coco"]
    assert run(files, "--output", str(output), "--resamples", "20").exit_code == 0
    assert "AP50_interval" in json.loads(output.read_text())["coco"]


def test_a_report_that_cannot_be_written_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a file for the report"):
        score_files(*files, ["coco"], report=tmp_path)
