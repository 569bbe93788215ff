"""Is incoming footage still what the champion was trained and tested on?

Compared are, video by video: brightness and sharpness of frames (with the training split), and detections per frame,
their scores and their sizes (with the test split, because on what it was trained on a detector is too sure).

The distance is Kolmogorov and Smirnov's, the largest between two cumulative distributions (0..1). Its p-value comes
from permuting whole videos between new and old: frames of one video resemble each other, and the usual p-value, which
takes them for independent, would find drift in any new scene. All p-values are corrected together (Holm). Drift is a
significant distance that is large enough to matter; where the videos are too few for any distance to be significant,
the verdict is open.

Shapes: N values, V videos, P permutations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from scipy.stats import ks_2samp

from lstfe.errors import UserError
from lstfe.whole_files import new_file
from pipelines.operations_config import DriftConfig

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Values = dict[str, list[float]]
"""Video -> values of one quantity."""

QUANTITIES = ("brightness", "sharpness", "detections_per_frame", "score", "box_size_px")
COLUMNS = ("quantity", "verdict", "distance", "p", "PSI", "median then", "median now", "videos")
_PSI_BINS = 10
_PSI_FLOOR = 1e-4  # an empty bin would make it infinite

Verdict = Literal["as before", "drift", "too few videos"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One quantity then and now."""

    quantity: str
    verdict: Verdict
    distance: float | None
    """Kolmogorov-Smirnov distance, 0..1; None without values on either side."""
    p: float | None
    """Of the distance under permutation of videos, corrected for all quantities."""
    p_frames: float | None
    """The usual one, as if all frames were independent: for comparison only, far too small as a rule."""
    psi: float | None
    """Population stability index over tenths of the reference: below 0.1 little, above 0.25 much, by convention."""
    medians: tuple[float | None, float | None]
    """Of the reference and of now."""
    num_videos: tuple[int, int]
    """Likewise."""


def compare(
    reference: Mapping[str, Values], now: Mapping[str, Values], wanted: DriftConfig
) -> list[Comparison]:
    """Compare every quantity that the reference has; the same values give the same verdict."""
    found = [
        _measure(name, _filled(reference[name]), _filled(now.get(name, {})), wanted)
        for name in QUANTITIES
        if name in reference
    ]
    return _judge(found, wanted)


def distance(first: Floats, second: Floats) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples (N,), (M,)."""
    return float(ks_2samp(first, second, method="asymp").statistic)


def permutation_p(first: Sequence[Floats], second: Sequence[Floats], *, permutations: int) -> float:
    """Return how often videos dealt at random are as far apart as these two groups: (1 + times) / (1 + P)."""
    videos = [*first, *second]
    values, owners = np.concatenate(videos), np.repeat(np.arange(len(videos)), [len(v) for v in videos])
    order = np.argsort(values, kind="stable")
    owners, values = owners[order], values[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # where a run of equal values ends
    is_second = np.zeros(len(videos), bool)
    is_second[len(first) :] = True
    observed = _group_distance(owners, ends, is_second)
    generator = np.random.default_rng(0)
    times = sum(
        _group_distance(owners, ends, generator.permutation(is_second)) >= observed - 1e-12
        for _ in range(permutations)
    )
    return (1 + times) / (1 + permutations)


def smallest_p(num_first: int, num_second: int, *, permutations: int) -> float:
    """Return the smallest p-value that so many videos can give at all: one way to deal them out of all."""
    return max(1 / math.comb(num_first + num_second, num_second), 1 / (1 + permutations))


def stability_index(reference: Floats, now: Floats) -> float:
    """Return the population stability index of `now` over the tenths of `reference`."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _PSI_BINS + 1)[1:-1]))
    shares = [
        np.maximum(
            np.bincount(np.searchsorted(edges, values, "left"), minlength=len(edges) + 1) / len(values),
            _PSI_FLOOR,
        )
        for values in (reference, now)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's method, in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


def rows(found: Sequence[Comparison]) -> list[list[str]]:
    """Return a table's rows, under COLUMNS."""
    return [
        [
            item.quantity,
            item.verdict,
            _text(item.distance),
            _text(item.p),
            _text(item.psi),
            *(_text(value) for value in item.medians),
            f"{item.num_videos[0]} then, {item.num_videos[1]} now",
        ]
        for item in found
    ]


def save_reference(values: Mapping[str, Values], path: Path) -> None:
    """Write what a champion knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, is_durable=True) as partial:
        partial.write_text(json.dumps(values) + "\n", encoding="utf-8")


def load_reference(path: Path) -> dict[str, Values]:
    """Read it; UserError where it is missing or no such file."""
    try:
        return TypeAdapter(dict[str, Values]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{path}: no reference that can be read ({type(error).__name__}), expected what `lstfe ops retrain` writes "
            "beside a version; promote a version that has one"
        ) from None


def to_json(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as plain values."""
    return [asdict(item) for item in found]


def _filled(values: Values) -> list[Floats]:
    """Return the values of videos that have any."""
    return [np.array(of_video, np.float64) for of_video in values.values() if of_video]


def _measure(name: str, reference: list[Floats], now: list[Floats], wanted: DriftConfig) -> Comparison:
    medians = tuple(float(np.median(np.concatenate(side))) if side else None for side in (reference, now))
    found = Comparison(
        quantity=name,
        verdict="too few videos",
        distance=None,
        p=None,
        p_frames=None,
        psi=None,
        medians=(medians[0], medians[1]),
        num_videos=(len(reference), len(now)),
    )
    if not reference or not now:
        return found
    then, these = np.concatenate(reference), np.concatenate(now)
    usual = ks_2samp(then, these, method="asymp")
    return Comparison(
        quantity=name,
        verdict="too few videos",
        distance=float(usual.statistic),
        p=permutation_p(reference, now, permutations=wanted.permutations),
        p_frames=float(usual.pvalue),
        psi=stability_index(then, these),
        medians=found.medians,
        num_videos=found.num_videos,
    )


def _judge(found: Sequence[Comparison], wanted: DriftConfig) -> list[Comparison]:
    measured = [item for item in found if item.p is not None]
    corrected = dict(
        zip((item.quantity for item in measured), holm([item.p or 0.0 for item in measured]), strict=True)
    )
    judged = []
    for item in found:
        p = corrected.get(item.quantity)
        judged.append(_with(item, p, _verdict(item, p, len(measured), wanted)))
    return judged


def _verdict(item: Comparison, p: float | None, num_tests: int, wanted: DriftConfig) -> Verdict:
    if p is None or item.distance is None:
        return "too few videos"
    if item.distance < wanted.min_effect:
        return "as before"
    if p < wanted.significance:
        return "drift"
    least = smallest_p(*item.num_videos, permutations=wanted.permutations) * num_tests
    return "too few videos" if least >= wanted.significance else "as before"


def _with(item: Comparison, p: float | None, verdict: Verdict) -> Comparison:
    return Comparison(**{**asdict(item), "p": p, "verdict": verdict})


def _group_distance(owners: Ints, ends: Ints, is_second: npt.NDArray[np.bool_]) -> float:
    """Return the distance between the values of two groups of videos; `owners` (N,) in the order of the values."""
    of_second = is_second[owners]
    num_second = int(of_second.sum())
    if num_second in (0, len(owners)):
        return 0.0
    steps = np.where(of_second, 1 / num_second, -1 / (len(owners) - num_second))
    return float(np.abs(np.cumsum(steps)[ends]).max())


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
