from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.export_onnx import export_graph
from deploy.graphs import graphs_of
from deploy.onnx_backend import OnnxGraphs
from deploy.parity import ParityError, RowDifference, ValueDifference, check_parity
from lstfe.data.faults import AnnotationError

from .conftest import LABEL_NAMES, NUM_PREPARED_FRAMES


def rows(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 6)


def test_no_boxes_differ_in_nothing() -> None:
    difference = RowDifference()
    difference.add(rows(), rows(), tolerance=1e-3)
    assert difference == RowDifference()


def test_boxes_are_compared_with_their_counterparts_in_any_order() -> None:
    one, other = (0, 0, 100, 100, 0.9, 1), (50, 50, 60, 60, 0.8, 1)
    moved = (50.05, 50, 60, 60, 0.8005, 1)
    difference = RowDifference()
    difference.add(rows(one, other), rows(moved, one), tolerance=1e-3)
    assert (difference.num_boxes, difference.num_unmatched) == (4, 0)
    assert difference.box_px == pytest.approx(0.05)
    assert difference.score == pytest.approx(0.0005)
    assert difference.relative == pytest.approx(0.0005)


def test_boxes_without_a_counterpart_are_counted_on_both_sides() -> None:
    difference = RowDifference()
    box = (0, 0, 10, 10, 0.9, 1)
    difference.add(
        rows(box, (0, 0, 10, 10, 0.9, 2)),
        rows(box, (3, 0, 10, 10, 0.9, 1), (0, 0, 10, 10, 0.5, 1)),
        tolerance=1e-3,
    )
    assert (difference.num_boxes, difference.num_unmatched) == (5, 3)


def test_values_are_compared_relative_to_the_largest() -> None:
    difference = ValueDifference()
    difference.add(np.array([100.0, 1.0]), np.array([100.0, 2.0]))
    difference.add(np.array([], float), np.array([], float))
    assert difference == ValueDifference(absolute=1.0, relative=0.01)


@pytest.mark.parametrize(
    ("expected", "found", "relative"),
    [
        (1.0, np.nan, np.inf),
        (np.nan, 1.0, np.inf),
        (np.nan, np.nan, np.inf),
        (1.0, np.inf, np.inf),
        (np.inf, -np.inf, np.inf),
        (np.inf, np.inf, 0.01),  # agrees, and does not hide what differs beside it
    ],
)
def test_what_is_no_number_differs_infinitely(expected: float, found: float, relative: float) -> None:
    difference = ValueDifference()
    difference.add(np.array([100.0, expected, 1.0]), np.array([100.0, found, 2.0]))
    assert difference.relative == relative


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 4], ids=["coordinate", "score"])
def test_a_box_that_is_no_box_differs_infinitely_however_many_agree(value: float, place: int) -> None:
    boxes = np.concatenate([rows((n, 0, n + 10, 10, 0.9, 1)) for n in range(200)])
    broken = boxes.copy()
    broken[7, place] = value
    difference = RowDifference()
    difference.add(boxes, broken, tolerance=1e-3)
    assert (difference.num_unmatched, difference.relative) == (2, np.inf)
    assert difference.box_px == 0.0


def test_an_infinite_coordinate_does_not_make_far_boxes_counterparts() -> None:
    difference = RowDifference()
    endless = (0, 0, np.inf, 10, 0.9, 1)
    difference.add(
        rows(endless, (0, 0, 10, 10, 0.8, 1)), rows(endless, (5, 0, 10, 10, 0.8, 1)), tolerance=1e-3
    )
    assert difference.num_unmatched == 2


def test_a_graph_that_gives_nan_alone_is_refused(
    export: Callable[..., Any], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export("lstfe")
    run, broken = OnnxGraphs.run, iter([True])

    def run_or_break(graphs: OnnxGraphs, name: str, *inputs: Any) -> list[Any]:
        """Give NaN once, for a random input: nothing goes on with it."""
        outputs = run(graphs, name, *inputs)
        is_broken = name == "backbone" and next(broken, False)
        return [np.full_like(output, np.nan) for output in outputs] if is_broken else outputs

    monkeypatch.setattr(OnnxGraphs, "run", run_or_break)
    config = replace(exported.config, export=replace(exported.config.export, parity_frames=2))
    copy = shutil.copytree(exported.directory, tmp_path / "exported")
    with pytest.raises(
        ParityError, match=r"graph backbone differs from PyTorch by inf \(relative\) on random"
    ):
        check_parity(exported.model, config, copy, prepared_dir=prepared, label_names=LABEL_NAMES)


def test_the_report_covers_every_graph_and_the_ap_of_both_backends(
    export: Callable[..., Any], prepared: Path, tmp_path: Path
) -> None:
    exported = export("lstfe")
    config = replace(
        exported.config, export=replace(exported.config.export, parity_frames=NUM_PREPARED_FRAMES)
    )
    copy = shutil.copytree(exported.directory, tmp_path / "exported")
    report = check_parity(exported.model, config, copy, prepared_dir=prepared, label_names=LABEL_NAMES)
    assert json.loads((copy / "parity.json").read_text()) == report
    assert set(report["graphs"]) == {graph.name for graph in graphs_of(config)}
    assert all(kind["relative"] <= 2e-4 for graph in report["graphs"].values() for kind in graph.values())
    assert report["num_frames"] == NUM_PREPARED_FRAMES
    assert report["detections"]["num_boxes"] > 0
    assert report["detections"]["num_unmatched"] == 0
    for protocol in ("coco", "voc07"):
        by_backend = [report["scores"][backend][protocol]["AP50"] for backend in ("torch", "onnx")]
        assert by_backend[0] == pytest.approx(by_backend[1])


def test_a_split_of_other_categories_is_refused(export: Callable[..., Any], prepared: Path) -> None:
    exported = export("lstfe")
    with pytest.raises(
        AnnotationError, match="the order of the categories is drone, bird, the detector's bird"
    ):
        check_parity(
            exported.model,
            exported.config,
            exported.directory,
            prepared_dir=prepared,
            label_names=LABEL_NAMES[::-1],
        )


def test_a_graph_of_other_weights_is_refused_and_the_report_written(
    export: Callable[..., Any], build_method: Callable[..., Any], prepared: Path, tmp_path: Path
) -> None:
    exported = export("lstfe")
    for path in exported.directory.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other, _ = build_method()
    other.fc0.weight.data *= 1.01
    export_graph("roi", other, exported.config, tmp_path)
    with pytest.raises(ParityError, match=r"graph roi differs from PyTorch by .* on random") as caught:
        check_parity(
            exported.model, exported.config, tmp_path, prepared_dir=prepared, label_names=LABEL_NAMES
        )
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "parity.json").read_text())["graphs"]["roi"]["random"]["relative"] > 1e-3
