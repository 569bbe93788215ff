"""Drift: distances against scipy, p-values against counting by hand, and what is called drift."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from lstfe.errors import UserError
from pipelines.drift import (
    COLUMNS,
    QUANTITIES,
    Values,
    compare,
    holm,
    load_reference,
    permutation_p,
    rows,
    save_reference,
    smallest_p,
    stability_index,
    to_json,
)
from pipelines.operations_config import DriftConfig

WANTED = DriftConfig(permutations=499)


def _videos(count: int, *, mean: float, seed: int, spread: float = 1.0, frames: int = 12) -> Values:
    """Values of videos that each have a level of their own, frames of a video close together."""
    generator = np.random.default_rng(seed)
    levels = generator.normal(mean, spread, count)
    return {
        f"{seed}_{place}": generator.normal(level, 0.1, frames).tolist() for place, level in enumerate(levels)
    }


def _verdict(reference: Values, now: Values, wanted: DriftConfig = WANTED) -> Any:
    [found] = compare({"brightness": reference}, {"brightness": now}, wanted)
    return found


def test_without_videos_on_either_side_nothing_is_said() -> None:
    for reference, now in (({}, {}), (_videos(5, mean=0, seed=1), {}), ({}, _videos(5, mean=0, seed=1))):
        found = _verdict(reference, now)
        assert (found.verdict, found.distance, found.p) == ("too few videos", None, None)


def test_the_distance_is_that_of_scipy() -> None:
    reference, now = _videos(6, mean=0, seed=1), _videos(4, mean=0.7, seed=2)
    pooled = [np.concatenate([np.array(v) for v in side.values()]) for side in (reference, now)]

    found = _verdict(reference, now)

    assert found.distance == pytest.approx(ks_2samp(*pooled).statistic)
    assert found.p_frames == pytest.approx(ks_2samp(*pooled, method="asymp").pvalue)
    assert found.medians == pytest.approx(tuple(np.median(side) for side in pooled))
    assert found.num_videos == (6, 4)


def test_the_p_value_is_the_share_of_all_ways_to_deal_the_videos() -> None:
    generator = np.random.default_rng(5)
    videos = [np.round(generator.normal(level, 0.3, 7), 1) for level in (0, 0.2, 0.4, 1.0, 1.3)]  # with ties
    observed = ks_2samp(np.concatenate(videos[:3]), np.concatenate(videos[3:])).statistic
    dealt = []
    for second in combinations(range(5), 2):
        first = [i for i in range(5) if i not in second]
        groups = [np.concatenate([videos[i] for i in group]) for group in (first, second)]
        dealt.append(ks_2samp(*groups).statistic)
    share = np.mean(np.array(dealt) >= observed - 1e-12)

    found = permutation_p(videos[:3], videos[3:], permutations=4000)

    assert found == pytest.approx(share, abs=0.03)


def test_new_scenes_of_the_same_kind_are_no_drift_though_their_frames_look_independent() -> None:
    """What the usual p-value gets wrong: frames of one video are one piece of evidence, not many."""
    reference = _videos(20, mean=0, seed=1)
    false_alarms, usual_alarms = 0, 0
    for seed in range(2, 22):
        found = _verdict(reference, _videos(4, mean=0, seed=seed), DriftConfig(permutations=199))
        false_alarms += found.verdict == "drift"
        usual_alarms += found.p_frames < 0.05
    assert false_alarms <= 3
    assert usual_alarms >= 10


def test_a_shift_of_all_videos_is_drift() -> None:
    found = _verdict(_videos(20, mean=0, seed=1), _videos(6, mean=4, seed=2))

    assert found.verdict == "drift"
    assert found.distance > 0.9
    assert found.p < 0.05
    assert found.psi > 0.25


def test_a_significant_difference_too_small_to_matter_is_none() -> None:
    reference, now = _videos(30, mean=0, seed=1), _videos(15, mean=2, seed=2)
    found = _verdict(reference, now)
    assert found.verdict == "drift"
    assert found.distance < 0.99

    assert _verdict(reference, now, DriftConfig(permutations=499, min_effect=0.99)).verdict == "as before"


def test_one_video_among_few_cannot_prove_anything_and_is_not_called_unchanged() -> None:
    found = _verdict(_videos(5, mean=0, seed=1), _videos(1, mean=9, seed=2))

    assert smallest_p(5, 1, permutations=499) == pytest.approx(1 / 6)
    assert (found.verdict, found.distance) == ("too few videos", 1.0)


def test_more_quantities_ask_for_more_evidence() -> None:
    reference, now = _videos(5, mean=0, seed=1), _videos(3, mean=9, seed=2)
    alone = compare({"score": reference}, {"score": now}, DriftConfig(permutations=4999))
    among = compare(
        dict.fromkeys(QUANTITIES, reference),
        dict.fromkeys(QUANTITIES, now),
        DriftConfig(permutations=4999),
    )

    assert [item.verdict for item in alone] == ["drift"]  # one or two of 56 ways to deal them
    assert {item.verdict for item in among} == {"too few videos"}  # 5 times that is too much


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the textbook's example
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm_corrects_as_in_the_textbook(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


def test_the_stability_index_is_zero_for_the_same_and_large_for_another_distribution() -> None:
    values = np.random.default_rng(0).normal(0, 1, 5000)

    assert stability_index(values, values) == 0.0
    assert stability_index(values, values + 0.05) < 0.1
    assert stability_index(values, values + 1.0) > 0.25
    assert stability_index(np.zeros(10), np.zeros(10)) == 0.0


def test_a_reference_comes_back_as_it_was_written(tmp_path: Path) -> None:
    values = {"brightness": _videos(2, mean=0, seed=1), "score": {"a": []}}

    save_reference(values, tmp_path / "references" / "1.json")

    assert load_reference(tmp_path / "references" / "1.json") == values
    with pytest.raises(UserError, match="no reference that can be read"):
        load_reference(tmp_path / "references" / "2.json")


def test_every_comparison_is_a_row_and_plain_values() -> None:
    found = compare(
        {"brightness": _videos(5, mean=0, seed=1), "score": {}},
        {"brightness": _videos(2, mean=0, seed=2)},
        WANTED,
    )

    assert [len(row) for row in rows(found)] == [len(COLUMNS)] * 2
    assert [item["quantity"] for item in to_json(found)] == ["brightness", "score"]
