"""A small project of its own under git, whose data set a user has imported: what scheduled retraining works on."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deploy.bundle import open_bundle
from lstfe.config import RenderConfig
from lstfe.data.coco_video import load_annotations, save_annotations
from lstfe.data.rendering.renderer import render_data_set
from pipelines.environment import child_environment
from pipelines.registry import read_champion

from ..project_copy import commit_all, copy_project, git

NAME = "clips"
RENDER = RenderConfig(
    num_train_videos=4,
    num_val_videos=1,
    num_test_videos=3,
    num_frames=16,
    image_size=(64, 96),
    clutter=0.01,
    noise=0.01,
    drone_size_px=(18.0, 26.0),
    drone_speed_px=(0.5, 2.0),
    drone_contrast=(0.5, 0.6),
    present_fraction=1.0,
    second_drone_fraction=0.0,
    fade_fraction=0.0,
    flashes_per_frame=0.0,
    birds_per_frame=0.0,
    num_branches=0,
)
"""Large, dark drones on a plain ground: a tiny network finds them after seconds of training."""
PARAMS: dict[str, dict[str, Any]] = {
    "data": {"name": NAME},
    # The comparator has half the graphs to export, which is what takes longest; operations are the same.
    "model": {"method": "faster_rcnn"},
    "train": {
        "iterations": 140,
        "batch_size": 4,
        "lr": 3e-3,
        "warmup_iterations": 1,
        "still_iterations": 130,
        "num_workers": 0,
        "log_every": 25,
        "checkpoint_every": 25,
        "validate_every": 0,
        "validation_frames": 0,
    },
    "inference": {"lookahead": 2},
    "evaluate": {"num_pictures": 1, "protocols": ["coco"], "resamples": 200},
    "export": {"parity_frames": 2},
    "gate": {"margin": -0.3, "max_class_drop": 0.2, "max_size_drop": 0.3, "max_latency_ratio": 5.0},
    "retrain": {
        "settle_seconds": 3.0,
        "latency_frames": 8,
        "overrides": {"train.iterations": 20, "train.still_iterations": 0, "train.lr": 3e-4},
    },
    "drift": {"frames_per_video": 8, "permutations": 199},
}
PRESET: dict[str, dict[str, Any]] = {
    "backbone": {"width": 16, "feature_channels": 24, "reduce_channels": 16},
    "proposals": {
        "pre_nms_top_k": 100,
        "current_top_k": 20,
        "reference_top_k": 8,
        "anchor_sizes": [16.0, 24.0],
    },
    "relation": {"embedding": 32, "num_groups": 4, "stages": ["long_term", "short_term"]},
    "head": {"rois_per_image": 16, "detections_per_frame": 10},
}


def make_project(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Make a clone of the project whose data set is `clips`: rendered, but as a user would have imported it."""
    copy_project(folder)
    set_params(folder, PARAMS)
    set_params(folder, changes or {})
    render_data_set(RENDER, folder / "data" / "raw" / NAME)
    git(folder, "init", "--quiet")
    dvc(folder, "add", f"data/raw/{NAME}")
    commit_all(folder, "all")
    return folder


def set_params(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change sections of params.yaml; `preset` is the chosen preset."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, values in changes.items():
        params[section] |= values
    tiny = params["presets"]["tiny"]
    tiny |= {"image_short_side": 64, "image_long_side": 96}
    for part, values in PRESET.items():
        tiny[part] |= values
    yaml.dump(params, folder / "params.yaml")


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=child_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def drop_video(folder: Path, name: str, *, seed: int) -> None:
    """Drop a new video with its annotations into data/raw/clips, as a user would."""
    made = folder.parent / f"drop-{name}"
    render_data_set(
        dataclasses.replace(RENDER, seed=seed, num_train_videos=1, num_val_videos=1, num_test_videos=1), made
    )
    annotations = load_annotations(made / "annotations" / "train.json")
    [video] = annotations.videos
    raw = folder / "data" / "raw" / NAME
    shutil.copy(made / video.file_name, raw / "videos" / f"{name}.mp4")
    renamed = dataclasses.replace(video, name=name, file_name=f"videos/{name}.mp4")
    save_annotations(dataclasses.replace(annotations, videos=[renamed]), raw / "annotations" / f"{name}.json")
    shutil.rmtree(made)


class PointerWatch:
    """A client that never looks away: reads the champion's pointer all the time, and opens what it names.

    Where a service runs, give `ask`: what a client sends it; the version that answers is noted beside.
    """

    def __init__(self, root: Path, ask: Callable[[], str] | None = None) -> None:
        self.versions: list[str] = []
        """Every version that was seen, in order, without repetitions in a row."""
        self.answers: list[str] = []
        """Likewise, of `ask`."""
        self.failures: list[str] = []
        self._root, self._ask = root, ask
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PointerWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join(60)

    def _look(self) -> None:
        # A service that detects without a pause would take the time that the training needs.
        while not self._is_over.wait(0.2 if self._ask is None else 2.0):
            try:
                champion = read_champion(self._root)
                if champion is not None:
                    if self.versions[-1:] != [champion.version]:
                        open_bundle(champion.bundle)
                        self.versions.append(champion.version)
                    if self._ask is not None and self.answers[-1:] != [answer := self._ask()]:
                        self.answers.append(answer)
            except Exception as error:  # a client has no excuses either
                self.failures.append(f"{type(error).__name__}: {error}")
