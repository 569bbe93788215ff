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
from lstfe.evaluation.encounters import Encounters, Flags, Floats, Ints
from lstfe.evaluation.matching import UNMATCHED
from lstfe.evaluation.precision import LabelMatches
from lstfe.evaluation.presets import Figure, Protocol, find_protocol
from lstfe.evaluation.protocols import label_matches
from lstfe.evaluation.records import ScoredFrames

CONFIDENCE = 0.95
"""Share of the resamples that an interval covers."""
INTERVAL = "_interval"
"""What the name of a figure's interval ends in."""
_FEWEST_VIDEOS = 2
_CELLS_AT_ONCE = 200_000  # what stays near the processor


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
    labels = _labels(protocol, scored)
    resampled = _resample(protocol, labels, weights)
    enough = _has_enough_videos(protocol, labels)
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
    both = [_labels(protocol, scored) for scored in (first, second)]
    ours, theirs = (_resample(protocol, labels, weights) for labels in both)
    enough = _has_enough_videos(protocol, both[0])
    return {name: _difference(ours[name] - theirs[name], enough[name]) for name in ours}


def draw_videos(num_videos: int, *, resamples: int, seed: int) -> Ints:
    """Return how often each video is drawn in each resample: (S, V), rows that add up to V."""
    if num_videos == 0:
        return np.zeros((resamples, 0), np.int64)
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=resamples)


def resample_figures(protocol: Protocol, scored: ScoredFrames, weights: Ints) -> dict[str, Floats]:
    """Return each figure (S,) with every video counted as often as `weights` (S, V) says; NaN without ground truth."""
    return _resample(protocol, _labels(protocol, scored), weights)


def video_names(scored: ScoredFrames) -> list[str]:
    """Return the videos with scored frames, in the order of their first one."""
    return list(dict.fromkeys(video for video, _ in scored.frames))


@dataclass(frozen=True, slots=True)
class _Tally:
    """What precision depends on: which video each right detection is of, and what counts up to it."""

    right_videos: Ints
    """(R,) in score order."""
    counted: Floats
    """(R, V) what the detections of each video weigh, past the right one before up to and with this one."""


@dataclass(frozen=True, slots=True)
class _Label:
    """The matches of one label, and the video of everything."""

    found: LabelMatches
    detection_videos: Ints
    """(D',) in score order."""
    ground_truths: Floats
    """(B, V) those that count."""

    def matched_and_right(self, place: int, level: int) -> tuple[Flags, Flags]:
        """Return which candidates are matched, and which of those are right: (C,), (matched,)."""
        rows = self.found.matches.matched_to(place, level)
        is_matched = np.asarray(rows != UNMATCHED)
        return is_matched, self.found.counted[place, rows[is_matched]]

    def tally(self, place: int, level: int) -> _Tally:
        """Count for one bin and one threshold."""
        is_matched, right = self.matched_and_right(place, level)
        matched = self.found.matches.candidates[is_matched]
        counts = self.found.weights[place].astype(np.float64)
        counts[matched] = right
        places = matched[right]
        counted = np.flatnonzero(counts)
        stretches = np.searchsorted(places, counted, side="left")  # the last is past all right ones
        num_videos = self.ground_truths.shape[1]
        cells = stretches * num_videos + self.detection_videos[counted]
        sums = np.bincount(cells, counts[counted], minlength=(len(places) + 1) * num_videos)
        table = sums.astype(np.float64).reshape(len(places) + 1, num_videos)
        return _Tally(self.detection_videos[places], table[:-1])


def _labels(protocol: Protocol, scored: ScoredFrames) -> list[_Label]:
    """Match all labels as the protocol does."""
    encounters = Encounters(scored.truths, scored.detections, by_label=True)
    places = {video: place for place, video in enumerate(video_names(scored))}
    videos = np.array([places[video] for video, _ in scored.frames], np.int64)
    labels = []
    for label, found in enumerate(label_matches(protocol, encounters, len(scored.label_names)), start=1):
        counted = found.counted & (scored.truths.labels == label)
        numbers = [np.bincount(videos[scored.truths.frames[row]], minlength=len(places)) for row in counted]
        ground_truths = np.array(numbers, np.float64).reshape(len(protocol.bins), len(places))
        labels.append(_Label(found, videos[scored.detections.frames[found.matches.order]], ground_truths))
    return labels


def _resample(protocol: Protocol, labels: Sequence[_Label], weights: Ints) -> dict[str, Floats]:
    """Return each figure under weights (S, V): (S,)."""
    by_label = [_LabelValues(protocol, label, weights.astype(np.float64)) for label in labels]
    return {
        name: _mean_where_known([values.figure(figure) for values in by_label], len(weights))
        for name, figure in protocol.figures.items()
    }


class _LabelValues:
    """Precision and recall of one label under weights (S, V), each bin and threshold computed once."""

    def __init__(self, protocol: Protocol, label: _Label, weights: Floats) -> None:
        self._protocol, self._label, self._weights = protocol, label, weights
        numbers = weights @ label.ground_truths.T  # (S, B)
        self._numbers = np.where(numbers > 0, numbers, np.nan)
        self._precision: dict[tuple[int, int], Floats] = {}

    def figure(self, figure: Figure) -> Floats:
        """Return one figure of this label: (S,), NaN without ground truth."""
        place = self._protocol.bins.index(figure.bin)
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
            numbers = self._numbers[:, place]
            at_once = max(1, _CELLS_AT_ONCE // max(len(tally.right_videos), 1))
            parts = [
                _average_precision(
                    self._protocol,
                    tally,
                    self._weights[start : start + at_once],
                    numbers[start : start + at_once],
                )
                for start in range(0, len(numbers), at_once)
            ]
            self._precision[key] = np.concatenate([np.zeros(0), *parts])
        return self._precision[key]

    def _recall(self, place: int, level: int, limit: int | None) -> Floats:
        matches = self._label.found.matches
        is_matched, right = self._label.matched_and_right(place, level)
        places = matches.candidates[is_matched][right]
        places = places[matches.rank[places] < (np.inf if limit is None else limit)]
        counts = np.bincount(self._label.detection_videos[places], minlength=self._weights.shape[1])
        numbers = self._numbers[:, place] + self._protocol.recall_epsilon
        return np.asarray((self._weights @ counts.astype(np.float64)) / numbers)


def _average_precision(protocol: Protocol, tally: _Tally, weights: Floats, numbers: Floats) -> Floats:
    """Return the protocol's average precision under weights (S, V): (S,), NaN where `numbers` (S,) is."""
    found = np.cumsum(weights[:, tally.right_videos], axis=1)  # (S, R)
    counted = np.cumsum(weights @ tally.counted.T, axis=1)
    # A right detection of a video that was not drawn repeats the one before at no better precision.
    precision = found / (counted + protocol.precision_epsilon)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = found / (numbers + protocol.recall_epsilon)[:, None]
    average: Floats
    if protocol.is_area:
        average = (best * np.diff(recall, axis=1, prepend=0.0)).sum(axis=1)
    else:
        best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)  # 0 past the last one found
        points = np.array(protocol.recall_points)
        average = np.array(
            [row[np.searchsorted(reached, points)].mean() for row, reached in zip(best, recall, strict=True)]
        )
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


def _has_enough_videos(protocol: Protocol, labels: Sequence[_Label]) -> dict[str, bool]:
    """Return for each figure whether two videos or more have ground truths that it counts."""
    videos = [
        (sum(label.ground_truths[place] for label in labels) > 0).sum() for place in range(len(protocol.bins))
    ]
    enough = {
        name: bool(number >= _FEWEST_VIDEOS) for name, number in zip(protocol.bins, videos, strict=True)
    }
    return {name: enough[figure.bin] for name, figure in protocol.figures.items()}


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
