from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lstfe.config import SamplingConfig
from lstfe.data.sampling import (
    ClipPlan,
    ClipSampler,
    clip_layout,
    draw_candidates,
    draw_short_term,
)
from lstfe.types import ClipLayout

VIDEOS = [("long", range(40)), ("empty", ()), ("strided", range(100, 160, 3)), ("one", (7,))]
CONFIG = SamplingConfig(short_term_range=6, num_short_term=2, num_candidates=4)


def _sampler(seed: int = 3, flip_probability: float = 0.5, num_still_clips: int = 0) -> ClipSampler:
    return ClipSampler(
        VIDEOS, CONFIG, seed=seed, flip_probability=flip_probability, num_still_clips=num_still_clips
    )


def _plans(sampler: ClipSampler, count: int) -> list[ClipPlan]:
    return [sampler.clip(number) for number in range(count)]


def test_no_videos_are_no_frames() -> None:
    assert ClipSampler([], CONFIG, seed=0).num_frames == 0


def test_a_one_frame_video_repeats_its_frame() -> None:
    plan = ClipSampler([("one", (7,))], CONFIG, seed=0).clip(0)
    assert plan.frame_indices == (7,) * 7


def test_a_short_video_repeats_frames_evenly() -> None:
    random = np.random.default_rng(0)
    assert Counter(draw_candidates(1, 3, 6, random)) == {0: 3, 2: 3}
    assert Counter(draw_short_term(0, 2, SamplingConfig(num_short_term=3), random)) == {1: 3}


def test_an_epoch_shows_each_frame_once_as_the_current_frame() -> None:
    sampler = _sampler()
    frames = [(name, frame) for name, indices in VIDEOS for frame in indices]
    assert sampler.num_frames == len(frames) == 61
    orders = []
    for epoch in range(2):
        plans = [sampler.clip(61 * epoch + place) for place in range(61)]
        orders.append([(plan.video, plan.frame_indices[0]) for plan in plans])
        assert sorted(orders[-1]) == sorted(frames)
    assert orders[0] != orders[1]


def test_only_named_frames_become_current_frames_and_all_others_support_them() -> None:
    named = {"long": (3, 17, 30), "strided": (106, 107), "one": ()}
    sampler = ClipSampler(VIDEOS, CONFIG, seed=3, current_frames=named)
    assert sampler.num_frames == 3 + 1  # the split has 106, but not 107
    plans = _plans(sampler, 400)
    for epoch in range(100):
        shown = {(plan.video, plan.frame_indices[0]) for plan in plans[4 * epoch : 4 * epoch + 4]}
        assert shown == {("long", 3), ("long", 17), ("long", 30), ("strided", 106)}
    references = {(plan.video, frame) for plan in plans for frame in plan.frame_indices[1:]}
    others = {(name, frame) for name, frames in VIDEOS[:3] for frame in frames} - {("strided", 106)}
    assert references == others
    replacements = [sampler.replacement(9, attempt) for attempt in range(20)]
    assert {plan.frame_indices[0] for plan in replacements} <= {3, 17, 30, 106}


def test_naming_all_frames_or_no_video_changes_no_clip() -> None:
    every = {name: list(frames) for name, frames in VIDEOS}
    for current_frames in ({}, every):
        sampler = ClipSampler(VIDEOS, CONFIG, seed=3, flip_probability=0.5, current_frames=current_frames)
        assert _plans(sampler, 130) == _plans(_sampler(), 130)


def test_frames_of_a_clip_lie_where_they_should() -> None:
    places = {name: list(indices) for name, indices in VIDEOS}
    for plan in _plans(_sampler(), 200):
        if plan.video == "one":
            continue
        current, *others = (places[plan.video].index(frame) for frame in plan.frame_indices)
        short_term, candidates = others[:2], others[2:]
        assert all(1 <= abs(place - current) <= 6 for place in short_term)
        assert len(set(short_term)) == 2
        assert len(set(candidates)) == 4
        assert current not in candidates


def test_every_allowed_gap_is_drawn() -> None:
    random = np.random.default_rng(0)
    gaps = {place - 20 for _ in range(300) for place in draw_short_term(20, 40, CONFIG, random)}
    assert gaps == set(range(-6, 7)) - {0}
    at_the_start = {place for _ in range(300) for place in draw_short_term(0, 40, CONFIG, random)}
    assert at_the_start == {1, 2, 3, 4, 5, 6}


def test_candidates_come_from_the_whole_video() -> None:
    random = np.random.default_rng(0)
    drawn = {place for _ in range(300) for place in draw_candidates(20, 40, 4, random)}
    assert drawn == set(range(40)) - {20}


def test_a_clip_depends_on_seed_and_number_alone() -> None:
    forwards = _plans(_sampler(), 130)
    backwards = [_sampler().clip(number) for number in reversed(range(130))]
    assert forwards == backwards[::-1]
    assert forwards != _plans(_sampler(seed=4), 130)


def test_flips_are_as_frequent_as_asked() -> None:
    assert not any(plan.flip for plan in _plans(_sampler(flip_probability=0.0), 100))
    assert all(plan.flip for plan in _plans(_sampler(flip_probability=1.0), 100))
    assert 60 < sum(plan.flip for plan in _plans(_sampler(), 200)) < 140


def test_still_clips_show_their_current_frame_alone_and_change_nothing_after_them() -> None:
    still, full = _plans(_sampler(num_still_clips=5), 20), _plans(_sampler(), 20)
    assert {plan.layout for plan in still[:5]} == {ClipLayout()}
    assert [plan.frame_indices for plan in still[:5]] == [plan.frame_indices[:1] for plan in full[:5]]
    assert still[5:] == full[5:]


@pytest.mark.parametrize(
    ("num_short_term", "num_candidates", "expected"),
    [
        (0, 0, ClipLayout()),
        (2, 0, ClipLayout((1, 2), (1, 2), ())),
        (0, 2, ClipLayout((), (), (1, 2))),
        (2, 3, ClipLayout((1, 2), (1, 2), (3, 4, 5))),
    ],
)
def test_the_layout_names_each_frame_once(
    num_short_term: int, num_candidates: int, expected: ClipLayout
) -> None:
    assert clip_layout(num_short_term, num_candidates) == expected


def test_a_replacement_depends_on_seed_clip_number_and_attempt_alone() -> None:
    first, second = _sampler(), _sampler()
    second.clip(3)
    assert first.replacement(5, 1) == second.replacement(5, 1)
    plans = [first.replacement(5, 1), first.replacement(5, 2), first.replacement(6, 1), first.clip(5)]
    plans.append(_sampler(seed=4).replacement(5, 1))
    assert len({(plan.video, plan.frame_indices) for plan in plans}) == 5


def test_replacements_have_the_layout_of_their_phase_and_come_from_every_video() -> None:
    sampler = _sampler(num_still_clips=10)
    assert {len(sampler.replacement(number, 1).frame_indices) for number in range(10)} == {1}
    plans = [sampler.replacement(number, 1) for number in range(10, 210)]
    assert {plan.layout for plan in plans} == {clip_layout(2, 4)}
    assert {plan.video for plan in plans} == {"long", "strided", "one"}
    assert {plan.flip for plan in plans} == {True, False}
