"""Shapes of the small flying things of a rendered video, anti-aliased and blurred along their motion.

A silhouette's plane has its origin in the middle of the object and the object's width as its unit; x points
right, y down. Coverage is float32 in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lstfe.types import FloatArray

NUM_SUB_FRAMES = 5
"""Moments within the open shutter that a motion blur is the mean of."""


@dataclass(frozen=True, slots=True)
class Silhouette:
    """One object in one frame: centre and velocity in pixels (x, y) and pixels a frame, angles in radians."""

    kind: Literal["drone", "bird"]
    center: tuple[float, float]
    velocity: tuple[float, float]
    width_px: float
    roll: float
    pose: float
    """Drone: sine of the angle it is seen from, 0 side .. 1 below. Bird: angle of the wings."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Coverage (h, w) of a silhouette; its corner (left, top) in pixels may lie outside the frame."""

    coverage: FloatArray
    left: int
    top: int


def draw_silhouette(shape: Silhouette, shutter: float) -> Patch:
    """Return the coverage of a silhouette, averaged over the share of a frame that the shutter is open."""
    blur = np.array(shape.velocity) * shutter
    reach = 0.62 * shape.width_px + np.abs(blur) / 2 + 1.5
    left, top = (math.floor(shape.center[i] - reach[i]) for i in (0, 1))
    right, bottom = (math.ceil(shape.center[i] + reach[i]) for i in (0, 1))
    moments = np.linspace(-0.5, 0.5, NUM_SUB_FRAMES if np.abs(blur).max() > 0.2 else 1, dtype=np.float32)
    moments = moments - moments.mean()
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - shape.center[0])
    y = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - shape.center[1])
    x = (x[None, None, :] - np.float32(blur[0]) * moments[:, None, None]) / np.float32(shape.width_px)
    y = (y[None, :, None] - np.float32(blur[1]) * moments[:, None, None]) / np.float32(shape.width_px)
    cos, sin = np.float32(math.cos(shape.roll)), np.float32(math.sin(shape.roll))
    draw = _drone if shape.kind == "drone" else _bird
    coverage = draw(cos * x + sin * y, cos * y - sin * x, shape.width_px, shape.pose)  # (moments, h, w)
    return Patch(np.asarray(coverage.mean(axis=0), np.float32), left, top)


def _drone(x: FloatArray, y: FloatArray, width_px: float, pose: float) -> FloatArray:
    """Body, four arms and rotors, two legs."""
    coverage = _ellipse(x, y, (0.0, 0.0), (0.17, 0.10 + 0.06 * pose), width_px)
    for side in (-1.0, 1.0):
        for depth in (-1.0, 1.0):
            motor = (side * 0.36, depth * 0.34 * pose - 0.04 * (1 - pose))
            arm = _segment(x, y, (0.0, 0.0), motor, 0.025, width_px)
            rotor = _ellipse(
                x, y, (motor[0], motor[1] - 0.04 * (1 - pose)), (0.14, 0.14 * pose + 0.02), width_px
            )
            coverage = np.maximum(coverage, np.maximum(arm, 0.6 * rotor))
        leg = _segment(x, y, (side * 0.08, 0.06), (side * 0.13, 0.06 + 0.16 * (1 - pose)), 0.015, width_px)
        coverage = np.maximum(coverage, leg)
    return coverage


def _bird(x: FloatArray, y: FloatArray, width_px: float, pose: float) -> FloatArray:
    """A slim body and two wings that rise and fall by the angle `pose`."""
    coverage = _ellipse(x, y, (0.0, 0.0), (0.10, 0.07), width_px)
    inner, outer = math.cos(pose), math.cos(1.6 * pose)
    for side in (-1.0, 1.0):
        elbow = (side * 0.22 * inner, -0.22 * math.sin(pose))
        tip = (elbow[0] + side * 0.26 * outer, elbow[1] - 0.2 * math.sin(0.4 * pose))
        wing = np.maximum(
            _segment(x, y, (0.0, 0.0), elbow, 0.045, width_px), _segment(x, y, elbow, tip, 0.025, width_px)
        )
        coverage = np.maximum(coverage, wing)
    return coverage


def _ellipse(
    x: FloatArray, y: FloatArray, center: tuple[float, float], radii: tuple[float, float], width_px: float
) -> FloatArray:
    across, along = (x - np.float32(center[0])) / radii[0], (y - np.float32(center[1])) / radii[1]
    # Distance to the edge, exact for a circle and close enough for one soft pixel of an ellipse.
    distance = (np.sqrt(across * across + along * along) - 1) * (min(radii) * width_px)
    return np.asarray(np.clip(0.5 - distance, 0, 1))


def _segment(
    x: FloatArray,
    y: FloatArray,
    start: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    width_px: float,
) -> FloatArray:
    along_x, along_y = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    share = np.clip((x * along_x + y * along_y) / (along_x * along_x + along_y * along_y + 1e-9), 0, 1)
    distance = np.hypot(x - share * along_x, y - share * along_y)
    # Thinner than a pixel: covered in part only.
    return np.minimum(np.clip(0.5 + (radius - distance) * width_px, 0, 1), min(1.0, 2.5 * radius * width_px))
