"""Sharded or not, killed or not: the same detections, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lstfe.config import Config, InferenceConfig, ModelConfig
from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    save_annotations,
)
from lstfe.data.frames import FrameStore, write_frames
from lstfe.data.prepared import load_split
from lstfe.evaluation.inference import detect_split
from lstfe.evaluation.records import save_detections
from lstfe.evaluation.sharding import detect_in_shards, share_out
from lstfe.model.detector import LSTFENet
from lstfe.params import save_config
from lstfe.training.checkpoint import save_weights
from lstfe.training.distributed import LAUNCHER_ENVIRONMENT

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[3]
FORKED = ROOT / "tests" / "forked.py"
LENGTHS = {"a": 3, "b": 7, "c": 2, "d": 5, "e": 4, "f": 3}


def test_nothing_to_share_gives_empty_shares() -> None:
    assert share_out({}, 2) == [[], []]


def test_the_longest_videos_go_first_to_whom_has_least() -> None:
    assert share_out(LENGTHS, 1) == [["b", "d", "e", "a", "f", "c"]]
    assert share_out(LENGTHS, 2) == [["b", "a", "c"], ["d", "e", "f"]]
    assert share_out({"a": 1, "b": 9}, 3) == [["b"], ["a"], []]


@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
def test_every_video_has_one_share_and_no_share_is_much_longer(num_shares: int) -> None:
    random = np.random.default_rng(0)
    lengths = {f"v{number}": length for number, length in enumerate(random.integers(1, 500, 200).tolist())}
    shares = share_out(lengths, num_shares)
    assert sorted(video for share in shares for video in share) == sorted(lengths)
    loads = [sum(lengths[video] for video in share) for share in shares]
    assert max(loads) - min(loads) <= 0.01 * max(loads)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of noise, 2 to 7 frames of 64x96 pixels, with a box in each frame."""
    directory = tmp_path_factory.mktemp("prepared")
    (directory / "frames").mkdir()
    (directory / "annotations").mkdir()
    random = np.random.default_rng(0)
    videos, images, objects = [], [], []
    for number, (video, length) in enumerate(LENGTHS.items(), start=1):
        frames = [(index, random.integers(0, 255, (64, 96, 3), np.uint8)) for index in range(length)]
        write_frames(directory / "frames" / f"{video}.zip", frames, 95)
        videos.append(VideoEntry(number, video, f"{video}.mp4", 96, 64, length))
        for index in range(length):
            images.append(ImageEntry(len(images) + 1, number, index, 96, 64))
            bbox = (20.0 + index, 24.0, 14.0, 10.0)
            objects.append(AnnotationEntry(len(images), len(images), number, 1, bbox, 140.0))
    categories = [CategoryEntry(1, "drone"), CategoryEntry(2, "bird")]
    annotations = VideoAnnotations(videos, images, objects, categories)
    save_annotations(annotations, directory / "annotations" / "val.json")
    return directory


@pytest.fixture(scope="module")
def config(tiny: Callable[..., ModelConfig]) -> Config:
    """Small windows, and some detections a frame whatever their scores."""
    inference = InferenceConfig(
        lookahead=1, num_alignment=2, alignment_gap=1, relation_range=1, num_relation=2, num_candidates=2
    )
    return Config(model=tiny(head={"detections_per_frame": 5, "score_threshold": 0.0}), inference=inference)


@pytest.fixture(scope="module")
def model(config: Config, build_model: Callable[..., LSTFENet]) -> LSTFENet:
    return build_model(config.model)


@pytest.fixture(scope="module")
def expected(
    model: LSTFENet, config: Config, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """detections.json of one process that knows nothing of shards, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("expected") / "detections.json"
    save_detections(detect_split(model, config, *load_split(prepared, "val")), path)
    torch.set_num_threads(threads)
    return path.read_bytes()


@pytest.fixture
def arguments(model: LSTFENet, config: Config, prepared: Path, tmp_path: Path) -> list[str]:
    """What a worker is told."""
    save_config(config, tmp_path / "config.yaml")
    save_weights(model, tmp_path / "weights.safetensors")
    paths = ("config.yaml", prepared, "weights.safetensors", "state", ".")
    return [str(WORKER), *(str(tmp_path / path) for path in paths)]


def _run(arguments: list[str], num_processes: int = 1) -> int:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    launcher = torchrun if num_processes > 1 else []
    return _python(*launcher, *arguments)


def _python(*arguments: str) -> int:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **LAUNCHER_ENVIRONMENT, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *arguments], env=environment, check=False, timeout=240).returncode


def _detect(
    model: LSTFENet, config: Config, prepared: Path, state: Path, seen: list[tuple[int, int]] | None = None
) -> bytes:
    records = detect_in_shards(
        model,
        config,
        *load_split(prepared, "val"),
        state_dir=state / "state",
        progress=None if seen is None else lambda done, total: seen.append((done, total)),
    )
    assert records is not None
    save_detections(records, state / "found.json")
    return (state / "found.json").read_bytes()


def test_a_split_without_frames_has_no_detections(model: LSTFENet, config: Config, tmp_path: Path) -> None:
    empty = VideoAnnotations([], [], [], [CategoryEntry(1, "drone"), CategoryEntry(2, "bird")])
    store = FrameStore(tmp_path)
    assert detect_in_shards(model, config, empty, store, state_dir=tmp_path / "state") == []


def test_the_number_of_threads_around_does_not_matter(
    model: LSTFENet, config: Config, prepared: Path, tmp_path: Path, expected: bytes
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert _detect(model, config, prepared, tmp_path) == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(expected) > 10_000


def test_only_videos_that_are_missing_or_damaged_are_detected_again(
    model: LSTFENet, config: Config, prepared: Path, tmp_path: Path, expected: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first: list[tuple[int, int]] = []
    _detect(model, config, prepared, tmp_path, first)
    assert first == [(done, 24) for done in range(1, 25)]
    (tmp_path / "state" / "b.json").unlink()
    (tmp_path / "state" / "e.json").write_text('[\n{"video": "e"')
    second: list[tuple[int, int]] = []
    assert _detect(model, config, prepared, tmp_path, second) == expected
    assert second == [(done, 11) for done in range(1, 12)]
    assert [record.message.split(" (")[0] for record in caplog.records] == ["e: is detected again"]


@pytest.mark.slow
def test_one_two_and_five_processes_write_the_same_bytes(
    arguments: list[str], tmp_path: Path, expected: bytes
) -> None:
    outputs = [tmp_path / number for number in ("1", "2", "5")]
    for output in outputs:
        output.mkdir()
    worker, *paths = arguments[:4]
    each = tmp_path / "{number}"
    assert _python(str(FORKED), worker, "1,2,5", *paths, str(each / "state"), str(each)) == 0
    metrics = set()
    for output in outputs:
        assert (output / "detections.json").read_bytes() == expected
        assert sorted(path.stem for path in (output / "state").iterdir()) == sorted(LENGTHS)
        metrics.add((output / "metrics.json").read_bytes())
    assert len(metrics) == 1


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_in_another_number_of_processes(
    arguments: list[str], tmp_path: Path, expected: bytes
) -> None:
    assert _run([*arguments, "13"]) == -9  # of 7 + 5 + 4 + ... frames, so in the third video
    state = tmp_path / "state"
    assert sorted(path.name for path in state.iterdir()) == ["b.json", "d.json"]
    finished = {path: path.stat().st_mtime_ns for path in state.iterdir()}
    assert _run(arguments, 2) == 0
    assert (tmp_path / "detections.json").read_bytes() == expected
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_fewer_threads_than_one_are_refused(config: Config) -> None:
    with pytest.raises(ValueError, match=r"evaluate\.num_threads must be >= 1, got 0"):
        replace(config.evaluate, num_threads=0)
