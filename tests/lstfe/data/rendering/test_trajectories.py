from __future__ import annotations

import numpy as np
import pytest

from lstfe.data.rendering.trajectories import camera_path, fly, light_level, periods, visibility

IMAGE_SIZE = (240, 320)


def _camera(num_frames: int = 100, pan_px: float = 0.8, shake_px: float = 0.5) -> np.ndarray:
    return camera_path(np.random.default_rng(0), num_frames, pan_px=pan_px, shake_px=shake_px)


def test_a_camera_without_motion_stands_still() -> None:
    assert np.ptp(_camera(pan_px=0, shake_px=0), axis=0).tolist() == [0, 0]


def test_a_long_pan_stays_bounded() -> None:
    path = _camera(num_frames=3000, shake_px=0)
    speed = np.abs(np.diff(path, axis=0)).sum(axis=1).mean()
    assert speed == pytest.approx(0.8, rel=0.15)
    assert np.ptp(path, axis=0).max() < 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.67, 1.0])
def test_periods_cover_their_share_of_the_frames(share: float) -> None:
    random = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        spans = periods(random, 120, share)
        frames = [frame for start, stop in spans for frame in range(start, stop)]
        assert len(frames) == len(set(frames))
        assert all(0 <= frame < 120 for frame in frames)
        covered.append(len(frames) / 120)
    assert np.mean(covered) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_objects_are_faded_for_their_share_of_the_time(share: float) -> None:
    random = np.random.default_rng(2)
    lit = np.concatenate([visibility(random, 100, share, (3, 8)) for _ in range(100)])
    assert lit.min() >= 0
    assert lit.max() <= 1
    assert 1 - lit.mean() == pytest.approx(share, abs=0.06)


def test_faded_stretches_are_as_short_as_asked() -> None:
    lit = visibility(np.random.default_rng(3), 2000, 0.3, (4, 6))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (lit < 0.5).astype(int), [0]])))
    lengths = (edges[1::2] - edges[::2])[1:-1]
    assert len(lengths) > 50
    assert lengths.min() >= 3
    assert np.median(lengths) in (4, 5, 6)


def test_the_light_wanders_around_one() -> None:
    assert light_level(np.random.default_rng(4), 50, 0.0).tolist() == [1.0] * 50
    light = light_level(np.random.default_rng(4), 2000, 0.15)
    assert light.mean() == pytest.approx(1, abs=0.03)
    assert light.std() == pytest.approx(0.095, abs=0.03)


def test_a_flight_moves_against_the_background_at_the_speed_asked_for() -> None:
    camera = _camera(shake_px=1.0)
    for seed in range(20):
        track = fly(np.random.default_rng(seed), (20, 80), camera, IMAGE_SIZE, (1.0, 4.0))
        assert (track.start, track.stop) == (20, 80)
        on_the_ground = track.positions + camera[20:80]
        speeds = np.hypot(*np.diff(on_the_ground, axis=0).T)
        assert speeds.min() >= 0.99
        assert speeds.max() <= 4.01


def test_a_flight_keeps_to_the_picture() -> None:
    camera = _camera()
    for seed in range(20):
        positions = fly(np.random.default_rng(seed), (0, 100), camera, IMAGE_SIZE, (1.0, 4.0)).positions
        inside = ((positions >= 0) & (positions <= IMAGE_SIZE[::-1])).all(axis=1)
        assert inside.mean() > 0.9


def test_a_flight_appears_or_crosses_the_edge_but_never_pops_up() -> None:
    camera = _camera()
    crossed = 0
    for seed in range(40):
        track = fly(np.random.default_rng(seed), (20, 80), camera, IMAGE_SIZE, (1.0, 4.0))
        for position, presence in (
            (track.positions[0], track.presence[0]),
            (track.positions[-1], track.presence[-1]),
        ):
            to_edge = min(*position, *(IMAGE_SIZE[::-1] - position))
            assert presence < 0.3 or to_edge < 6
            crossed += to_edge < 6
    assert 10 < crossed < 70


def test_a_flight_of_one_frame_is_possible() -> None:
    track = fly(np.random.default_rng(0), (0, 1), _camera(1), IMAGE_SIZE, (1.0, 4.0))
    assert track.positions.shape == track.velocities.shape == (1, 2)
