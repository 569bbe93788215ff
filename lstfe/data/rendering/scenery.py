"""The background of a rendered video: terrain, drifting clouds, swaying branches, sub-pixel camera crops.

Images are float32 in 0..1 (3, H, W) RGB, channels first for speed; coverage is float32 in 0..1 (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstfe.types import FloatArray

MARGIN_PX = 4
"""Spare pixels around everything that a moving camera crops from."""
TEXTURES = (((160, 80), 0.5), ((32, 16, 8, 4), 1.2), ((96, 40, 20, 10, 5), 1.1))
"""Sky, trees, ground: sizes of the texture's grains in pixels, strength relative to the clutter."""


def fractal_noise(random: np.random.Generator, shape: tuple[int, int], cells: Sequence[int]) -> FloatArray:
    """Return smooth noise of mean 0 and deviation 1 (H, W): one octave per cell size in pixels."""
    total = np.zeros(shape, np.float32)
    for cell in cells:
        # Coarser octaves are stronger, as in natural pictures; the root keeps detail at the size of a drone.
        total += np.float32(cell**0.3) * _smooth_noise(random, shape, cell)
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def draw_terrain(
    random: np.random.Generator, shape: tuple[int, int], clutter: float
) -> tuple[FloatArray, FloatArray]:
    """Return a panorama (3, H, W) of sky, trees and ground, and where it shows sky (H, W)."""
    height, width = shape
    horizon = random.uniform(0.15, 0.95) * height
    skyline = horizon + 0.03 * height * fractal_noise(random, (1, width), (160, 64))[0]
    crowns = np.abs(fractal_noise(random, (1, width), (40, 20, 10, 5))[0])
    treetops = skyline - random.uniform(0.04, 0.16) * height * (0.4 + crowns)
    rows = np.arange(height, dtype=np.float32)[:, None]
    sky = _ramp(treetops[None, :] - rows, 1.0)
    ground = _ramp(rows - skyline[None, :], 1.5)
    haze = np.float32(0.12) * (rows / height - np.float32(0.5))
    layers = [
        colour[:, None, None]
        + tint[:, None, None] * np.float32(strength * clutter) * fractal_noise(random, shape, cells)
        for colour, tint, (cells, strength) in zip(_palette(random), _tints(random), TEXTURES, strict=True)
    ]
    panorama = layers[1] + ground * (layers[2] - layers[1])
    panorama += sky * (layers[0] + haze - panorama)
    return np.asarray(np.clip(panorama, 0.05, 0.95), np.float32), np.asarray(sky, np.float32)


def draw_clouds(random: np.random.Generator, shape: tuple[int, int], clutter: float) -> FloatArray:
    """Return how much brighter clouds make each pixel of the sky (H, W), negative in their shadows."""
    noise = fractal_noise(random, shape, (96, 48, 24, 12))
    cover = np.clip(noise - random.uniform(-0.3, 0.8), 0, 2)
    return np.asarray(cover * np.float32(2.0 * clutter), np.float32)


def draw_branches(random: np.random.Generator, shape: tuple[int, int], count: int) -> FloatArray:
    """Return the coverage (H, W) of `count` leafy branches that reach in from the edges."""
    coverage = np.zeros(shape, np.float32)
    height, width = shape
    for _ in range(count):
        x = random.choice([0.0, float(width)]) if random.random() < 0.6 else random.uniform(0, width)
        y = (
            random.uniform(0.1, 0.9) * height
            if x in (0.0, float(width))
            else random.choice([0.0, float(height)])
        )
        aim = np.array([random.uniform(0.3, 0.7) * width - x, random.uniform(0.3, 0.7) * height - y])
        heading = float(np.arctan2(aim[1], aim[0]))
        _grow(random, coverage, np.array([x, y]), heading, random.uniform(0.35, 0.6) * min(shape), 2.2)
    return coverage


def crop(image: FloatArray, top: float, left: float, size: tuple[int, int]) -> FloatArray:
    """Return a window of ([C,] H, W) whose corner lies between pixels, by bilinear interpolation."""
    y, x = int(np.floor(top)), int(np.floor(left))
    dy, dx = np.float32(top - y), np.float32(left - x)
    block = image[..., y : y + size[0] + 1, x : x + size[1] + 1]
    block = block[..., :-1, :] + dy * (block[..., 1:, :] - block[..., :-1, :])
    return np.asarray(block[..., :-1] + dx * (block[..., 1:] - block[..., :-1]))


def _smooth_noise(random: np.random.Generator, shape: tuple[int, int], cell: int) -> FloatArray:
    """Return noise (H, W) that is random on a grid of `cell` pixels and smooth in between."""
    grid = random.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2), dtype=np.float32)
    start = random.random(2)
    for axis in (0, 1):
        place = np.arange(shape[axis], dtype=np.float32) / cell + np.float32(start[axis])
        place = np.minimum(place, grid.shape[axis] - 1.001)
        low = place.astype(np.int64)
        share = place - low
        share = share * share * (3 - 2 * share)
        share = share[:, None] if axis == 0 else share[None, :]
        grid = np.take(grid, low, axis) * (1 - share) + np.take(grid, low + 1, axis) * share
    return np.asarray(grid, np.float32)


def _ramp(distance: FloatArray, softness: float) -> FloatArray:
    """Return 0 below, 1 above zero, with a soft edge `softness` pixels to either side."""
    return np.asarray(np.clip(0.5 + distance / (2 * softness), 0, 1))


def _palette(random: np.random.Generator) -> FloatArray:
    """Return the mean colours of sky, trees and ground, (3, 3)."""
    base = np.array([[0.56, 0.62, 0.68], [0.30, 0.36, 0.27], [0.47, 0.45, 0.37]], np.float32)
    brightness = random.uniform(0.85, 1.15, (3, 1)).astype(np.float32)
    return np.asarray(base * brightness + random.normal(0, 0.02, (3, 3)).astype(np.float32))


def _tints(random: np.random.Generator) -> FloatArray:
    """Return how strongly the texture of sky, trees and ground shows in red, green and blue, (3, 3)."""
    return random.uniform(0.85, 1.15, (3, 3)).astype(np.float32)


def _grow(
    random: np.random.Generator,
    coverage: FloatArray,
    start: np.ndarray,
    heading: float,
    length: float,
    thickness: float,
) -> None:
    """Draw one branch of a few bent pieces into `coverage`, with leaves and side twigs."""
    pieces = 6
    for piece in range(pieces):
        heading += random.normal(0, 0.25)
        end = start + length / pieces * np.array([np.cos(heading), np.sin(heading)])
        _draw_segment(coverage, start, end, thickness * (1 - 0.7 * piece / pieces))
        for _ in range(3):
            leaf = start + random.random() * (end - start) + random.normal(0, 4, 2)
            _draw_segment(coverage, leaf, leaf + random.normal(0, 2.5, 2), random.uniform(0.8, 2.0))
        if thickness > 1.5 and random.random() < 0.5:
            _grow(random, coverage, end, heading + random.choice([-0.8, 0.8]), 0.4 * length, 0.5 * thickness)
        start = end


def _draw_segment(coverage: FloatArray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    reach = radius + 1
    low = np.maximum(np.floor(np.minimum(start, end) - reach), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(start, end) + reach), coverage.shape[::-1]).astype(int)
    if (low >= high).any():
        return
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32) + np.float32(0.5)
    along = end - start
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-6)
    share = np.clip(share, 0, 1)
    distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    part = coverage[low[1] : high[1], low[0] : high[0]]
    np.maximum(part, np.clip(0.5 + radius - distance, 0, 1), out=part)
