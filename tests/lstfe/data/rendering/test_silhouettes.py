from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from lstfe.data.rendering.silhouettes import Silhouette, draw_silhouette


def _drone(
    x: float = 50.0,
    y: float = 40.0,
    *,
    kind: Literal["drone", "bird"] = "drone",
    velocity: tuple[float, float] = (0.0, 0.0),
    width_px: float = 20.0,
    roll: float = 0.0,
    pose: float = 0.3,
) -> Silhouette:
    return Silhouette(kind, (x, y), velocity, width_px, roll, pose)


@pytest.mark.parametrize("kind", ["drone", "bird"])
@pytest.mark.parametrize("width_px", [4.0, 12.0, 40.0])
def test_coverage_is_a_share_and_fills_about_the_width(
    kind: Literal["drone", "bird"], width_px: float
) -> None:
    coverage = draw_silhouette(_drone(kind=kind, width_px=width_px), 0.5).coverage
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    columns = np.flatnonzero((coverage > 0.2).any(axis=0))
    assert 0.6 * width_px <= columns[-1] - columns[0] + 1 <= 1.1 * width_px + 1


def test_nothing_touches_the_rim_of_a_patch() -> None:
    for roll in np.linspace(0, math.pi, 7):
        patch = draw_silhouette(_drone(roll=float(roll), velocity=(9.0, -7.0)), 1.0)
        rim = np.concatenate([patch.coverage[[0, -1]].ravel(), patch.coverage[:, [0, -1]].ravel()])
        assert rim.max() < 0.02


def test_the_middle_of_the_coverage_is_the_centre_at_sub_pixel_steps() -> None:
    for x in (50.0, 50.25, 50.6):
        patch = draw_silhouette(_drone(x=x), 0.5)
        columns = patch.left + np.arange(patch.coverage.shape[1]) + 0.5
        assert (patch.coverage.sum(axis=0) @ columns) / patch.coverage.sum() == pytest.approx(x, abs=0.05)


def test_a_whole_pixel_step_moves_the_patch_and_nothing_else() -> None:
    here, there = draw_silhouette(_drone(), 0.5), draw_silhouette(_drone(x=53.0, y=38.0), 0.5)
    assert (there.left - here.left, there.top - here.top) == (3, -2)
    assert np.allclose(here.coverage, there.coverage, atol=1e-5)


def test_motion_blur_keeps_the_area_and_widens_along_the_motion() -> None:
    still, moving = (draw_silhouette(_drone(velocity=(speed, 0.0)), 1.0) for speed in (0.0, 6.0))
    assert moving.coverage.sum() == pytest.approx(still.coverage.sum(), rel=0.02)
    assert moving.coverage.max() < still.coverage.max() + 1e-6
    widths, heights = (
        [np.count_nonzero((patch.coverage > 0.05).any(axis=axis)) for patch in (still, moving)]
        for axis in (0, 1)
    )
    assert widths[1] > widths[0] + 2
    assert heights[1] <= heights[0]
