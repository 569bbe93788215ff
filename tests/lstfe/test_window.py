"""Windows: gaps, the ends of a video, and a stream that asks for the same frames with bounded memory."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstfe.config import InferenceConfig
from lstfe.errors import UserError
from lstfe.window import (
    Reservoir,
    StreamSchedule,
    Window,
    alignment_gaps,
    long_term_pool,
    num_alignment_slots,
    num_frame_slots,
    relation_gaps,
    window_at,
)

configs = st.builds(
    InferenceConfig,
    lookahead=st.integers(0, 6),
    num_alignment=st.integers(0, 4),
    alignment_gap=st.integers(1, 4),
    relation_range=st.integers(1, 6),
    num_relation=st.integers(0, 8),
    num_candidates=st.integers(0, 4),
    long_term_source=st.sampled_from(["video", "past"]),
    seed=st.integers(0, 3),
)


def stream(config: InferenceConfig, num_frames: int, *, length_known: bool = True) -> list[Window]:
    schedule = StreamSchedule(config, num_frames if length_known else None)
    return [window for _ in range(num_frames) for window in schedule.push()] + schedule.finish()


# ------------------------------------------------------------------------------------------------ gaps


@pytest.mark.parametrize(
    ("number", "lookahead", "expected"),
    [
        (0, 12, ()),
        (1, 12, (-6,)),
        (2, 12, (-6, 6)),
        (4, 12, (-6, 6, -12, 12)),
        (4, 6, (-6, 6, -12, -18)),
        (2, 5, (-6, -12)),
        (3, 0, (-6, -12, -18)),
    ],
)
def test_alignment_gaps_alternate_and_never_pass_the_lookahead(
    number: int, lookahead: int, expected: tuple[int, ...]
) -> None:
    config = InferenceConfig(num_alignment=number, alignment_gap=6, lookahead=lookahead)
    assert alignment_gaps(config) == expected


@pytest.mark.parametrize(
    ("reach", "number", "lookahead", "expected"),
    [
        (3, 0, 3, ()),
        (3, 6, 3, (-3, -2, -1, 1, 2, 3)),
        (3, 99, 3, (-3, -2, -1, 1, 2, 3)),
        (3, 6, 1, (-3, -2, -1, 1)),
        (3, 3, 0, (-3, -2, -1)),
        (4, 4, 4, (-3, -1, 2, 4)),
    ],
)
def test_relation_gaps_are_spread_over_the_range_without_the_current_frame(
    reach: int, number: int, lookahead: int, expected: tuple[int, ...]
) -> None:
    config = InferenceConfig(relation_range=reach, num_relation=number, lookahead=lookahead)
    assert relation_gaps(config) == expected


# -------------------------------------------------------------------------------------- ends of a video


def test_gaps_past_the_ends_stop_at_the_ends() -> None:
    config = InferenceConfig(
        lookahead=4, num_alignment=2, alignment_gap=3, relation_range=2, num_relation=4, num_candidates=1
    )
    assert window_at(0, 10, (5,), config) == Window(0, (0, 3), (0, 0, 1, 2), (5,))
    assert window_at(9, 10, (5,), config) == Window(9, (6, 9), (7, 8, 9, 9), (5,))


def test_a_window_names_all_the_frames_it_needs() -> None:
    assert Window(3, (1, 5), (2, 4, 4), (0, 9)).frames() == {0, 1, 2, 3, 4, 5, 9}


@settings(max_examples=60, deadline=None)
@given(configs)
def test_a_one_frame_video_is_its_own_reference(config: InferenceConfig) -> None:
    (window,) = stream(config, 1)
    assert window.frames() == {0}
    assert len(window.alignment) == config.num_alignment
    assert len(window.candidates) == config.num_candidates


@settings(max_examples=60, deadline=None)
@given(configs, st.integers(1, 40))
def test_the_pool_is_spread_over_the_video_and_a_short_one_repeats_frames(
    config: InferenceConfig, num_frames: int
) -> None:
    size = config.num_candidates
    pool = long_term_pool(num_frames, size)
    assert len(pool) == size
    assert list(pool) == sorted(pool)
    assert all(0 <= frame < num_frames for frame in pool)
    if num_frames >= size:
        assert len(set(pool)) == size


def test_the_pool_lies_in_the_middle_of_equal_parts() -> None:
    assert long_term_pool(100, 4) == (12, 37, 62, 87)


# ------------------------------------------------------------------------------------------- the stream


def test_an_empty_stream_has_no_windows() -> None:
    assert StreamSchedule(InferenceConfig()).finish() == []


@settings(max_examples=150, deadline=None)
@given(configs, st.integers(1, 40))
def test_streaming_windows_are_the_offline_windows(config: InferenceConfig, num_frames: int) -> None:
    windows = stream(config, num_frames)
    assert [window.current for window in windows] == list(range(num_frames))
    for window in windows:
        assert window == window_at(window.current, num_frames, window.candidates, config)
    if config.long_term_source == "video":
        assert {window.candidates for window in windows} == {
            long_term_pool(num_frames, config.num_candidates)
        }


@settings(max_examples=150, deadline=None)
@given(configs, st.integers(1, 40), st.booleans())
def test_every_frame_of_a_window_is_there_and_still_remembered(
    config: InferenceConfig, num_frames: int, length_known: bool
) -> None:
    schedule = StreamSchedule(config, num_frames if length_known else None)
    memory = set(schedule.pool or ())
    for frame_index in range(num_frames + 1):
        if frame_index < num_frames:
            memory.add(frame_index)
        windows = schedule.push() if frame_index < num_frames else schedule.finish()
        for window in windows:
            assert window.frames() <= memory
            in_time = {frame for frame in window.frames() if frame <= window.current + config.lookahead}
            assert window.frames() - in_time <= set(schedule.pool or ())
        memory = {frame for frame in memory if schedule.needed(frame)}


@settings(max_examples=60, deadline=None)
@given(configs, st.integers(1, 30))
def test_without_the_length_candidates_come_from_the_past(config: InferenceConfig, num_frames: int) -> None:
    schedule = StreamSchedule(config)
    assert schedule.pool is None
    for window in stream(config, num_frames, length_known=False):
        assert len(window.candidates) == config.num_candidates
        earlier = set(range(window.current)) or {0}
        assert set(window.candidates) <= earlier


@settings(max_examples=40, deadline=None)
@given(configs)
def test_the_number_of_needed_frames_does_not_grow_with_the_length(config: InferenceConfig) -> None:
    reach = max([0, *(-gap for gap in alignment_gaps(config) + relation_gaps(config))])
    bound = reach + 1 + config.lookahead + config.num_candidates + 1
    for num_frames in (60, 240):
        schedule = StreamSchedule(config, num_frames)
        for pushed in range(1, num_frames + 1):
            schedule.push()
            if pushed % 20 == 0:
                assert sum(schedule.needed(frame) for frame in range(pushed)) <= bound


def test_a_window_comes_out_as_soon_as_the_lookahead_is_there() -> None:
    schedule = StreamSchedule(InferenceConfig(lookahead=2))
    came_out = [[window.current for window in schedule.push()] for _ in range(5)]
    assert came_out == [[], [], [0], [1], [2]]
    assert [window.current for window in schedule.finish()] == [3, 4]
    assert schedule.finish() == []


@settings(max_examples=100, deadline=None)
@given(configs, st.integers(1, 25))
def test_frames_needed_for_alignment_are_those_of_later_windows_however_long_the_stream_may_be(
    config: InferenceConfig, num_frames: int
) -> None:
    schedule = StreamSchedule(config)
    done = sum(len(schedule.push()) for _ in range(num_frames))
    later: set[int] = set()
    for length in range(num_frames, num_frames + config.lookahead + 20):
        for current in range(done, length):
            later |= set(window_at(current, length, (), config).alignment)
    found = {frame for frame in range(num_frames) if schedule.needed_for_alignment(frame)}
    assert found == {frame for frame in later if frame < num_frames}


def test_an_empty_pool_requires_no_frames() -> None:
    StreamSchedule(InferenceConfig(num_candidates=0), 100).require_pool(())
    StreamSchedule(InferenceConfig()).require_pool(())


def test_frames_of_the_pool_that_are_not_remembered_are_named_once_each() -> None:
    schedule = StreamSchedule(InferenceConfig(num_candidates=4), 3)
    assert schedule.pool == (0, 1, 1, 2)
    schedule.require_pool({0, 1, 2})
    with pytest.raises(UserError, match=r"frames 1, 2 of the long-term pool .* call prime"):
        schedule.require_pool({0})


# ---------------------------------------------------------------------------------------- the reservoir


def test_an_empty_reservoir_repeats_the_fallback() -> None:
    assert Reservoir(3, seed=0).padded(7) == (7, 7, 7)
    assert Reservoir(0, seed=0).padded(7) == ()


def test_a_reservoir_that_is_not_full_repeats_what_it_has() -> None:
    reservoir = Reservoir(4, seed=0)
    reservoir.add(2)
    reservoir.add(5)
    assert reservoir.padded(9) == (2, 5, 2, 5)


def test_a_reservoir_of_size_zero_keeps_nothing() -> None:
    reservoir = Reservoir(0, seed=0)
    for frame in range(5):
        reservoir.add(frame)
    assert reservoir.frames == []


def test_the_same_seed_keeps_the_same_frames_and_another_seed_others() -> None:
    kept = []
    for seed in (1, 1, 2):
        reservoir = Reservoir(4, seed)
        for frame in range(200):
            reservoir.add(frame)
        kept.append(reservoir.frames)
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


def test_every_frame_is_kept_with_the_same_chance() -> None:
    num_frames, size, trials = 20, 4, 3000
    counts: Counter[int] = Counter()
    for seed in range(trials):
        reservoir = Reservoir(size, seed)
        for frame in range(num_frames):
            reservoir.add(frame)
        assert len(set(reservoir.frames)) == size
        counts.update(reservoir.frames)
    expected = trials * size / num_frames
    deviation = (trials * (size / num_frames) * (1 - size / num_frames)) ** 0.5
    assert len(counts) == num_frames
    assert max(abs(count - expected) for count in counts.values()) < 4.5 * deviation


@settings(max_examples=150, deadline=None)
@given(config=configs, num_frames=st.integers(1, 40))
def test_a_stream_never_needs_more_slots_than_it_has(config: InferenceConfig, num_frames: int) -> None:
    schedule = StreamSchedule(config, num_frames)
    remembered = set(schedule.pool or ())
    aligned: set[int] = set()
    for frame_index in range(num_frames + 1):  # the last round is the end of the stream
        if frame_index < num_frames:
            remembered.add(frame_index)
            windows = schedule.push()
        else:
            windows = schedule.finish()
        assert len(remembered) <= num_frame_slots(config)
        for window in windows:
            assert window.frames() <= remembered
            aligned = {index for index in aligned if index >= min(window.alignment, default=0)}
            aligned |= set(window.alignment)
            assert len(aligned) <= num_alignment_slots(config)
        remembered = {index for index in remembered if schedule.needed(index)}


def test_slots_are_as_many_as_a_long_stream_fills() -> None:
    config = InferenceConfig(lookahead=4, num_alignment=2, alignment_gap=2, relation_range=3, num_relation=3)
    assert (
        num_frame_slots(config) == 1 + (4 + 2) + 4
    )  # from 2 frames back (the range is spread) to the newest
    assert num_alignment_slots(config) == 5
