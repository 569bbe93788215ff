from __future__ import annotations

import numpy as np
import pytest

from lstfe.data.rendering.scenery import crop, draw_branches, draw_clouds, draw_terrain, fractal_noise


def test_no_branches_cover_nothing() -> None:
    assert draw_branches(np.random.default_rng(0), (64, 96), 0).sum() == 0


def test_branches_cover_a_part() -> None:
    coverage = draw_branches(np.random.default_rng(0), (64, 96), 2)
    assert 0.01 < coverage.mean() < 0.5
    assert coverage.max() == 1


def test_a_crop_at_whole_pixels_is_a_slice() -> None:
    image = np.random.default_rng(0).random((3, 20, 30), dtype=np.float32)
    assert np.array_equal(crop(image, 4.0, 7.0, (10, 12)), image[:, 4:14, 7:19])


def test_a_crop_between_pixels_is_their_weighted_mean() -> None:
    image = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    expected = np.empty((5, 6))
    for row in range(5):
        for column in range(6):
            (a, b), (c, d) = image[2 + row : 4 + row, 3 + column : 5 + column]
            expected[row, column] = 0.75 * (0.6 * a + 0.4 * b) + 0.25 * (0.6 * c + 0.4 * d)
    assert np.allclose(crop(image, 2.25, 3.4, (5, 6)), expected, atol=1e-6)


def test_noise_has_mean_zero_and_deviation_one_whatever_its_grain() -> None:
    for cells in ((4,), (64, 16), (32, 16, 8, 4)):
        noise = fractal_noise(np.random.default_rng(1), (80, 120), cells)
        assert noise.shape == (80, 120)
        assert noise.mean() == pytest.approx(0, abs=1e-3)
        assert noise.std() == pytest.approx(1, abs=1e-3)


def test_fine_noise_changes_faster_than_coarse_noise() -> None:
    coarse, fine = (fractal_noise(np.random.default_rng(1), (80, 120), (cell,)) for cell in (32, 4))
    assert np.abs(np.diff(fine)).mean() > 3 * np.abs(np.diff(coarse)).mean()


def test_terrain_has_sky_above_ground_and_texture_as_strong_as_asked() -> None:
    flat, sky = draw_terrain(np.random.default_rng(2), (120, 160), 0.0)
    rough, _ = draw_terrain(np.random.default_rng(2), (120, 160), 0.1)
    assert flat.shape == rough.shape == (3, 120, 160)
    assert sky[0].mean() > sky[-1].mean()
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(flat)).mean()


def test_videos_have_different_terrain() -> None:
    first, second = (draw_terrain(np.random.default_rng(seed), (64, 96), 0.05)[0] for seed in (1, 2))
    assert np.abs(first - second).mean() > 0.02


def test_clouds_only_brighten() -> None:
    clouds = draw_clouds(np.random.default_rng(3), (64, 96), 0.06)
    assert clouds.min() == 0
    assert 0 < clouds.max() < 0.5
