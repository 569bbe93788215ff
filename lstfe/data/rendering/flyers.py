"""What flies through a rendered video, and what is mistaken for it: size, pose and contrast over time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lstfe.config import RenderConfig
from lstfe.data.rendering.silhouettes import Silhouette
from lstfe.data.rendering.trajectories import Track, fly, periods, visibility
from lstfe.types import FloatArray


@dataclass(frozen=True, slots=True)
class Flyer:
    """One object through the video; arrays have one value for each frame of its track."""

    kind: Literal["drone", "decoy", "bird"]
    track: Track
    widths: FloatArray
    """Pixels."""
    poses: FloatArray
    rolls: FloatArray
    contrasts: FloatArray
    """Signed difference to the background around it, fraction of full scale."""

    def silhouette(self, frame_index: int) -> Silhouette | None:
        """Return how it looks in a frame of the video, None where it is not there."""
        place = frame_index - self.track.start
        if not 0 <= place < len(self.widths):
            return None
        (x, y), (dx, dy) = self.track.positions[place], self.track.velocities[place]
        return Silhouette(
            kind="bird" if self.kind == "bird" else "drone",
            center=(float(x), float(y)),
            velocity=(float(dx), float(dy)),
            width_px=float(self.widths[place]),
            roll=float(self.rolls[place]),
            pose=float(self.poses[place]),
        )


def plan_drones(config: RenderConfig, random: np.random.Generator, camera: FloatArray) -> list[Flyer]:
    """Plan all flights of drones: one at a time, sometimes two; `camera` is its path (T, 2)."""
    drones = []
    for span in periods(random, config.num_frames, config.present_fraction):
        for _ in range(1 + (random.random() < config.second_drone_fraction)):
            track = fly(random, span, camera, config.image_size, config.drone_speed_px)
            drones.append(_dress(config, random, track))
    return drones


def plan_decoys(
    config: RenderConfig, random: np.random.Generator, camera: FloatArray, extent: tuple[int, int]
) -> list[Flyer]:
    """Plan marks that keep their place in a panorama of `extent` (height, width), as blurred as a drone."""
    height, width = config.image_size
    expected = config.decoys_per_frame * (extent[0] * extent[1]) / (height * width)
    decoys = []
    for _ in range(int(expected) + (random.random() < expected % 1)):
        place = random.uniform(0, 1, 2) * extent[::-1]
        velocities = np.tile(np.array(_draw_velocity(config, random), np.float32), (len(camera), 1))
        track = Track(0, place.astype(np.float32) - camera, velocities, np.ones(len(camera), np.float32))
        decoys.append(_hold_still(dataclasses.replace(_dress(config, random, track), kind="decoy")))
    return decoys


def plan_birds(config: RenderConfig, random: np.random.Generator, camera: FloatArray) -> list[Flyer]:
    """Plan the flights of birds, somewhat faster than drones."""
    birds = []
    count = math.ceil(config.birds_per_frame)
    low, high = config.drone_speed_px
    for _ in range(count):
        for span in periods(random, config.num_frames, config.birds_per_frame / count):
            flyer = _dress(
                config, random, fly(random, span, camera, config.image_size, (1.2 * low, 1.3 * high))
            )
            beat = np.arange(len(flyer.widths)) * random.uniform(0.5, 1.2) + random.uniform(0, 2 * np.pi)
            wings = np.float32(0.15) + np.float32(0.65) * np.sin(beat, dtype=np.float32)
            birds.append(dataclasses.replace(flyer, kind="bird", poses=wings, rolls=0.3 * flyer.rolls))
    return birds


def draw_flash(config: RenderConfig, random: np.random.Generator) -> tuple[Silhouette, float]:
    """Draw anything that a drone may look like in one frame, at a random place; returns also its contrast."""
    height, width = config.image_size
    silhouette = Silhouette(
        kind="drone",
        center=(random.uniform(0, width), random.uniform(0, height)),
        velocity=_draw_velocity(config, random),
        width_px=_draw_width(config, random),
        roll=random.normal(0, 0.2),
        pose=random.uniform(0.2, 0.8),
    )
    lit = np.full(1, random.random() >= config.fade_fraction, np.float32)
    return silhouette, float(_contrasts(config, random, lit)[0])


def _hold_still(flyer: Flyer) -> Flyer:
    """Let a flyer keep the size and pose of its first frame."""
    held = {
        name: np.full_like(getattr(flyer, name), getattr(flyer, name)[0])
        for name in ("widths", "poses", "rolls")
    }
    return dataclasses.replace(flyer, **held)


def _dress(config: RenderConfig, random: np.random.Generator, track: Track) -> Flyer:
    """Give a track a drone's size, pose and contrast over time."""
    length = len(track.positions)
    time = np.arange(length)[:, None]
    waves = np.sin(2 * np.pi * (time / random.uniform(50, 150, 3) + random.random(3)))  # (n, 3)
    widths = _draw_width(config, random) * np.exp(0.25 * waves[:, 0])
    lit = visibility(random, length, config.fade_fraction, config.fade_frames)
    return Flyer(
        kind="drone",
        track=track,
        widths=np.clip(widths, *config.drone_size_px).astype(np.float32),
        poses=np.clip(random.uniform(0.3, 0.7) + 0.15 * waves[:, 1], 0.05, 0.8).astype(np.float32),
        rolls=(random.normal(0, 0.15) + 0.15 * waves[:, 2]).astype(np.float32),
        contrasts=_contrasts(config, random, lit) * track.presence,
    )


def _draw_width(config: RenderConfig, random: np.random.Generator) -> float:
    low, high = config.drone_size_px
    # With 8 to 40 px the median is 24 px, near FL-Drones' mean of 26, and one width in nine is below 16 px.
    return float(low * (high / low) ** random.beta(4.0, 2.0))


def _draw_velocity(config: RenderConfig, random: np.random.Generator) -> tuple[float, float]:
    speed, angle = random.uniform(*config.drone_speed_px), random.uniform(0, 2 * np.pi)
    return speed * math.cos(angle), speed * math.sin(angle)


def _contrasts(config: RenderConfig, random: np.random.Generator, lit: FloatArray) -> FloatArray:
    """Return the signed contrast (n,) of an object that is `lit` 0..1, darker or brighter than behind it."""
    low, high = config.drone_contrast
    sign = -1 if random.random() < 0.75 else 1
    return np.float32(sign * random.uniform(0.85, 1.15)) * (np.float32(low) + lit * np.float32(high - low))
