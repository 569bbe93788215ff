"""Motion in a rendered video: the camera, and objects that come, fly, fade and leave; pixels and frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstfe.types import FloatArray

FADE_IN_FRAMES = 4
"""Frames in which an object appears or vanishes where it does not cross the edge."""


@dataclass(frozen=True, slots=True)
class Track:
    """One object from its first to its last frame; arrays have one row a frame."""

    start: int
    positions: FloatArray
    """(n, 2) centre x, y in the frame."""
    velocities: FloatArray
    """(n, 2) motion in the frame, pixels a frame."""
    presence: FloatArray
    """(n,) 0..1, below 1 while the object appears or vanishes."""

    @property
    def stop(self) -> int:
        """First frame without the object."""
        return self.start + len(self.positions)


def camera_path(
    random: np.random.Generator, num_frames: int, *, pan_px: float, shake_px: float
) -> FloatArray:
    """Return the camera's place (T, 2) x, y: a slow swing with `pan_px` mean speed, and a shake around it."""
    time = np.arange(num_frames)
    path = np.zeros((num_frames, 2))
    shares = random.dirichlet((2.0, 1.0))
    for axis in (0, 1):
        period = random.uniform(100, 220)
        # A sine of amplitude A and period T covers 4A in T frames.
        path[:, axis] = (
            pan_px * shares[axis] * period / 4 * np.sin(2 * np.pi * (time / period + random.random()))
        )
    return np.asarray(path + shake_px * _wander(random, num_frames, 2, memory=0.6), np.float32)


def light_level(random: np.random.Generator, num_frames: int, change: float) -> FloatArray:
    """Return the brightness (T,) of each frame, around 1."""
    period = random.uniform(40, 160)
    swing = np.sin(2 * np.pi * (np.arange(num_frames) / period + random.random()))
    level = 1 + change * (0.8 * swing + 0.3 * _wander(random, num_frames, 1, memory=0.9)[:, 0])
    return np.asarray(np.clip(level, 0.3, 1.4), np.float32)


def periods(random: np.random.Generator, num_frames: int, share: float) -> list[tuple[int, int]]:
    """Return stretches [start, stop) that cover about `share` of the frames, at random places."""
    if share <= 0:
        return []
    if share >= 1:
        return [(0, num_frames)]
    spans = []
    cycle = float(np.clip(random.uniform(0.35, 0.7) * num_frames, 10, 90))
    time = -random.random() * cycle
    while time < num_frames:
        start, stop = round(time), round(time + share * cycle)
        if min(stop, num_frames) - max(start, 0) >= 3:
            spans.append((max(start, 0), min(stop, num_frames)))
        time += cycle
        cycle *= random.uniform(0.8, 1.25)
    return spans


def visibility(
    random: np.random.Generator, num_frames: int, share: float, length: tuple[int, int]
) -> FloatArray:
    """Return how lit an object is (T,): 0 in faded stretches, 1 between them, soft at either end."""
    if share <= 0:
        return np.ones(num_frames, np.float32)
    lit = np.zeros(num_frames + 2, np.float32)
    mean_faded = (length[0] + length[1]) / 2
    mean_lit = mean_faded * (1 - share) / share
    time = -random.uniform(0, mean_lit + mean_faded)
    while time < len(lit) and share < 1:
        stop = time + random.uniform(0.5, 1.5) * mean_lit
        lit[max(0, round(time)) : max(0, round(stop))] = 1
        time = stop + random.integers(length[0], length[1] + 1)
    return np.asarray((lit[:-2] + 2 * lit[1:-1] + lit[2:]) / 4, np.float32)


def fly(
    random: np.random.Generator,
    span: tuple[int, int],
    camera: FloatArray,
    image_size: tuple[int, int],
    speed_px: tuple[float, float],
) -> Track:
    """Return a smooth flight over the frames [start, stop) that keeps to the picture.

    Its speed against the background lies in `speed_px`. At either end it crosses the picture's edge, or
    appears (vanishes) within a few frames, or goes on beyond the video's end.
    """
    start, stop = span
    num_frames = len(camera)
    presence = np.ones(stop - start, np.float32)
    ramp = np.linspace(0, 1, FADE_IN_FRAMES + 2, dtype=np.float32)[1:-1][: stop - start]
    crosses = [random.random() < 0.5, random.random() < 0.5]
    crosses[1] = crosses[1] and not crosses[0]
    if start > 0 and not crosses[0]:
        presence[: len(ramp)] *= ramp
    if stop < num_frames and not crosses[1]:
        presence[len(presence) - len(ramp) :] *= ramp[::-1]
    drift = -np.diff(camera[start:stop], axis=0)
    if crosses[1] and stop < num_frames:
        # A flight out of the picture is a flight into it, backwards in time.
        positions = _steer(random, -drift[::-1], image_size, speed_px, from_edge=True)[::-1]
    else:
        positions = _steer(random, drift, image_size, speed_px, from_edge=crosses[0] and start > 0)
    velocities = np.gradient(positions, axis=0) if len(positions) > 1 else np.zeros_like(positions)
    return Track(start, positions.astype(np.float32), velocities.astype(np.float32), presence)


def _steer(
    random: np.random.Generator,
    drift: FloatArray,
    image_size: tuple[int, int],
    speed_px: tuple[float, float],
    *,
    from_edge: bool,
) -> FloatArray:
    """Fly from waypoint to waypoint, turning slowly; `drift` (n, 2) is the background's own motion."""
    size = np.array(image_size[::-1], np.float64)
    place = random.uniform(0.12, 0.88, 2) * size
    if from_edge:
        axis = int(random.integers(2))
        place[axis] = random.choice([0.0, size[axis]])
    waypoint = random.uniform(0.2, 0.8, 2) * size
    heading = float(np.arctan2(*(waypoint - place)[::-1]))
    speeds = np.clip(0.5 + 0.35 * _wander(random, len(drift), 1, memory=0.93)[:, 0], 0, 1)
    speeds = speed_px[0] + speeds * (speed_px[1] - speed_px[0])
    path = [place]
    for speed, move in zip(speeds, drift, strict=True):
        if np.hypot(*(waypoint - place)) < 25:
            waypoint = random.uniform(0.12, 0.88, 2) * size
        turn = float(np.arctan2(*(waypoint - place)[::-1])) - heading
        turn = (turn + np.pi) % (2 * np.pi) - np.pi
        heading += float(np.clip(turn, -0.14, 0.14)) + random.normal(0, 0.03)
        place = place + speed * np.array([np.cos(heading), np.sin(heading)]) + move
        path.append(place)
    return np.array(path)


def _wander(random: np.random.Generator, num_frames: int, columns: int, *, memory: float) -> FloatArray:
    """Return a random walk that is pulled back to 0, deviation 1, (num_frames, columns)."""
    steps = random.standard_normal((num_frames, columns)) * np.sqrt(1 - memory**2)
    values = np.empty_like(steps)
    last = random.standard_normal(columns)
    for frame, step in enumerate(steps):
        last = memory * last + step
        values[frame] = last
    return np.asarray(values)
