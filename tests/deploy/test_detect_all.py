"""One of many videos: its result is written once, whole, and again only when the bundle or the video changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from deploy import detect_all
from deploy.bundle import BundleError
from deploy.detect import detect_source
from deploy.detect_all import DetectionJob, detect_video, merge_results, result_path
from deploy.onnx_backend import OnnxGraphs
from deploy.video_files import VideoFile
from lstfe.evaluation.records import load_detections


@pytest.fixture
def job(bundle_dir: Path, tmp_path: Path) -> DetectionJob:
    return DetectionJob(bundle=str(bundle_dir), output=str(tmp_path / "out"))


@pytest.fixture
def video(make_video: Callable[..., Path]) -> VideoFile:
    return VideoFile("night/clip", str(make_video(5)))


def journal(job: DetectionJob) -> list[tuple[str, str]]:
    lines = (Path(job.output) / "journal.jsonl").read_text().splitlines()
    return [(entry["video"], entry["event"]) for entry in map(json.loads, lines)]


def test_no_videos_merge_into_an_empty_list(job: DetectionJob) -> None:
    Path(job.output).mkdir()

    assert load_detections(merge_results(job, [])) == []


def test_the_result_is_that_of_a_single_detection(
    job: DetectionJob, video: VideoFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = detect_video(video, job)
    merged = load_detections(merge_results(job, [video.name]))
    detect_source(video.url, job.bundle, output_dir=tmp_path / "single", progress=False)

    assert (outcome.state, outcome.num_frames, outcome.num_detections) == ("detected", 5, len(merged))
    alone = load_detections(tmp_path / "single" / "detections.json")
    assert len(alone) > 5
    assert [(r.frame_id, r.bbox, r.score) for r in merged] == [(r.frame_id, r.bbox, r.score) for r in alone]
    assert {record.video for record in merged} == {"night/clip"}


def test_the_network_is_loaded_once_for_all_videos_with_the_threads_of_the_job(
    job: DetectionJob, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    class Graphs(OnnxGraphs):
        def __init__(self, *arguments: Any, num_threads: int) -> None:
            loaded.append(num_threads)
            super().__init__(*arguments, num_threads=num_threads)

    monkeypatch.setattr("deploy.onnx_backend.OnnxGraphs", Graphs)
    detect_all._load_once.cache_clear()
    videos = [VideoFile(name, str(make_video(3, name=name))) for name in ("one", "two")]
    before = os.environ.get("OMP_NUM_THREADS")

    outcomes = [detect_video(video, dataclasses.replace(job, num_threads=2)) for video in videos]

    assert [outcome.state for outcome in outcomes] == ["detected", "detected"]
    assert loaded == [2]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_engines_built_anew_are_loaded_anew(job: DetectionJob, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(job.bundle, bundle)
    job = dataclasses.replace(job, bundle=str(bundle), backend="tensorrt")
    before = detect_all._digest(job)
    (bundle / "engines" / "fp16").mkdir(parents=True)
    (bundle / "engines" / "fp16" / "engine.json").write_text("{}")

    assert detect_all._digest(job) != before
    assert detect_all._digest(dataclasses.replace(job, backend="onnx")) == before


def test_a_second_time_nothing_is_done(job: DetectionJob, video: VideoFile) -> None:
    detect_video(video, job)
    before = result_path(job, video.name).stat()

    outcome = detect_video(video, job)

    after = result_path(job, video.name).stat()
    assert outcome.state == "up to date"
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert journal(job) == [("night/clip", "started"), ("night/clip", "finished")]


def test_a_changed_video_is_done_again(
    job: DetectionJob, video: VideoFile, make_video: Callable[..., Path]
) -> None:
    detect_video(video, job)
    make_video(3)

    assert detect_video(video, job).num_frames == 3


def test_another_bundle_is_another_result(job: DetectionJob, video: VideoFile, tmp_path: Path) -> None:
    detect_video(video, job)
    other = tmp_path / "other"
    shutil.copytree(job.bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    config = other / "config.yaml"
    config.write_text(config.read_text() + "# another one\n")
    text = config.read_bytes()
    manifest["files"]["config.yaml"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (other / "manifest.json").write_text(json.dumps(manifest))

    outcome = detect_video(video, DetectionJob(bundle=str(other), output=job.output))

    assert outcome.state == "detected"


def test_a_torn_result_is_written_again(job: DetectionJob, video: VideoFile) -> None:
    detect_video(video, job)
    result_path(job, video.name).write_text('{"video": "night/cl')

    assert detect_video(video, job).state == "detected"
    assert json.loads(result_path(job, video.name).read_text())["num_frames"] == 5


def test_a_broken_video_fails_alone(job: DetectionJob, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not a video")

    outcome = detect_video(VideoFile("bad", str(tmp_path / "bad.mp4")), job)

    assert outcome.state == "failed"
    assert "bad.mp4" in outcome.reason
    assert "\n" not in outcome.reason
    assert not result_path(job, "bad").exists()


def test_a_broken_bundle_fails_everything(job: DetectionJob, video: VideoFile, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle"):
        detect_video(video, DetectionJob(bundle=str(tmp_path / "none"), output=job.output))


def test_a_video_of_a_bucket_gives_what_the_file_gives(job: DetectionJob, video: VideoFile) -> None:
    files: Any = fsspec.filesystem("memory")
    files.pipe("/bucket/clip.mp4", Path(video.url).read_bytes())
    try:
        detect_video(video, job)
        detect_video(VideoFile("remote", "memory:///bucket/clip.mp4"), job)
    finally:
        files.store.clear()

    local, remote = (
        json.loads(result_path(job, name).read_text())["detections"] for name in (video.name, "remote")
    )
    assert [{**record, "video": ""} for record in local] == [{**record, "video": ""} for record in remote]
