from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.detect import detect_source
from lstfe.data.video import probe_video, read_video
from lstfe.errors import UserError
from lstfe.evaluation.records import load_detections
from lstfe.types import ByteArray

ROOT = Path(__file__).parents[2]
Detect = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def python(program: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_video_gives_an_annotated_video_and_detections(
    bundle_dir: Path, make_video: Callable[..., Any], out: Path, backend: str
) -> None:
    video = make_video(7)
    run = detect_source(video, bundle_dir, backend=backend, output_dir=out, progress=False)
    assert (run.num_frames, run.stopped) == (7, False)
    info = probe_video(out / "annotated.mp4")
    assert (info.num_frames, info.height, info.width, info.frame_rate) == (7, 64, 96, 30.0)
    records = load_detections(out / "detections.json")
    assert len(records) == run.num_detections > 7
    assert {record.video for record in records} == {"clip"}
    assert {record.frame_id for record in records} == set(range(7))
    assert {record.category for record in records} <= {"drone", "bird"}
    assert sorted(path.name for path in out.iterdir()) == ["annotated.mp4", "detections.json"]
    assert str(out / "annotated.mp4") in run.message


def test_both_backends_find_the_same(
    bundle_dir: Path, make_video: Callable[..., Any], tmp_path: Path
) -> None:
    scores = {}
    for backend in ("onnx", "torch"):
        detect_source(
            make_video(5), bundle_dir, backend=backend, output_dir=tmp_path / backend, progress=False
        )
        records = load_detections(tmp_path / backend / "detections.json")
        scores[backend] = sorted((record.frame_id, record.score) for record in records)
    np.testing.assert_allclose(scores["onnx"], scores["torch"], atol=2e-4)


def test_a_folder_of_pictures_is_a_source(
    bundle_dir: Path, make_frames: Callable[..., Iterator[ByteArray]], tmp_path: Path, out: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(make_frames(11, (65, 97))):  # odd sides, which H.264 does not have
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{number}.png")
    run = detect_source(tmp_path / "pictures", bundle_dir, output_dir=out, progress=False)
    assert run.num_frames == 11
    assert {record.video for record in load_detections(out / "detections.json")} == {"pictures"}
    assert probe_video(out / "annotated.mp4").num_frames == 11


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_video_of_one_frame_is_detected(
    bundle_dir: Path, make_video: Callable[..., Any], out: Path, backend: str
) -> None:
    assert (
        detect_source(make_video(1), bundle_dir, backend=backend, output_dir=out, progress=False).num_frames
        == 1
    )
    assert probe_video(out / "annotated.mp4").num_frames == 1


def test_a_live_stream_takes_its_long_term_frames_from_the_past(
    bundle_dir: Path, make_video: Callable[..., Any], out: Path
) -> None:
    run = detect_source(make_video(6).as_uri(), bundle_dir, output_dir=out, progress=False)
    assert run.num_frames == 6


def test_max_frames_ends_the_run_early(bundle_dir: Path, make_video: Callable[..., Any], out: Path) -> None:
    run = detect_source(make_video(9), bundle_dir, output_dir=out, progress=False, max_frames=4)
    assert (run.num_frames, run.stopped) == (4, False)
    with pytest.raises(UserError, match="max_frames must be >= 1, got 0"):
        detect_source(make_video(9), bundle_dir, output_dir=out, progress=False, max_frames=0)


def test_detections_below_the_threshold_are_written_but_not_drawn(
    bundle_dir: Path, make_video: Callable[..., Any], tmp_path: Path
) -> None:
    video = make_video(2)
    records, pictures = [], []
    for threshold in (0.0, 1.0):
        out = tmp_path / str(threshold)
        detect_source(video, bundle_dir, output_dir=out, progress=False, score_threshold=threshold)
        records.append((out / "detections.json").read_text())
        pictures.append(np.stack(list(read_video(out / "annotated.mp4"))).astype(int))
    source = np.stack(list(read_video(video))).astype(int)
    assert records[0] == records[1]
    assert np.abs(pictures[1] - source).mean() < 10  # the encoder's loss alone
    assert np.abs(pictures[0] - pictures[1]).mean() > 15


def test_a_second_run_replaces_the_first(bundle_dir: Path, make_video: Callable[..., Any], out: Path) -> None:
    for num_frames in (4, 2):
        detect_source(make_video(num_frames), bundle_dir, output_dir=out, progress=False)
    assert probe_video(out / "annotated.mp4").num_frames == 2


def broken_video(path: Path) -> Path:
    path.write_bytes(b"\x00" * 4000)
    return path


@pytest.mark.parametrize(
    ("make_source", "message"),
    [
        (lambda folder: folder / "nowhere.mp4", "no such file or folder"),
        (lambda folder: broken_video(folder / "broken.mp4"), "broken.mp4: cannot be decoded past frame 0"),
        (lambda folder: broken_video(folder / "empty.mp4").parent / "empty", "no such file or folder"),
        (lambda folder: folder, "no pictures in it"),
    ],
    ids=["missing", "corrupt", "misspelt", "empty folder"],
)
def test_a_source_that_cannot_be_read_is_refused_in_one_line(
    bundle_dir: Path, tmp_path: Path, make_source: Callable[[Path], Path], message: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        detect_source(make_source(tmp_path / "in"), bundle_dir, output_dir=tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_wrong_bundle_or_backend_is_refused_before_anything_is_written(
    bundle_dir: Path, make_video: Callable[..., Any], out: Path
) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json in it"):
        detect_source(make_video(2), bundle_dir.parent, output_dir=out, progress=False)
    with pytest.raises(UserError, match="backend 'tpu' is not known"):
        detect_source(make_video(2), bundle_dir, backend="tpu", output_dir=out, progress=False)
    assert not out.exists()


def test_an_output_folder_that_is_a_file_is_refused(
    bundle_dir: Path, make_video: Callable[..., Any], out: Path
) -> None:
    out.write_text("a file")
    with pytest.raises(UserError, match="cannot be written to"):
        detect_source(make_video(2), bundle_dir, output_dir=out, progress=False)


def test_what_came_before_a_broken_frame_is_kept(
    bundle_dir: Path, make_frames: Callable[..., Any], tmp_path: Path, out: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(make_frames(6)):  # the long-term pool is 1, 3, 5
        Image.fromarray(frame[:32] if number == 4 else frame).save(tmp_path / "pictures" / f"{number}.png")
    with pytest.raises(UserError, match=r"pictures frame 4: 96x32 pixels, the frames before have 96x64"):
        detect_source(tmp_path / "pictures", bundle_dir, output_dir=out, progress=False)
    assert probe_video(out / "annotated.mp4").num_frames == 4
    assert {record.frame_id for record in load_detections(out / "detections.json")} == set(range(4))


def test_ctrl_c_keeps_what_was_found(bundle_dir: Path, make_video: Callable[..., Any], out: Path) -> None:
    process = python(
        "from deploy.detect import detect_source\n"
        f"run = detect_source({str(make_video(3000))!r}, {str(bundle_dir)!r}, output_dir={str(out)!r})\n"
        "print(run.message)",
        stdout=subprocess.PIPE,
    )
    records = out / ".partial-detections.json"
    deadline = time.monotonic() + 120
    while not (records.exists() and records.stat().st_size > 1000):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    message, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "once more to leave at once" in errors
    assert "Traceback" not in errors
    assert message.startswith("stopped early: ")
    num_frames = probe_video(out / "annotated.mp4").num_frames
    assert 0 < num_frames < 3000
    written = load_detections(out / "detections.json")
    assert max(record.frame_id for record in written) == num_frames - 1
    assert not list(out.glob(".partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_peak_memory_does_not_grow_with_the_video(
    bundle_dir: Path, make_video: Callable[..., Any], tmp_path: Path, backend: str
) -> None:
    peaks = {}
    for num_frames in (60, 600):
        process = python(
            "import resource\n"
            "from deploy.detect import detect_source\n"
            f"detect_source({str(make_video(num_frames))!r}, {str(bundle_dir)!r}, backend={backend!r},"
            f" output_dir={str(tmp_path / str(num_frames))!r}, progress=False)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
            stdout=subprocess.PIPE,
        )
        output, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
        peaks[num_frames] = int(output) / (1024 if sys.platform == "linux" else 1024**2)  # MiB
    # 540 frames alone would be 10 MiB as pixels, and 70 MiB as features.
    assert peaks[600] - peaks[60] < 8, peaks
