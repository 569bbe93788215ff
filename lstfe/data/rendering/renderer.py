"""The embedded data set: videos of small drones, rendered from a seed (data/README.md describes them).

A drone is hard to tell in one frame: it fades for a few frames, one-frame flashes and marks on the background
look like it, noise is new in every frame. Its motion tells it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lstfe.config import RenderConfig
from lstfe.data.folders import REPORT_NAME, new_folder
from lstfe.data.footage import ReportProgress
from lstfe.data.importers.fl_drones import import_fl_drones
from lstfe.data.raw import ImportOptions
from lstfe.data.rendering.flyers import Flyer, draw_flash, plan_birds, plan_decoys, plan_drones
from lstfe.data.rendering.scenery import MARGIN_PX, crop, draw_branches, draw_clouds, draw_terrain
from lstfe.data.rendering.silhouettes import Patch, draw_silhouette
from lstfe.data.rendering.trajectories import camera_path, light_level
from lstfe.data.splits import SPLITS
from lstfe.data.video import Frame, VideoWriter
from lstfe.types import FloatArray

MIN_VISIBLE_SHARE = 0.3
"""A drone of which less can be seen (edge, branches, appearing) is not annotated."""

PixelBox = tuple[int, int, int, int]
"""x1, y1, x2, y2; x2 and y2 exclusive."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything of one video that is decided before its first frame is drawn.

    Pictures are larger than the frame; a path (T, 2) is the place x, y of the frame's corner in its picture.
    """

    panorama: FloatArray
    sky: FloatArray
    camera: FloatArray
    clouds: FloatArray
    cloud_path: FloatArray
    branches: FloatArray
    branch_path: FloatArray
    branch_colour: FloatArray
    light: FloatArray
    flyers: list[Flyer]


def render_data_set(
    config: RenderConfig, destination: Path, *, report_progress: ReportProgress | None = None
) -> dict[str, Any]:
    """Render all videos into `destination`, a complete raw data set, and return its report.

    Also keeps the FL-Drones texts (fl_drones/) and the lists of videos (splits/) that it was imported from.
    """
    counts = (config.num_train_videos, config.num_val_videos, config.num_test_videos)
    with new_folder(destination, replace=True) as folder:
        for name in ("videos", "fl_drones", "splits"):
            (folder / name).mkdir()
        videos: list[tuple[str, tuple[int, int, int]]] = []
        for split, (split_name, count) in enumerate(zip(SPLITS, counts, strict=True)):
            names = [f"Video_{number:03d}" for number in range(len(videos) + 1, len(videos) + count + 1)]
            (folder / "splits" / f"{split_name}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
            # Seeded by split and place: more training videos leave the test videos as they are.
            videos += [(name, (config.seed, split, place)) for place, name in enumerate(names)]
        # Threads are enough: NumPy and the encoder spend their time outside the interpreter's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            written = pool.map(lambda video: _write_video(config, video[1], folder, video[0]), videos)
            for done, name in enumerate(written, start=1):
                if report_progress is not None:
                    report_progress(done, len(videos), name)
        report = {**import_fl_drones(folder, folder, ImportOptions()), "render": dataclasses.asdict(config)}
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def render_video(config: RenderConfig, random: np.random.Generator) -> Iterator[tuple[Frame, list[PixelBox]]]:
    """Yield the frames of one video, (H, W, 3) RGB, each with the boxes of its visible drones."""
    scene = build_scene(config, random)
    for frame_index in range(config.num_frames):
        yield _render_frame(scene, frame_index, config, random)


def build_scene(config: RenderConfig, random: np.random.Generator) -> Scene:
    """Draw the background of one video and plan all motion in it."""
    num_frames = config.num_frames
    camera = _with_margin(
        camera_path(random, num_frames, pan_px=config.camera_pan_px, shake_px=config.camera_shake_px)
    )
    extent = _extent(camera, config.image_size)
    panorama, sky = draw_terrain(random, extent, config.clutter)
    wind = np.outer(np.arange(num_frames), random.uniform(-0.4, 0.4, 2) * (1.0, 0.3))
    cloud_path = _with_margin(camera + wind)
    rhythm = np.arange(num_frames)[:, None] * random.uniform(0.1, 0.3, 2) + random.uniform(0, 2 * np.pi, 2)
    branch_path = _with_margin(np.sin(rhythm) * (2.0, 1.2))
    return Scene(
        panorama=panorama,
        sky=sky,
        camera=camera,
        clouds=draw_clouds(random, _extent(cloud_path, config.image_size), config.clutter),
        cloud_path=cloud_path,
        branches=draw_branches(random, _extent(branch_path, config.image_size), config.num_branches),
        branch_path=branch_path,
        branch_colour=np.array([1.0, 1.05, 0.8], np.float32) * np.float32(random.uniform(0.12, 0.22)),
        light=light_level(random, num_frames, config.light_change),
        flyers=[
            *plan_drones(config, random, camera),
            *plan_decoys(config, random, camera, extent),
            *plan_birds(config, random, camera),
        ],
    )


def visible_box(patch: Patch, branches: FloatArray, presence: float) -> PixelBox | None:
    """Return the tight box of what can be seen of a patch, None where that is too little to be annotated.

    `branches` is the coverage (H, W) of what is in front; `presence` 0..1 is how far the object has appeared.
    """
    part, (rows, columns) = _inside(patch, branches.shape)
    seen = part * (1 - branches[rows, columns])
    if presence * seen.sum() < MIN_VISIBLE_SHARE * patch.coverage.sum():
        return None
    mask = seen > 0.25 * patch.coverage.max()
    y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(y) == 0:
        return None
    left, top = columns.start, rows.start
    return left + int(x[0]), top + int(y[0]), left + int(x[-1]) + 1, top + int(y[-1]) + 1


def _write_video(config: RenderConfig, seed: tuple[int, int, int], folder: Path, name: str) -> str:
    random = np.random.default_rng(seed)
    lines = []
    with VideoWriter(folder / "videos" / f"{name}.mp4", config.frame_rate, config.image_size) as video:
        for frame_index, (frame, boxes) in enumerate(render_video(config, random)):
            video.write(frame)
            if boxes:
                numbers = [frame_index, len(boxes), *(side for box in boxes for side in box)]
                lines.append(",".join(map(str, numbers)) + "\n")
    (folder / "fl_drones" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return name


def _render_frame(
    scene: Scene, frame_index: int, config: RenderConfig, random: np.random.Generator
) -> tuple[Frame, list[PixelBox]]:
    """Draw from back to front: terrain, clouds, everything that flies, branches; then light and noise."""
    image = _crop_at(scene.panorama, scene.camera[frame_index], config)
    clouds = _crop_at(scene.clouds, scene.cloud_path[frame_index], config)
    image += clouds * _crop_at(scene.sky, scene.camera[frame_index], config)
    branches = _crop_at(scene.branches, scene.branch_path[frame_index], config)
    boxes = _draw_flyers(image, branches, scene.flyers, frame_index, config)
    for _ in range(random.poisson(config.flashes_per_frame)):
        silhouette, contrast = draw_flash(config, random)
        _blend(image, draw_silhouette(silhouette, config.shutter), contrast, config.drone_opacity)
    image += branches * (scene.branch_colour[:, None, None] - image)
    image *= 255 * scene.light[frame_index]
    noise = random.standard_normal(config.image_size, dtype=np.float32)
    # Half a step more, because the cast to whole numbers rounds down.
    image += np.float32(255 * config.noise) * noise + np.float32(0.5)
    frame = np.clip(image, 0, 255, out=image).astype(np.uint8)
    return np.ascontiguousarray(frame.transpose(1, 2, 0)), boxes


def _draw_flyers(
    image: FloatArray, branches: FloatArray, flyers: list[Flyer], frame_index: int, config: RenderConfig
) -> list[PixelBox]:
    """Draw what flies in this frame into the image and return the boxes of the drones that can be seen."""
    boxes = []
    for flyer in flyers:
        silhouette = flyer.silhouette(frame_index)
        if silhouette is None:
            continue
        patch = draw_silhouette(silhouette, config.shutter)
        place = frame_index - flyer.track.start
        _blend(image, patch, float(flyer.contrasts[place]), config.drone_opacity)
        if flyer.kind == "drone":
            boxes.append(visible_box(patch, branches, float(flyer.track.presence[place])))
    return [box for box in boxes if box is not None]


def _blend(image: FloatArray, patch: Patch, contrast: float, opacity: float) -> None:
    """Put a patch into the image: the texture behind gives way to its mean, shifted by `contrast`."""
    coverage, (rows, columns) = _inside(patch, image.shape[1:])
    if coverage.size == 0:
        return
    part = image[:, rows, columns]
    mean = part.mean(axis=(1, 2), keepdims=True)
    # What is hardly seen hardly hides anything, or its blank shape alone would give a faded drone away.
    hidden = np.float32(opacity * min(1.0, 5 * abs(contrast)))
    part += coverage * (hidden * (mean - part) + np.float32(contrast))


def _inside(patch: Patch, image_size: tuple[int, ...]) -> tuple[FloatArray, tuple[slice, slice]]:
    """Return the part of a patch that lies inside the frame, and the (rows, columns) that it covers there."""
    height, width = patch.coverage.shape
    top, bottom = (min(max(edge, 0), image_size[0]) for edge in (patch.top, patch.top + height))
    left, right = (min(max(edge, 0), image_size[1]) for edge in (patch.left, patch.left + width))
    part = patch.coverage[top - patch.top : bottom - patch.top, left - patch.left : right - patch.left]
    if part.size == 0:
        part = np.zeros((bottom - top, right - left), np.float32)
    return part, (slice(top, bottom), slice(left, right))


def _crop_at(picture: FloatArray, corner: FloatArray, config: RenderConfig) -> FloatArray:
    return crop(picture, float(corner[1]), float(corner[0]), config.image_size)


def _with_margin(path: npt.NDArray[np.floating]) -> FloatArray:
    """Shift a path so that it stays MARGIN_PX away from its picture's corner."""
    return np.asarray(path - path.min(axis=0) + MARGIN_PX, np.float32)


def _extent(path: FloatArray, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of a picture that all frames along a path can be cropped from."""
    reach = np.ceil(path.max(axis=0)).astype(int) + MARGIN_PX
    return image_size[0] + int(reach[1]), image_size[1] + int(reach[0])
