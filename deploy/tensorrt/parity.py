"""How far engines are from PyTorch, on real frames: graph by graph, and in the AP; `lstfe engine verify`.

`tensorrt` compares this machine's engines. `onnx` needs no GPU: it compares the bundle's graphs or, with a precision,
the graphs that engines of that precision are built from, the plugin's operators expanded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deploy.bundle import PARITY_FILE, Bundle
from deploy.device import Graphs
from deploy.graphs import Precision
from deploy.onnx_backend import OnnxGraphs
from deploy.tensorrt.manifest import ENGINES_DIR, find_engines
from deploy.tensorrt_graphs.expanded import ExpandedGraphs, PlainView
from deploy.tensorrt_graphs.family import build_tensorrt_graphs
from deploy.tensorrt_graphs.parity import ap_faults, ap_report
from lstfe.data.prepared import load_split

VerifiedBackend = Literal["tensorrt", "onnx"]
# Float32 engines must be as near as the exported graphs; lower precisions are judged by their AP alone.
_EXACT: tuple[str | None, ...] = (None, "fp32")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a comparison found."""

    report: Mapping[str, Any]
    path: Path
    """The report as a file."""
    faults: tuple[str, ...]
    """What is past its limit, a line each."""


def verify_engines(
    bundle: Bundle,
    prepared_dir: Path,
    *,
    backend: VerifiedBackend = "tensorrt",
    precision: Precision | None = None,
    split: str | None = None,
    num_frames: int | None = None,
) -> Verified:
    """Compare a backend with PyTorch on frames of a prepared split (`evaluate.split` unless given).

    `precision` is for `onnx` alone; int8 and fp8 take their ranges from the split `train`. Writes parity.json beside
    the engines; the bundle's own stays. Limits are `export.max_difference` (float32) and `export.max_ap_drop`. Raises
    AnnotationError for a data set whose categories are not the bundle's.
    """
    export = bundle.config.export
    export = replace(export, parity_frames=num_frames or export.parity_frames)
    bundle = replace(bundle, config=replace(bundle.config, export=export))
    # Before minutes of work.
    load_split(prepared_dir, split or bundle.config.evaluate.split, label_names=bundle.label_names)
    with _compared(bundle, prepared_dir, backend, precision) as (graphs, built_precision, directory):
        report = ap_report(bundle, graphs, backend=backend, prepared_dir=prepared_dir, split=split)
    report |= {"backend": backend, "precision": built_precision or "fp32"}
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / PARITY_FILE
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return Verified(report, path, tuple(_faults(report, is_exact=built_precision in _EXACT)))


@contextmanager
def _compared(
    bundle: Bundle, prepared_dir: Path, backend: VerifiedBackend, precision: Precision | None
) -> Iterator[tuple[Graphs, Precision | None, Path]]:
    """Yield graphs of the plain form's contract, their precision, and where their report belongs."""
    plain = OnnxGraphs(bundle.directory, bundle.config)
    engines_dir = bundle.directory / ENGINES_DIR
    if backend == "onnx":
        if precision is None:
            yield plain, None, engines_dir / "onnx"
            return
        models = build_tensorrt_graphs(bundle, precision=precision, calibration=prepared_dir)
        expanded = ExpandedGraphs(models, bundle.config)
        yield PlainView(expanded, plain, bundle.config), precision, engines_dir / f"onnx-{precision}"
        return
    from deploy.tensorrt.engines import open_engines
    from deploy.tensorrt.on_host import EngineGraphs

    engines = open_engines(bundle)
    directory, _ = find_engines(bundle, engines.tensorrt.version, engines.cuda.gpu)
    graphs = EngineGraphs(engines)
    try:
        yield PlainView(graphs, plain, bundle.config), engines.manifest.precision, directory
    finally:
        graphs.close()


def _faults(report: Mapping[str, Any], *, is_exact: bool) -> Iterator[str]:
    for name, by_input in report["graphs"].items():
        relative = by_input["frames"]["relative"]
        if is_exact and relative > report["max_difference"]:
            yield (
                f"graph {name} differs from PyTorch by {relative:.1e} (relative), more than "
                f"export.max_difference {report['max_difference']:.1e}"
            )
    yield from ap_faults(report)


def parity_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the report as rows of a table: graph, largest absolute and relative difference, unmatched boxes."""
    rows: list[tuple[str, ...]] = []
    for name, by_input in report["graphs"].items():
        found = by_input["frames"]
        absolute = found.get("absolute", found.get("box_px"))
        unmatched = f"{found['num_unmatched']} of {found['num_boxes']}" if "num_boxes" in found else ""
        rows.append((name, f"{absolute:.2e}", f"{found['relative']:.2e}", unmatched))
    return rows
