"""The promotion gate: what it lets through, and what it says when it does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from lstfe.errors import UserError
from pipelines.gate import COLUMNS, Evidence, Paired, decide
from pipelines.operations_config import GateConfig

GATE = GateConfig(margin=0.0, max_class_drop=0.02, max_size_drop=0.03, max_latency_ratio=1.2)
BETTER = Evidence(
    has_champion=True,
    ap50=Paired(challenger=0.80, champion=0.75, interval=(0.01, 0.09)),
    by_class={"drone": Paired(challenger=0.80, champion=0.75)},
    by_size={"APs": Paired(challenger=0.40, champion=0.40), "APl": Paired(challenger=None, champion=None)},
    parity_difference=1e-5,
    latency_ms=(11.0, 10.0),
    labels=(("drone",), ("drone",)),
)
FIRST = Evidence(
    has_champion=False,
    ap50=Paired(challenger=0.3, champion=None),
    parity_difference=1e-5,
    latency_ms=(11.0, None),
    labels=(("drone",), None),
)


def _refused(evidence: Evidence, gate: GateConfig = GATE) -> list[str]:
    decision = decide(evidence, gate)
    assert decision.promote is all(check.passed for check in decision.checks)
    return [check.name for check in decision.checks if not check.passed]


def _paired(difference: float, interval: tuple[float, float] | None = None) -> Paired:
    return Paired(challenger=0.5 + difference, champion=0.5, interval=interval)


def test_without_a_champion_parity_and_the_least_ap50_are_enough() -> None:
    assert _refused(FIRST) == []
    assert _refused(FIRST, replace(GATE, first_min_ap50=0.3)) == []
    assert _refused(FIRST, replace(GATE, first_min_ap50=0.31)) == ["ap50"]
    assert _refused(replace(FIRST, parity_difference=0.1)) == ["parity"]


def test_a_first_champion_that_could_not_be_measured_is_refused() -> None:
    assert _refused(replace(FIRST, ap50=Paired(challenger=None, champion=None))) == ["ap50"]


def test_a_challenger_that_is_surely_better_everywhere_is_accepted() -> None:
    decision = decide(BETTER, GATE)

    assert decision.promote
    assert decision.summary == "accepted: every check passed"
    assert [check.name for check in decision.checks] == [
        "parity",
        "labels",
        "ap50",
        "class drone",
        "size APs",
        "size APl",
        "latency",
    ]


@pytest.mark.parametrize(
    ("interval", "margin", "refused"),
    [
        ((0.001, 0.09), 0.0, []),
        ((0.0, 0.09), 0.0, ["ap50"]),  # above the margin, not on it
        ((-0.01, 0.11), 0.0, ["ap50"]),  # better on average, but not surely
        ((-0.01, 0.11), -0.02, []),  # surely not worse by two points
        ((0.01, 0.09), 0.02, ["ap50"]),
        (None, -1.0, ["ap50"]),  # one test video proves nothing
    ],
)
def test_the_whole_interval_of_ap50_must_lie_above_the_margin(
    interval: tuple[float, float] | None, margin: float, refused: list[str]
) -> None:
    evidence = replace(BETTER, ap50=_paired(0.05, interval))

    assert _refused(evidence, replace(GATE, margin=margin)) == refused


@pytest.mark.parametrize(("drop", "refused"), [(0.0199, []), (0.0201, ["class drone"])])
def test_no_class_may_fall_by_more_than_its_limit(drop: float, refused: list[str]) -> None:
    assert _refused(replace(BETTER, by_class={"drone": _paired(-drop)})) == refused


def test_a_class_may_have_a_limit_of_its_own() -> None:
    evidence = replace(BETTER, by_class={"drone": _paired(-0.05), "bird": _paired(-0.05)})

    assert _refused(evidence, replace(GATE, class_drops={"bird": 0.1})) == ["class drone"]


def test_one_size_bin_that_falls_too_far_is_enough_to_refuse() -> None:
    evidence = replace(BETTER, by_size={"AP_tiny": _paired(-0.04), "APs": _paired(+0.2)})

    assert _refused(evidence) == ["size AP_tiny"]
    assert _refused(evidence, replace(GATE, size_drops={"AP_tiny": 0.05})) == []


@pytest.mark.parametrize("evidence", [BETTER, FIRST, replace(BETTER, by_class={}, by_size={})])
def test_a_limit_of_a_class_that_is_not_there_is_refused(evidence: Evidence) -> None:
    with pytest.raises(
        UserError, match=r"gate\.class_drops: found 'dorne', expected one of drone as measured"
    ):
        decide(evidence, replace(GATE, class_drops={"drone": 0.1, "dorne": 0.1}))


def test_a_limit_of_a_size_that_is_not_there_is_refused() -> None:
    limits = replace(GATE, size_drops={"APL": 0.1})
    with pytest.raises(
        UserError, match=r"gate\.size_drops: found 'APL', expected one of APs, APl as measured"
    ):
        decide(BETTER, limits)
    with pytest.raises(UserError, match=r"gate\.size_drops: found 'APL', expected none as measured"):
        decide(replace(BETTER, by_size={}), limits)


def test_limits_of_sizes_wait_where_there_is_nothing_to_compare_with() -> None:
    assert _refused(FIRST, replace(GATE, size_drops={"APl": 0.1})) == []


def test_what_has_no_ground_truth_cannot_fall() -> None:
    unknown = Paired(challenger=None, champion=None)

    assert _refused(replace(BETTER, by_class={"bird": unknown}, by_size={"APl": unknown})) == []


@pytest.mark.parametrize(
    ("difference", "refused"), [(1e-3, []), (1.1e-3, ["parity"]), (math.nan, ["parity"])]
)
def test_the_exported_graphs_must_agree_with_pytorch(difference: float, refused: list[str]) -> None:
    assert _refused(replace(BETTER, parity_difference=difference)) == refused


@pytest.mark.parametrize(
    ("latency_ms", "refused"), [((12.0, 10.0), []), ((12.1, 10.0), ["latency"]), ((1.0, None), ["latency"])]
)
def test_a_slower_challenger_is_refused(latency_ms: tuple[float, float | None], refused: list[str]) -> None:
    assert _refused(replace(BETTER, latency_ms=latency_ms)) == refused


def test_detectors_of_different_categories_are_for_a_person_to_compare() -> None:
    evidence = replace(BETTER, labels=(("drone", "bird"), ("drone",)))

    assert _refused(evidence) == ["labels"]
    assert "promote by hand" in decide(evidence, GATE).summary


def test_a_refusal_names_every_reason_with_its_numbers() -> None:
    evidence = replace(
        BETTER, ap50=_paired(-0.1, (-0.2, -0.05)), by_size={"APs": _paired(-0.5)}, latency_ms=(30.0, 10.0)
    )

    summary = decide(evidence, GATE).summary

    assert summary.startswith("refused: ")
    for words in ("AP50 -0.100 (-0.200 to -0.050)", "size APs -0.500, may fall by 0.030", "3.00 times"):
        assert words in summary


def test_a_decision_survives_as_json_and_as_a_table() -> None:
    decision = decide(BETTER, GATE)

    content: Any = json.loads(json.dumps(decision.to_json()))
    assert content["promote"] is True
    assert content["checks"][2] == {
        "name": "ap50",
        "passed": True,
        "value": 0.01,
        "limit": 0.0,
        "reason": "AP50 +0.050 (+0.010 to +0.090), must lie above +0.000",
    }
    assert all(len(row) == len(COLUMNS) for row in decision.rows())
