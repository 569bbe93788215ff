"""Which frames are looked at, and when: pure Python, shared by training, streaming and the deployed runtime.

A `Window` names, for one current frame, the short-term frames that are aligned and related to it and the
long-term candidates. `StreamSchedule` says, frame by frame, which windows are complete and which frames a
streaming detector still has to remember. All indices are 0-based places in the video.
"""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass

from lstfe.config import InferenceConfig
from lstfe.errors import UserError


@dataclass(frozen=True, slots=True)
class Window:
    """Frame indices that one detection is made from; an index may repeat at the ends of a video."""

    current: int
    alignment: tuple[int, ...]
    relation: tuple[int, ...]
    candidates: tuple[int, ...]

    def frames(self) -> set[int]:
        """Return every frame that this window needs."""
        return {self.current, *self.alignment, *self.relation, *self.candidates}


def alignment_gaps(config: InferenceConfig) -> tuple[int, ...]:
    """Return the signed frame gaps of the aligned frames, nearest first, never beyond the lookahead."""
    gap = config.alignment_gap
    gaps: list[int] = []
    ahead = [gap * i for i in range(1, config.num_alignment + 1) if gap * i <= config.lookahead]
    behind = [-gap * i for i in range(1, config.num_alignment + 1)]
    while len(gaps) < config.num_alignment:
        # Alternate past and future; what the lookahead does not allow comes from further in the past.
        gaps.append(behind.pop(0))
        if ahead and len(gaps) < config.num_alignment:
            gaps.append(ahead.pop(0))
    return tuple(gaps)


def relation_gaps(config: InferenceConfig) -> tuple[int, ...]:
    """Return the signed frame gaps of the related frames, ascending, spread evenly over the range without 0."""
    reach = config.relation_range
    gaps = [gap for gap in range(-reach, min(reach, config.lookahead) + 1) if gap != 0]
    return tuple(_spread(gaps, config.num_relation))


def long_term_pool(num_frames: int, size: int) -> tuple[int, ...]:
    """Return `size` frames spread over a video of `num_frames`, ascending; a short video repeats frames."""
    return tuple(min(num_frames - 1, (2 * i + 1) * num_frames // (2 * size)) for i in range(size))


def window_at(current: int, num_frames: int, candidates: tuple[int, ...], config: InferenceConfig) -> Window:
    """Return the window of `current` in a video of `num_frames`; gaps past an end stop at the end."""
    last = min(num_frames - 1, current + config.lookahead)

    def clamp(gaps: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(max(current + gap, 0), last) for gap in gaps)

    return Window(current, clamp(alignment_gaps(config)), clamp(relation_gaps(config)), candidates)


def num_frame_slots(config: InferenceConfig) -> int:
    """Return how many frames a streaming detector remembers at most, whatever the video's length.

    These are the frame just pushed, all that later windows reach back to, and the long-term candidates.
    """
    gaps = (0, *alignment_gaps(config), *relation_gaps(config))
    return 1 + max(1, config.lookahead - min(gaps)) + config.num_candidates


def num_alignment_slots(config: InferenceConfig) -> int:
    """Return of how many frames at most it keeps what alignment needs, computed when first aligned."""
    gaps = alignment_gaps(config)
    return max(gaps) - min(gaps) + 1 if gaps else 0


class Reservoir:
    """A uniform sample of the frames seen so far (Vitter's algorithm R), the same for the same seed."""

    def __init__(self, size: int, seed: int) -> None:
        self.frames: list[int] = []
        self._size = size
        self._seen = 0
        self._random = random.Random(seed)

    def add(self, frame_index: int) -> None:
        """Offer one frame; it replaces a kept one with the right probability."""
        self._seen += 1
        if len(self.frames) < self._size:
            self.frames.append(frame_index)
        elif (slot := self._random.randrange(self._seen)) < self._size:
            self.frames[slot] = frame_index

    def padded(self, fallback: int) -> tuple[int, ...]:
        """Return exactly `size` frames: the kept ones, repeated; `fallback` alone where nothing is kept yet."""
        kept = self.frames or [fallback]
        return tuple(kept[i % len(kept)] for i in range(self._size))


class StreamSchedule:
    """The bookkeeping of a stream: frames go in one by one, complete windows come out in order.

    With `long_term_source: video` the pool frames must be known beforehand (`num_frames` given): the detector
    is shown them first. With `past` candidates come from a reservoir of frames before the current one.
    """

    def __init__(self, config: InferenceConfig, num_frames: int | None = None) -> None:
        self._config = config
        self._pushed = 0
        self._next = 0
        self._reservoir = Reservoir(config.num_candidates, config.seed)
        # How far back of the current frame its window goes; every remembered frame is asked about every frame.
        aligned = alignment_gaps(config)
        self._alignment_reach = min(aligned) if aligned else None
        self._reach = min((0, *aligned, *relation_gaps(config)))
        self.pool: tuple[int, ...] | None = None
        """The fixed candidates of the whole video, or None where they come from the past."""
        if config.long_term_source == "video" and num_frames is not None:
            self.pool = long_term_pool(num_frames, config.num_candidates)

    def require_pool(self, remembered: Container[int]) -> None:
        """Raise UserError where the pool is not remembered; to be asked before the first frame goes in."""
        missing = [index for index in sorted(set(self.pool or ())) if index not in remembered]
        if missing:
            raise UserError(
                f"stream: frames {', '.join(map(str, missing))} of the long-term pool were not shown, expected "
                "all of them before the first frame is pushed; call prime with the frames that pool names"
            )

    def push(self) -> list[Window]:
        """Register the next frame and return the windows that it completes (at most one)."""
        self._pushed += 1
        return self._ready(self._pushed - self._config.lookahead)

    def finish(self) -> list[Window]:
        """Register the end of the stream and return all remaining windows."""
        return self._ready(self._pushed)

    def needed(self, frame_index: int) -> bool:
        """Say whether a frame may still be part of a later window."""
        candidates = self._reservoir.frames if self.pool is None else self.pool
        return frame_index in candidates or self._is_reached(frame_index, self._reach)

    def needed_for_alignment(self, frame_index: int) -> bool:
        """Say whether a frame may still be aligned onto the current frame of a later window."""
        return self._alignment_reach is not None and self._is_reached(frame_index, self._alignment_reach)

    def _is_reached(self, frame_index: int, reach: int) -> bool:
        """Say whether a later window may reach a frame, `reach` being the gap of its earliest frame."""
        # The last frame stands in for all that lie beyond the end.
        return frame_index >= self._next + reach or frame_index == self._pushed - 1

    def _ready(self, end: int) -> list[Window]:
        windows = []
        while self._next < end:
            current = self._next
            candidates = self.pool if self.pool is not None else self._reservoir.padded(current)
            windows.append(window_at(current, self._pushed, candidates, self._config))
            self._reservoir.add(current)
            self._next += 1
        return windows


def _spread(values: list[int], count: int) -> list[int]:
    """Return at most `count` of `values`, evenly spread, in order."""
    if count >= len(values):
        return values
    return [values[(2 * i + 1) * len(values) // (2 * count)] for i in range(count)]
