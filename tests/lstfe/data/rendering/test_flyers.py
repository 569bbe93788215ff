from __future__ import annotations

import numpy as np
import pytest

from lstfe.config import RenderConfig
from lstfe.data.rendering.flyers import draw_flash, plan_birds, plan_decoys, plan_drones
from lstfe.data.rendering.trajectories import camera_path

CAMERA = camera_path(np.random.default_rng(9), 120, pan_px=0.8, shake_px=0.5) + 100


def test_nothing_flies_where_nothing_is_asked_for() -> None:
    config, random = (
        RenderConfig(present_fraction=0, decoys_per_frame=0, birds_per_frame=0),
        np.random.default_rng(0),
    )
    assert plan_drones(config, random, CAMERA) == []
    assert plan_decoys(config, random, CAMERA, (300, 400)) == []
    assert plan_birds(config, random, CAMERA) == []


def test_a_flyer_is_there_during_its_track_only() -> None:
    drone = plan_drones(RenderConfig(), np.random.default_rng(1), CAMERA)[0]
    start, stop = drone.track.start, drone.track.stop
    assert drone.silhouette(start - 1) is None
    assert drone.silhouette(stop) is None
    last = drone.silhouette(stop - 1)
    assert last is not None
    assert last.center == pytest.approx(drone.track.positions[-1])


def test_drones_keep_to_the_sizes_and_contrasts_asked_for() -> None:
    config = RenderConfig(drone_size_px=(8.0, 40.0), drone_contrast=(0.1, 0.3))
    drones = [d for seed in range(60) for d in plan_drones(config, np.random.default_rng(seed), CAMERA)]
    widths = np.concatenate([drone.widths for drone in drones])
    assert widths.min() >= 8
    assert widths.max() <= 40
    assert widths.min() < 12
    assert widths.max() > 36
    assert 22 < np.median(widths) < 26
    contrasts = np.concatenate([np.abs(d.contrasts[d.track.presence == 1]) for d in drones])
    assert contrasts.min() + 1e-6 >= 0.1 * 0.85
    assert contrasts.max() <= 0.3 * 1.15 + 1e-6


def test_decoys_keep_their_place_in_the_panorama_and_number_as_asked_for() -> None:
    config = RenderConfig(decoys_per_frame=2.5)
    counts = []
    for seed in range(60):
        decoys = plan_decoys(config, np.random.default_rng(seed), CAMERA, (300, 400))
        counts.append(len(decoys))
        for decoy in decoys:
            assert np.ptp(decoy.track.positions + CAMERA, axis=0).max() < 1e-3
            assert np.hypot(*decoy.track.velocities[0]) >= config.drone_speed_px[0]
    assert np.mean(counts) == pytest.approx(2.5 * 300 * 400 / (240 * 320), rel=0.1)


def test_the_mean_number_of_birds_in_view_is_the_one_asked_for() -> None:
    config = RenderConfig(birds_per_frame=1.4)
    birds = [b for seed in range(100) for b in plan_birds(config, np.random.default_rng(seed), CAMERA)]
    assert sum(len(bird.widths) for bird in birds) / (100 * 120) == pytest.approx(1.4, rel=0.1)
    assert all(np.ptp(bird.poses) > 0.3 for bird in birds if len(bird.poses) > 12)


def test_flashes_look_like_drones_of_all_kinds() -> None:
    config, random = RenderConfig(drone_contrast=(0.1, 0.3), fade_fraction=0.4), np.random.default_rng(2)
    flashes = [draw_flash(config, random) for _ in range(500)]
    contrasts = np.abs([contrast for _, contrast in flashes])
    assert np.mean(contrasts < 0.15) == pytest.approx(0.4, abs=0.08)
    assert all(8 <= shape.width_px <= 40 and shape.kind == "drone" for shape, _ in flashes)
