"""What a family of graphs for TensorRT costs: its differences from PyTorch and its AP, measured in ONNX Runtime.

Everything but the engines' own arithmetic shows here: the rewriting, the rounding to half precision, the ranges of
int8 and fp8. The same report about engines is made by handing their backend to `deploy.parity.compare_graphs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from deploy.bundle import PARITY_FILE, Bundle
from deploy.expanded import ExpandedGraphs, PlainView
from deploy.graphs import Precision
from deploy.onnx_backend import OnnxGraphs
from deploy.parity import ParityError, compare_graphs
from deploy.tensorrt_graphs import load_network
from lstfe.data.prepared import load_split

AP_FIGURES = (("coco", "AP"), ("voc07", "AP50"))
"""Protocol and figure of the AP that a precision may not cost more than `export.max_ap_drop`."""


def check_family(
    bundle: Bundle,
    models: Mapping[str, onnx.ModelProto],
    *,
    precision: Precision,
    prepared_dir: Path,
    split: str = "val",
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Compare a family with PyTorch on real frames of a split; write parity.json into `report_dir`, return it.

    Raises ParityError where the AP falls by more than `export.max_ap_drop`; the report is written before.
    """
    _require_labels(bundle, prepared_dir, split)
    evaluate = replace(bundle.config.evaluate, protocols=("coco", "voc07"))
    config = replace(bundle.config, evaluate=evaluate)
    graphs = PlainView(ExpandedGraphs(models, config), OnnxGraphs(bundle.directory, config), config)
    report = compare_graphs(
        load_network(bundle),
        config,
        graphs,
        backend=precision,
        prepared_dir=prepared_dir,
        split=split,
        on_random=False,
    )
    report |= {"split": split, "max_ap_drop": config.export.max_ap_drop, "ap": ap_table(report, precision)}
    if report_dir is not None:
        (report_dir / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    require_ap(report["ap"], config.export.max_ap_drop, what=f"{precision} graphs")
    return report


def _require_labels(bundle: Bundle, prepared_dir: Path, split: str) -> None:
    found = load_split(prepared_dir, split)[0].label_names
    if tuple(found) != bundle.label_names:
        raise ParityError(
            f"{prepared_dir}: split {split} has the categories {', '.join(found)}, the bundle detects "
            f"{', '.join(bundle.label_names)}; give the data set that the bundle was trained on"
        )


def ap_table(report: Mapping[str, Any], backend: str) -> dict[str, dict[str, float]]:
    """Return protocol.figure -> AP of `torch` and of `backend`, and the `drop` between them, from a report.

    Figures that are undefined (no ground truth in the frames) are left out.
    """
    table = {}
    for protocol, figure in AP_FIGURES:
        before, after = (report["scores"][side][protocol][figure] for side in ("torch", backend))
        if before is not None and after is not None:
            table[f"{protocol}.{figure}"] = {"torch": before, backend: after, "drop": before - after}
    return table


def require_ap(table: Mapping[str, Mapping[str, float]], max_drop: float, *, what: str) -> None:
    """Raise ParityError for the first AP that fell by more than `max_drop`."""
    for name, figures in table.items():
        if figures["drop"] > max_drop:
            raise ParityError(
                f"{what} lose {figures['drop']:.4f} of {name} ({figures['torch']:.4f} with PyTorch), "
                f"export.max_ap_drop allows {max_drop}; use fp16, calibrate with more frames "
                "(export.calibration_frames), or raise the limit"
            )
