"""How sure a figure is: intervals from resampled videos, and whether one detector beats another on the same ones.

Videos are drawn with replacement (Efron's bootstrap, percentile intervals), not frames: neighbouring frames show
the same thing. Matching never looks beyond a frame, so it is done once; a resample counts each video's ground
truths and detections as often as it was drawn. That equals scoring the drawn videos, copies lying side by side.

Shapes: V videos, S resamples, B bins, T IoU thresholds, R right detections of one label, bin and threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstfe.errors import UserError
from lstfe.evaluation.matching import UNMATCHED, Flags, Floats, Ints, Matches, match
from lstfe.evaluation.protocols import Figure, Protocol, find_protocol, ignored_ground_truths
from lstfe.evaluation.records import ScoredFrames

CONFIDENCE = 0.95
"""Share of the resamples that an interval covers."""
INTERVAL = "_interval"
"""What the name of a figure's interval ends in."""
_FEWEST_VIDEOS = 2
_CELLS_AT_ONCE = 4_000_000  # bounds memory


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one detector, less that of another on the same videos."""

    difference: float | None
    """None where there is no ground truth."""
    interval: tuple[float, float] | None
    """95 % of the resamples lie in it; None where fewer than two videos have such ground truths."""
    share_better: float | None
    """Share of the resamples in which the first detector has the higher figure."""


def add_intervals(
    scores: Mapping[str, Mapping[str, Any]], scored: ScoredFrames, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return scores (protocol -> figure -> number) with `<figure>_interval` and num_videos beside the figures.

    An interval is [low, high], None where fewer than two videos have ground truths for the figure; 0 resamples
    leave out all intervals.
    """
    num_videos = len(video_names(scored))
    completed = {}
    for name, figures in scores.items():
        found = intervals(find_protocol(name), scored, resamples=resamples, seed=seed) if resamples else {}
        added = {figure + INTERVAL: list(ends) if ends else None for figure, ends in found.items()}
        completed[name] = {**figures, "num_videos": num_videos, **added}
    return completed


def intervals(
    protocol: Protocol, scored: ScoredFrames, *, resamples: int, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Return the 95 % interval of each figure; None where fewer than two videos have ground truths for it."""
    weights = draw_videos(len(video_names(scored)), resamples=resamples, seed=seed)
    resampled = resample_figures(protocol, scored, weights)
    enough = _has_enough_videos(protocol, scored)
    return {name: _interval(values) if enough[name] else None for name, values in resampled.items()}


def paired_differences(
    protocol: Protocol, first: ScoredFrames, second: ScoredFrames, *, resamples: int, seed: int
) -> dict[str, Difference]:
    """Compare two detectors on the same frames, figure by figure, both under the same resamples.

    UserError where the two were not scored on the same frames.
    """
    if first.frames != second.frames:
        raise UserError(
            f"the two detectors were scored on different frames ({len(first.frames)} and {len(second.frames)}), "
            "expected the same; score both on one split with one frame_stride"
        )
    num_videos = len(video_names(first))
    weights = np.concatenate(
        [np.ones((1, num_videos), np.int64), draw_videos(num_videos, resamples=resamples, seed=seed)]
    )
    ours, theirs = (resample_figures(protocol, scored, weights) for scored in (first, second))
    enough = _has_enough_videos(protocol, first)
    return {name: _difference(ours[name] - theirs[name], enough[name]) for name in ours}


def draw_videos(num_videos: int, *, resamples: int, seed: int) -> Ints:
    """Return how often each video is drawn in each resample: (S, V), rows that add up to V."""
    if num_videos == 0:
        return np.zeros((resamples, 0), np.int64)
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=resamples)


def resample_figures(protocol: Protocol, scored: ScoredFrames, weights: Ints) -> dict[str, Floats]:
    """Return each figure (S,) with every video counted as often as `weights` (S, V) says; NaN without ground truth."""
    by_label = [_Label.of(protocol, scored, label) for label in range(1, len(scored.label_names) + 1)]
    figures = {name: np.full(len(weights), np.nan) for name in protocol.figures}
    num_right = max((label.most_right() for label in by_label), default=0)
    at_once = max(1, _CELLS_AT_ONCE // max(num_right, 1))
    for start in range(0, len(weights), at_once):
        part = slice(start, start + at_once)
        columns = weights[part].T.astype(np.float64)  # (V, S)
        parts = [_LabelValues(protocol, label, columns) for label in by_label]
        for name, figure in protocol.figures.items():
            figures[name][part] = _mean_where_known(
                [values.figure(figure) for values in parts], len(columns.T)
            )
    return figures


def video_names(scored: ScoredFrames) -> list[str]:
    """Return the videos with scored frames, in the order of their first one."""
    return list(dict.fromkeys(video for video, _ in scored.frames))


def _videos_of_frames(scored: ScoredFrames) -> Ints:
    places = {video: place for place, video in enumerate(video_names(scored))}
    return np.array([places[video] for video, _ in scored.frames], np.int64)


@dataclass(frozen=True, slots=True)
class _Tally:
    """What precision depends on: which video each right detection is of, and what counts up to it."""

    right_videos: Ints
    """(R,) in score order."""
    counted: Floats
    """(R, V) detections of each video that count, past the right one before up to and with this one."""


@dataclass(frozen=True, slots=True)
class _Label:
    """The matches of one label, and the video of everything."""

    matches: Matches
    ignored: Flags
    """(B, G)."""
    outside: Flags
    """(B, D'), in score order."""
    detection_videos: Ints
    """(D',) in score order."""
    ground_truths: Floats
    """(B, V) those that count."""

    @classmethod
    def of(cls, protocol: Protocol, scored: ScoredFrames, label: int) -> _Label:
        """Match one label as the protocol does."""
        truths = scored.truths.select(np.flatnonzero(scored.truths.labels == label))
        detections = scored.detections.select(np.flatnonzero(scored.detections.labels == label))
        bins = list(protocol.size_bins.values())
        ignored = ignored_ground_truths(truths, bins)
        matches = match(truths, detections, ignored, protocol.rule)
        areas = detections.boxes[matches.order, 2] * detections.boxes[matches.order, 3]
        videos = _videos_of_frames(scored)
        num_videos = int(videos.max(initial=-1)) + 1
        counts = [np.bincount(videos[truths.frames[~row]], minlength=num_videos) for row in ignored]
        return cls(
            matches=matches,
            ignored=ignored,
            outside=np.stack([(areas < low) | (areas > high) for low, high in bins]),
            detection_videos=videos[detections.frames[matches.order]],
            ground_truths=np.array(counts, np.float64).reshape(len(bins), num_videos),
        )

    def right(self, place: int, level: int) -> Flags:
        """Return which candidates are right: (C,)."""
        matched = self.matches.ground_truths[place, level]
        right: Flags = matched != UNMATCHED
        right[right] = ~self.ignored[place, matched[right]]
        return right

    def most_right(self) -> int:
        """Return the largest R that a tally can have."""
        return len(self.matches.candidates)

    def tally(self, place: int, level: int) -> _Tally:
        """Count for one bin and one threshold."""
        right = self.right(place, level)
        candidates = self.matches.candidates
        counts = ~self.outside[place]
        is_matched = self.matches.ground_truths[place, level] != UNMATCHED
        counts[candidates[is_matched]] = right[is_matched]
        places = candidates[right]
        counted = np.flatnonzero(counts)
        stretches = np.searchsorted(places, counted, side="left")  # the last is past all right ones
        num_videos = self.ground_truths.shape[1]
        cells = stretches * num_videos + self.detection_videos[counted]
        histogram = np.bincount(cells, minlength=(len(places) + 1) * num_videos)
        table = histogram.reshape(len(places) + 1, num_videos)[:-1]
        return _Tally(self.detection_videos[places], table.astype(np.float64))


class _LabelValues:
    """Precision and recall of one label under weights (V, S), each bin and threshold computed once."""

    def __init__(self, protocol: Protocol, label: _Label, weights: Floats) -> None:
        self._protocol, self._label, self._weights = protocol, label, weights
        numbers = label.ground_truths @ weights  # (B, S)
        self._numbers = np.where(numbers > 0, numbers, np.nan)
        self._precision: dict[tuple[int, int], Floats] = {}

    def figure(self, figure: Figure) -> Floats:
        """Return one figure of this label: (S,), NaN without ground truth."""
        place = list(self._protocol.size_bins).index(figure.size)
        thresholds = self._protocol.rule.thresholds
        levels = [i for i, level in enumerate(thresholds) if figure.iou in (None, round(level, 9))]
        if figure.kind == "precision":
            values = [self._average_precision(place, level) for level in levels]
        else:
            values = [self._recall(place, level, figure.limit) for level in levels]
        return np.asarray(np.mean(values, axis=0))

    def _average_precision(self, place: int, level: int) -> Floats:
        key = (place, level)
        if key not in self._precision:
            tally = self._label.tally(place, level)
            points = np.array(self._protocol.recall_points)
            self._precision[key] = _average_precision(tally, self._weights, self._numbers[place], points)
        return self._precision[key]

    def _recall(self, place: int, level: int, limit: int | None) -> Floats:
        matches = self._label.matches
        rank = matches.rank[matches.candidates]
        found = self._label.right(place, level) & (rank < (np.inf if limit is None else limit))
        videos = self._label.detection_videos[matches.candidates[found]]
        counts = np.bincount(videos, minlength=len(self._weights)).astype(np.float64)
        return np.asarray((counts @ self._weights) / self._numbers[place])


def _average_precision(tally: _Tally, weights: Floats, numbers: Floats, recall_points: Floats) -> Floats:
    """Return the mean, over recall points, of the best precision from there on: (S,), NaN where `numbers` is."""
    found = np.cumsum(weights[tally.right_videos], axis=0)  # (R, S)
    counted = np.cumsum(tally.counted @ weights, axis=0)
    # A right detection of a video that was not drawn repeats the one before at no better precision.
    precision = found / (counted + np.spacing(1.0))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(recall_points, found / numbers, side="right") / len(recall_points)
    average: Floats = (best * np.diff(reached, axis=0, prepend=0.0)).sum(axis=0)
    average[np.isnan(numbers)] = np.nan
    return average


def _mean_where_known(values: Sequence[Floats], num_resamples: int) -> Floats:
    """Return the mean over labels that have ground truth in the resample: (S,)."""
    table = np.array(values).reshape(len(values), num_resamples)
    known = ~np.isnan(table)
    counts = known.sum(axis=0)
    sums = np.where(known, table, 0.0).sum(axis=0)
    means: Floats = np.divide(sums, counts, out=np.full(num_resamples, np.nan), where=counts > 0)
    return means


def _has_enough_videos(protocol: Protocol, scored: ScoredFrames) -> dict[str, bool]:
    """Return for each figure whether two videos or more have ground truths that it counts."""
    ignored = ignored_ground_truths(scored.truths, protocol.size_bins.values())
    videos = _videos_of_frames(scored)[scored.truths.frames]
    counts = [len(np.unique(videos[~row])) for row in ignored]
    of_bin = dict(zip(protocol.size_bins, counts, strict=True))
    return {name: of_bin[figure.size] >= _FEWEST_VIDEOS for name, figure in protocol.figures.items()}


def _interval(values: Floats) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _difference(values: Floats, has_enough_videos: bool) -> Difference:
    """Summarise the differences (1 + S,): of the videos as they are, then of the resamples."""
    if np.isnan(values[0]):
        return Difference(None, None, None)
    known = values[1:][~np.isnan(values[1:])]
    if not has_enough_videos or not len(known):
        return Difference(float(values[0]), None, None)
    return Difference(float(values[0]), _interval(known), float((known > 0).mean()))
