"""What a family of graphs for TensorRT costs: its differences from PyTorch and its AP, measured in ONNX Runtime.

Everything but the engines' own arithmetic shows here: the rewriting, the rounding to half precision, the ranges of
int8 and fp8. `ap_report` makes the same report of any graphs, so of engines too (`deploy.tensorrt.parity`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx

from deploy.bundle import PARITY_FILE, Bundle
from deploy.device import Graphs
from deploy.graphs import Precision
from deploy.network import load_network
from deploy.onnx_backend import OnnxGraphs
from deploy.parity import ParityError, compare_graphs
from deploy.tensorrt_graphs.expanded import ExpandedGraphs, PlainView
from lstfe.data.prepared import load_split

AP_FIGURES: tuple[tuple[Literal["coco", "voc07"], str], ...] = (("coco", "AP"), ("voc07", "AP50"))
"""Protocol and figure of the AP that a precision may not cost more than `export.max_ap_drop`."""
_SPLIT = "val"  # ranges are taken from `train`


def check_family(
    bundle: Bundle,
    models: Mapping[str, onnx.ModelProto],
    *,
    precision: Precision,
    prepared_dir: Path,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Compare a family with PyTorch on real frames of the split `val`; write parity.json into `report_dir`, return it.

    Raises ParityError where the AP falls by more than `export.max_ap_drop`; the report is written before.
    """
    load_split(prepared_dir, _SPLIT, label_names=bundle.label_names)  # before minutes of work
    config = bundle.config
    graphs = PlainView(ExpandedGraphs(models, config), OnnxGraphs(bundle.directory, config), config)
    report = ap_report(bundle, graphs, backend=precision, prepared_dir=prepared_dir, split=_SPLIT)
    report["split"] = _SPLIT
    if report_dir is not None:
        (report_dir / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for fault in ap_faults(report):
        raise ParityError(
            f"{precision} graphs: {fault}; use fp16, calibrate with more frames (export.calibration_frames), "
            "or raise the limit"
        )
    return report


def ap_report(
    bundle: Bundle, graphs: Graphs, *, backend: str, prepared_dir: Path, split: str | None = None
) -> dict[str, Any]:
    """Compare graphs of the plain form's contract with the bundle's network; `compare_graphs` and the AP of both.

    `backend` names the graphs in the report, `split` is `evaluate.split` unless given.
    """
    protocols = tuple(protocol for protocol, _ in AP_FIGURES)
    config = replace(bundle.config, evaluate=replace(bundle.config.evaluate, protocols=protocols))
    report = compare_graphs(
        load_network(bundle),
        config,
        graphs,
        backend=backend,
        prepared_dir=prepared_dir,
        label_names=bundle.label_names,
        split=split,
        on_random=False,
    )
    return report | {"max_ap_drop": config.export.max_ap_drop, "ap": ap_table(report, backend)}


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


def ap_faults(report: Mapping[str, Any]) -> Iterator[str]:
    """Say, a line each, which AP of an `ap_report` fell by more than its limit."""
    for name, figures in report["ap"].items():
        if figures["drop"] > report["max_ap_drop"]:
            yield (
                f"{name} is {figures['torch'] - figures['drop']:.4f} and {figures['torch']:.4f} with PyTorch, "
                f"export.max_ap_drop allows {report['max_ap_drop']} less"
            )
