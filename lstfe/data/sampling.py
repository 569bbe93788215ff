"""Which frames a training clip is made of: a pure function of (seed, clip number), without any state.

Clip numbers count 0, 1, 2, ... through the whole training; each epoch of N clips shows each of the N frames that may
be current frames once as such; all other frames of a clip come from the whole video. Who draws a clip, in which
order and in which process, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lstfe.config import SamplingConfig
from lstfe.types import ClipLayout, IntArray

_ORDER, _CLIP, _REPLACEMENT = 0, 1, 2  # separate random streams of one seed


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """What one clip shows: frame 0 is the current frame; `flip` mirrors all frames."""

    video: str
    frame_indices: tuple[int, ...]
    layout: ClipLayout
    flip: bool


class ClipSampler:
    """Draws clips from videos given as (name, frame indices of the split, ascending).

    Distances in time are counted in frames of the split, so that a prepared `frame_stride` scales them.
    """

    def __init__(
        self,
        videos: Sequence[tuple[str, Sequence[int]]],
        config: SamplingConfig,
        *,
        seed: int,
        current_frames: Mapping[str, Collection[int]] | None = None,
        flip_probability: float = 0.0,
        num_still_clips: int = 0,
    ) -> None:
        """The first `num_still_clips` clips consist of their current frame alone.

        `current_frames` says, by video, which frames may be current frames; of a video that it leaves out all may.
        """
        # Arrays, because a data set has millions of frames and each loader process would copy as many objects.
        self._videos = [(name, np.array(frames, np.int64)) for name, frames in videos if frames]
        self._current = [_places(frames, (current_frames or {}).get(name)) for name, frames in self._videos]
        self._config = config
        self._seed = seed
        self._flip_probability = flip_probability
        self._num_still_clips = num_still_clips
        self._ends = np.cumsum([len(places) for places in self._current], dtype=np.int64)
        self.num_frames = int(self._ends[-1]) if self._videos else 0
        """N, the clips of one epoch."""

    def clip(self, clip_number: int) -> ClipPlan:
        """Return the plan of one clip."""
        epoch, place = divmod(clip_number, self.num_frames)
        frame_number = int(_epoch_order(self._seed, epoch, self.num_frames)[place])
        return self._plan(clip_number, frame_number, np.random.default_rng((self._seed, _CLIP, clip_number)))

    def replacement(self, clip_number: int, attempt: int) -> ClipPlan:
        """Return the plan of a clip that takes the place of one that cannot be read, about any frame of all."""
        random = np.random.default_rng((self._seed, _REPLACEMENT, clip_number, attempt))
        return self._plan(clip_number, int(random.integers(self.num_frames)), random)

    def _plan(self, clip_number: int, frame_number: int, random: np.random.Generator) -> ClipPlan:
        video, current = self._locate(frame_number)
        name, frames = self._videos[video]
        flip = bool(random.random() < self._flip_probability)
        if clip_number < self._num_still_clips:
            return ClipPlan(name, (int(frames[current]),), ClipLayout(), flip)
        short_term = draw_short_term(current, len(frames), self._config, random)
        candidates = draw_candidates(current, len(frames), self._config.num_candidates, random)
        places = (current, *short_term, *candidates)
        layout = clip_layout(len(short_term), len(candidates))
        return ClipPlan(name, tuple(frames[list(places)].tolist()), layout, flip)

    def _locate(self, frame_number: int) -> tuple[int, int]:
        """Return (video, place in it) of a frame that may be current, counted through all videos."""
        video = int(np.searchsorted(self._ends, frame_number, side="right"))
        return video, int(
            self._current[video][frame_number - int(self._ends[video])]
        )  # from the end of the list


def _places(frames: IntArray, wanted: Collection[int] | None) -> IntArray:
    return np.arange(len(frames)) if wanted is None else np.flatnonzero(np.isin(frames, list(wanted)))


def clip_layout(num_short_term: int, num_candidates: int) -> ClipLayout:
    """Return the layout of a training clip: all short-term frames are both aligned and related."""
    short_term = tuple(range(1, 1 + num_short_term))
    first = 1 + num_short_term
    return ClipLayout(short_term, short_term, tuple(range(first, first + num_candidates)))


def draw_short_term(
    current: int, num_frames: int, config: SamplingConfig, random: np.random.Generator
) -> tuple[int, ...]:
    """Draw neighbours of `current` inside the video, all different as long as there are enough."""
    low = max(0, current - config.short_term_range)
    high = min(num_frames - 1, current + config.short_term_range)
    neighbours = [place for place in range(low, high + 1) if place != current]
    return _draw(neighbours or [current], config.num_short_term, random)


def draw_candidates(
    current: int, num_frames: int, count: int, random: np.random.Generator
) -> tuple[int, ...]:
    """Draw frames of the whole video other than `current`, different ones as long as there are enough."""
    if num_frames == 1:
        return (0,) * count
    drawn = _draw(range(num_frames - 1), count, random)
    return tuple(place + (place >= current) for place in drawn)


def _draw(values: Sequence[int], count: int, random: np.random.Generator) -> tuple[int, ...]:
    """Draw without replacement, starting over whenever all values are used up."""
    drawn: list[int] = []
    while len(drawn) < count:
        size = min(count - len(drawn), len(values))
        drawn += [values[place] for place in random.choice(len(values), size=size, replace=False)]
    return tuple(drawn)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_frames: int) -> IntArray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_frames)
